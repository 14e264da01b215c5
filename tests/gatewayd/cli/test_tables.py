"""What a terminal shows of versions."""

from typing import Any

import pytest
from rich.console import Console

from gatewayd.cli.tables import nodes


def shown(node: dict[str, Any]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(nodes([node]))
    return capture.get()


@pytest.mark.parametrize(
    ("firmware", "target", "text"),
    [
        ("1.9.0", "1.10.0", "1.9.0 → 1.10.0"),
        (None, "1.10.0", "0x00000005 → 1.10.0"),
        ("1.9.0", None, "1.9.0 → 0x00000006"),
        (None, None, "0x00000005 → 0x00000006"),
    ],
)
def test_versions_of_known_releases_are_shown_as_such(firmware: str | None, target: str | None, text: str) -> None:
    update = {"state": "transferring", "target_version": 6, "target_firmware": target, "confirmed": 1, "size": 2}
    update |= {"code": "", "detail": ""}
    node = {"id": "zigbee:1", "name": "lamp", "model": "", "version": 5, "firmware": firmware, "update": update}
    assert text in shown({**node, "power": "mains", "battery_percent": None, "last_seen": None})
