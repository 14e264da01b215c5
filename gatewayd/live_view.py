"""What operators see of the running daemon beyond its tables: `gatewayd.status.api.LiveView` over the rooms."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gatewayd.backup.scheduled import ScheduledBackups
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.coordinator import Coordinator
from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.supply import Supply
from gatewayd.cloud.link import CloudLink
from gatewayd.cloud.messages import utc
from gatewayd.health import OK, Troubles
from gatewayd.nodes.bridge import NodeBridge
from gatewayd.nodes.network_backup import NetworkBackups
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.witness import Witness
from radios.errors import LinkError
from radios.radio import CommandResult, Json, NodeCommand, Radio


class DaemonView:
    """Read-only but for the operator's hold and radio commands."""

    def __init__(
        self,
        gateway: str,
        authority: Authority,
        coordinator: Coordinator,
        link: CloudLink,
        radios: Mapping[str, Radio],
        journals: Mapping[str, RadioJournal],
        wall: WallClock,
        set_aside: Path | None = None,
        bridge: NodeBridge | None = None,
        backups: Mapping[str, NetworkBackups] | None = None,
        supply: Supply | None = None,
        witness: Witness | None = None,
        restored: Mapping[str, Json] | None = None,
        scheduled: ScheduledBackups | None = None,
    ) -> None:
        self._witness = witness
        self._gateway = gateway
        self._authority = authority
        self._coordinator = coordinator
        self._link = link
        self._radios = radios
        self._journals = journals
        self._wall = wall
        self._bridge = bridge
        self._backups = backups or {}
        self._supply = supply
        self._scheduled = scheduled
        self._restored = dict(restored or {})  # since when the store goes on from a backup, and from when that is
        self._set_aside = set_aside  # the corrupt store that was found at the start

    def gateway(self) -> Mapping[str, Json]:
        view = self._authority.view
        downloads = None if self._supply is None else self._supply.status()
        trust: dict[str, Json] = {"known": view is not None}
        if view is not None:
            trust |= {
                "expires": utc(view.expires).isoformat(),
                "checked_at": utc(view.checked_at).isoformat(),
                "root_version": view.root_version,
                "targets_version": view.targets_version,
            }
        if self._authority.problem is not None:
            trust["problem"] = f"{self._authority.problem[0]}: {self._authority.problem[1]}"
        return {
            "id": self._gateway,
            "clock": {"trusted": self._wall.trusted(), "reason": self._wall.reason},
            "trust": trust,
            **({} if self._bridge is None else {"bridge": self._bridge.status()}),
            **({"downloads": downloads} if downloads else {}),
            **({} if self._scheduled is None else {"backup": self._scheduled.status()}),
            **({"restored": self._restored} if self._restored else {}),
        }

    def radios(self) -> Mapping[str, Mapping[str, Json]]:
        found = {kind: dict(radio.status()) for kind, radio in self._radios.items()}
        for kind, backups in self._backups.items():
            found[kind]["backup"] = backups.status()
        return found

    def cloud(self) -> Mapping[str, Json]:
        return asdict(self._link.status())

    def live_progress(self) -> Mapping[tuple[str, str], int]:
        merged: dict[tuple[str, str], int] = {}
        for journal in self._journals.values():
            merged |= journal.live
        return merged

    def ready(self) -> list[str]:
        reasons = []
        if self._authority.view is None:
            problem = self._authority.problem
            reasons.append("no verified trust metadata" + (f" ({problem[1]})" if problem else ""))
        for kind in self._radios:
            reasons += [f"the {kind} radio: {name} is not up" for name in self._links_down(kind)]
        return reasons

    def troubles(self) -> Troubles:
        """For the cloud: every part of the gateway and what is wrong with it."""
        clock = (OK, "") if self._wall.trusted() else ("clock_untrusted", self._wall.reason)
        found = {"clock": clock, "store": self._store_trouble(), "trust": self._trust_trouble()}
        for kind in self._radios:
            down = self._links_down(kind)
            why = self._radios[kind].status().get("error")
            detail = f"not up: {', '.join(down)}" + (f": {why}" if why else "")
            found[kind] = ("radio_down", detail) if down else (OK, "")
        if self._scheduled is not None and (backup := self._scheduled.trouble()) is not None:
            found["backup"] = (backup[0] or OK, backup[1])
        return found

    def _trust_trouble(self) -> tuple[str, str]:
        view = self._authority.view
        if view is not None and self._wall.trusted() and self._wall.now() > view.expires:
            return "trust_expired", f"expired at {utc(view.expires).isoformat()}"
        return self._authority.problem or (OK, "")

    def _store_trouble(self) -> tuple[str, str]:
        if self._coordinator.store_problem:
            return "store_failed", self._coordinator.store_problem
        if self._set_aside is not None:
            found = self._witness.trouble if self._witness is not None else None
            return "store_corrupt", f"set aside as {self._set_aside.name}" + (f"; {found[1]}" if found else "")
        if self._witness is not None and self._witness.trouble is not None:
            return self._witness.trouble
        return OK, ""

    def _links_down(self, kind: str) -> list[str]:
        link = self._radios[kind].status().get("link")
        parts = link.items() if isinstance(link, dict) else [("link", link)]
        return [name for name, state in parts if state not in ("up", True)]

    async def hold(self, campaign: str) -> bool:
        return await self._coordinator.hold(campaign, True)

    async def resume(self, campaign: str) -> bool:
        return await self._coordinator.hold(campaign, False)

    async def command(self, kind: str, command: NodeCommand) -> CommandResult:
        radio = self._radios.get(kind)
        if radio is None:
            raise LinkError(f"no {kind} radio is configured")
        backups = self._backups.get(kind)
        if backups is None or not _replaces_network(command):
            return await radio.manage(command)
        await backups.take(f"before-{command.name}")  # there may be none to keep
        result = await radio.manage(command)
        if result.ok:
            backups.changed()
        return result

    async def back_up(self, kind: str) -> str:
        backups = self._backups.get(kind)
        if backups is None:
            raise LinkError(f"there is no network of a {kind} radio to back up here")
        made = await backups.take()
        if made is None:
            raise LinkError(str(backups.status()["error"]))
        return made.name


def _replaces_network(command: NodeCommand) -> bool:
    return command.name == "form" or (command.name == "restore" and command.arguments.get("apply") is True)
