"""`gatewayd zigbee`: what reaches the radio, and what an operator reads. No secret is shown or logged."""

import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from gatewayd.cli.commands import gatewayd
from radios.errors import LinkError
from radios.radio import CommandResult, NodeCommand, NodeId
from tests.support import zigbee_backups as backups

NODE = "zigbee:00124b0000000001"
CODE = "83FED3407A939723A5C639B26916D505"
SURVEY = {
    "backup": {
        "source": "zigbee-herdsman@4.1.0", "made_at": "2026-11-20T08:15:30Z", "channel": 20, "pan_id": "5d2e",
        "extended_pan_id": "1122334455667788", "coordinator": backups.COORDINATOR, "frame_counter": 123456, "devices": 3,
        "without_address": 1, "with_link_key": 1, "notes": [],
    },
    "dongle": None, "address": "as in the backup", "frame_counter_after": 133456, "new_devices": 2,
    "refused": ["the dongle holds another network"], "notes": [],
}  # fmt: skip


async def test_permit_join(command: Any, daemon: Any) -> None:
    assert (await command("zigbee", "permit-join", "90")).output == "nodes may join for 90 s\n"
    assert daemon.asked == [("zigbee", NodeCommand("permit_join", None, {"seconds": 90}))]
    assert (await command("zigbee", "permit-join", "0")).output == "no node may join any more\n"
    through = await command("zigbee", "permit-join", "--through", NODE)
    assert through.output == f"nodes may join for 60 s through {NODE}\n"
    assert daemon.asked[-1] == ("zigbee", NodeCommand("permit_join", NodeId(NODE), {"seconds": 60}))
    daemon.result = CommandResult(ok=False, detail="the network is closed")
    refused = await command("zigbee", "permit-join")
    assert (refused.exit_code, refused.output) == (1, "gatewayd: the network is closed\n")
    daemon.failure = LinkError("the dongle does not answer")
    failed = await command("zigbee", "permit-join")
    assert (failed.exit_code, failed.output) == (1, "gatewayd: the dongle does not answer\n")
    assert (await command("zigbee", "permit-join", "255")).exit_code == 2


async def test_an_install_code_comes_from_a_file_and_goes_to_the_radio_only(
    command: Any, daemon: Any, tmp_path: Path
) -> None:
    (tmp_path / "code").write_text(f"{CODE}\n")
    with structlog.testing.capture_logs() as logs:
        done = await command("zigbee", "permit-join", "--node", NODE, "--install-code", str(tmp_path / "code"))
    assert done.output == f"{NODE} may join for 60 s\n"
    assert daemon.asked == [("zigbee", NodeCommand("permit_join", NodeId(NODE), {"seconds": 60, "install_code": CODE}))]
    assert CODE not in str(logs) + done.output
    assert (await command("zigbee", "permit-join", "--node", NODE)).exit_code == 2
    assert (await command("zigbee", "permit-join", "--install-code", str(tmp_path / "code"))).exit_code == 2


async def test_remove(command: Any, daemon: Any) -> None:
    daemon.result = CommandResult(ok=True, value={"left": True})
    assert (await command("zigbee", "remove", NODE)).output == f"{NODE}: has left\n"
    daemon.result = CommandResult(ok=True, value={"left": False, "why": "the node did not answer: removed here"})
    assert (await command("zigbee", "remove", NODE)).output == f"{NODE}: the node did not answer: removed here\n"
    assert (await command("zigbee", "remove", "lamp")).exit_code == 1


@pytest.mark.parametrize("size", [1, 60])
async def test_restore(command: Any, daemon: Any, tmp_path: Path, size: int) -> None:
    file = tmp_path / "backup.json"
    # More than 16 kB: a site's worth of nodes.
    backup = backups.zha()
    backup["devices"] *= size
    file.write_text(json.dumps(backup, indent=2))
    daemon.result = CommandResult(ok=True, value=SURVEY)
    with structlog.testing.capture_logs() as logs:
        looked = await command("zigbee", "restore", str(file))
    assert looked.exit_code == 0, looked.output
    assert "PAN 5d2e, extended 1122334455667788, channel 20" in looked.output
    assert "refused     the dongle holds another network" in looked.output
    ((_, asked),) = daemon.asked
    assert asked.name == "restore"
    assert asked.arguments["backup"] == backup, "keys arrive as they are"
    assert asked.arguments["apply"] is False
    assert backups.NETWORK_KEY not in looked.output + str(logs)

    daemon.result = CommandResult(ok=True, value={**SURVEY, "refused": []})
    done = await command("zigbee", "restore", str(file), "--apply", "--overwrite", "--counter-gap", "7")
    assert "done: the dongle has this network" in done.output
    assert {k: v for k, v in daemon.asked[-1][1].arguments.items() if k != "backup"} == {
        "apply": True, "overwrite": True, "burn_address": False, "keep_address": False, "counter_gap": 7,
    }  # fmt: skip


async def test_what_is_no_backup_is_not_sent(command: Any, daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no json")
    (tmp_path / "large").write_text(" " * 1_000_001)
    for name, why in (("text", "is no JSON"), ("large", "larger than"), ("none", "cannot be read")):
        result = await command("zigbee", "restore", str(tmp_path / name))
        assert (result.exit_code, why in result.output) == (2, True)
    assert daemon.asked == []


async def test_form_and_adopt(command: Any, daemon: Any) -> None:
    daemon.result = CommandResult(ok=True, value={"abandoned": "PAN 5d2e"})
    assert (await command("zigbee", "form", "--abandon")).output == "a new network is formed; abandoned: PAN 5d2e\n"
    assert daemon.asked == [("zigbee", NodeCommand("form", None, {"abandon": True}))]
    daemon.result = CommandResult(ok=True, value={"pan_id": "5d2e", "extended_pan_id": "1122334455667788"})
    assert "PAN 5d2e" in (await command("zigbee", "adopt")).output


@pytest.mark.parametrize("name", ["permit-join", "remove", "restore", "form", "adopt"])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(gatewayd, ["zigbee", name, "--help"])
    assert (result.exit_code, "Usage:" in result.output) == (0, True)
