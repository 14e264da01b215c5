"""What operators ask of the running daemon: commands that replace the network are surrounded by backups."""

from pathlib import Path
from typing import Any

import pytest

from gatewayd.backup.scheduled import ScheduledBackups
from gatewayd.live_view import DaemonView
from gatewayd.nodes.network_backup import NetworkBackups
from gatewayd.status.metrics import numbers
from radios.errors import LinkError
from radios.radio import CommandResult, Json, NodeCommand


class Radio:
    kind = "zigbee"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.restored = CommandResult(True)
        self.link = "up"

    async def manage(self, command: NodeCommand) -> CommandResult:
        self.asked.append(command.name)
        return CommandResult(True, value={}) if command.name == "backup" else self.restored

    def status(self) -> dict[str, Json]:
        return {"link": self.link, "error": "" if self.link == "up" else "no such file"}


def view(radio: Any, folder: Path) -> tuple[DaemonView, NetworkBackups]:
    nothing: Any = None
    backups = NetworkBackups(radio, folder, 86_400.0, 7, lambda: 1.8e9)
    daemon = DaemonView(
        "gw", nothing, nothing, nothing, {"zigbee": radio}, {}, nothing, None, backups={"zigbee": backups}
    )
    return daemon, backups


async def test_a_scheduled_backup_that_fails_is_in_the_health_and_in_the_numbers(tmp_path: Path) -> None:
    class Fine:
        store_problem, reason, problem, view = "", "", None, None

        def trusted(self) -> bool:
            return True

    async def fresh() -> None:
        return None

    fine: Any = Fine()
    scheduled = ScheduledBackups(tmp_path, "gw", tmp_path / "disk", 86_400.0, 2, lambda: 1.8e9, fresh)
    daemon = DaemonView("gw", fine, fine, fine, {}, {}, fine, scheduled=scheduled)
    assert "backup" not in daemon.troubles()
    assert not await scheduled.make()
    assert daemon.troubles()["backup"][0] == "backup_failed"
    assert dict(numbers(dict(daemon.gateway())))["backup.failing"] == 1.0


async def test_a_network_that_is_replaced_is_backed_up_before(tmp_path: Path) -> None:
    radio = Radio()
    daemon, backups = view(radio, tmp_path)
    await daemon.command("zigbee", NodeCommand("restore", None, {"backup": {}}))
    assert (radio.asked, backups.files()) == (["restore"], []), "only looked at"
    await daemon.command("zigbee", NodeCommand("restore", None, {"backup": {}, "apply": True}))
    assert radio.asked == ["restore", "backup", "restore"]
    assert [path.name.partition("Z-")[2] for path in backups.files()] == ["before-restore.json"]
    await daemon.command("zigbee", NodeCommand("form"))
    assert radio.asked[-2:] == ["backup", "form"]


async def test_the_backup_is_in_the_radios_status(tmp_path: Path) -> None:
    daemon, _ = view(Radio(), tmp_path)
    assert daemon.radios() == {"zigbee": {"link": "up", "error": "", "backup": {"made_at": None, "error": ""}}}


async def test_a_backup_is_kept_when_it_is_asked_for(tmp_path: Path) -> None:
    daemon, backups = view(Radio(), tmp_path)
    assert await daemon.back_up("zigbee") == backups.files()[-1].name
    with pytest.raises(LinkError, match="no network of a lorawan radio"):
        await daemon.back_up("lorawan")


async def test_a_backup_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    class Down(Radio):
        async def manage(self, command: NodeCommand) -> CommandResult:
            return CommandResult(False, "the dongle is not there")

    daemon, _ = view(Down(), tmp_path)
    with pytest.raises(LinkError, match="the dongle is not there"):
        await daemon.back_up("zigbee")
