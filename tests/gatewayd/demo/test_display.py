"""The demo's picture fits a terminal, and is plain lines where there is none."""

import io

import pytest
from rich.console import Console

from gatewayd.demo import scenario
from gatewayd.demo.display import LINE_EVERY_S, Screen, render
from gatewayd.demo.verdict import ALL_NODES, Told

NODES = {node.id: {"version": scenario.ZIGBEE_OLD, "offset": 300, "size": 1000} for node in ALL_NODES}
TOLD = {node.id: Told(node.expected, node.code) for node in ALL_NODES}


@pytest.mark.parametrize(("columns", "with_ids"), [(80, False), (120, True)])
def test_a_frame_fits_24_lines_and_cuts_nothing(columns: int, with_ids: bool) -> None:
    out = io.StringIO()
    Console(file=out, width=columns).print(render(NODES, TOLD, 12.3, columns))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 22  # two more are said before
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert "…" not in out.getvalue()
    for node in ALL_NODES:
        (line,) = [line for line in lines if line.startswith(f"{node.name} ")]
        assert (node.id in line) is with_ids
        assert node.expected.replace("_", " ") in line


def test_where_there_is_no_terminal_a_line_comes_now_and_then() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=False, width=80)) as screen:
        screen.show({}, {}, 0.0)
        screen.show(NODES, {}, 1.0)
        screen.show(NODES, TOLD, LINE_EVERY_S)
        screen.show(NODES, TOLD, 3 * LINE_EVERY_S)
    lines = out.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["0.0", "s"], ["5.0", "s"]]
    assert "\x1b" not in out.getvalue()
    assert "13 updated, " in lines[1]
