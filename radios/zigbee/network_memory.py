"""Which network this gateway's nodes are in: kept in the journal, so that a dongle that lost it, or another dongle, shows.

A network is formed only where none is known: one formed anew would leave every node of the old one behind. Never a
key, but for a network that waits, after a restore of the whole gateway, for a dongle that has none.
"""

import contextlib
import json
import logging
from typing import Any, Final

from radios.errors import FrameError
from radios.radio import Journal, Json, Record
from radios.zigbee.network import describe_network, read_backup
from radios.zigbee.restored import REPLACEMENT_KEY, REPLACEMENT_SCOPE, Replacement, read_replacement, replacement_record
from radios.zigbee.settings import ZigbeeSettings

RECORD_SCOPE: Final = "network"
RECORD_KEY: Final = "network"
RECORD_VERSION: Final = 1

_LOG = logging.getLogger(__name__)


class NetworkMemory:
    """`warnings` are for operators, until what they say is no longer so."""

    def __init__(self, settings: ZigbeeSettings) -> None:
        self._settings = settings
        self._journal: Journal | None = None
        self._expected: dict[str, Json] = {}
        self.replacement: Replacement | None = None  # for a dongle without a network
        self.warnings: list[str] = []

    async def load(self, journal: Journal) -> None:
        """Before the radio is opened."""
        self._journal = journal
        for record in await journal.load():
            if (record.scope, record.key) == (REPLACEMENT_SCOPE, REPLACEMENT_KEY):
                try:
                    self.replacement = read_replacement(record)
                except FrameError as error:
                    _LOG.error("Zigbee journal: %s", error)
            if (record.scope, record.key) != (RECORD_SCOPE, RECORD_KEY):
                continue
            try:
                value = json.loads(record.value)
            except ValueError:
                value = None
            if record.version == RECORD_VERSION and isinstance(value, dict):
                self._expected = value
            else:
                _LOG.error("Zigbee journal: the record of the network cannot be read; left out")
        if self.replacement is not None and not self._expected:
            with contextlib.suppress(FrameError):  # told when it is to be written
                self._expected = read_backup(self.replacement.backup).network

    @property
    def network(self) -> dict[str, Json]:
        """Channel, PAN id, extended PAN id; empty when none was ever seen here."""
        return dict(self._expected)

    def known(self, app: Any) -> str:
        """The network that the nodes are in, in words; empty when none was ever seen here."""
        if self._expected:
            return self._words()
        backup = app.backups.most_recent_backup()
        if backup is not None:
            return describe_network(backup.network_info)
        return f"{len(app.devices)} nodes in zigpy's table" if app.devices else ""

    async def settle(self, app: Any) -> None:
        """The dongle's network is up: remember it when none is known, and compare."""
        found = _described(app.state.network_info)
        warnings = self._against_settings(app.state.network_info)
        if self._expected and self._expected.get("extended_pan_id") != found["extended_pan_id"]:
            warnings.append(
                f"the dongle's network ({describe_network(app.state.network_info)}) is not the one that the nodes are in "
                f"({self._words()}): `gatewayd zigbee restore` brings that back, `gatewayd zigbee adopt` takes this one"
            )
        else:
            if self._expected != found and set(str(found["extended_pan_id"])) not in ({"0"}, {"f"}):
                await self.expect(found)  # some libraries do not say which network it is
            await self._no_replacement()
        for warning in warnings:
            if warning not in self.warnings:
                _LOG.warning("Zigbee: %s", warning)
        self.warnings = warnings

    async def adopt(self, app: Any) -> None:
        """What the dongle holds is the network from now on."""
        await self.expect(_described(app.state.network_info))
        await self.settle(app)

    async def expect(self, network: dict[str, Json]) -> None:
        """Durable on return; an empty one forgets."""
        value = json.dumps(network, sort_keys=True, separators=(",", ":")).encode() if network else b""
        if self._journal is not None:
            await self._journal.commit([Record(RECORD_SCOPE, RECORD_KEY, RECORD_VERSION, value)], [])
        self._expected = dict(network)

    async def _no_replacement(self) -> None:
        """The nodes' network is in a dongle: its keys are not kept twice."""
        if self.replacement is not None and self._journal is not None:
            await self._journal.commit([replacement_record(None)], [])
            self.replacement = None

    def _words(self) -> str:
        expected = self._expected
        return (
            f"PAN {expected.get('pan_id')}, extended {expected.get('extended_pan_id')}, "
            f"channel {expected.get('channel')}"
        )

    def _against_settings(self, info: Any) -> list[str]:
        """The settings are for a network that is formed; one that exists is never changed by them."""
        found, settings = _described(info), self._settings
        wanted: dict[str, Json] = {
            "channel": settings.channel,
            "pan_id": None if settings.pan_id is None else f"{settings.pan_id:04x}",
            "extended_pan_id": settings.extended_pan_id,
        }
        warnings = [
            f"the configured {name} {value} is not the network's, which is {found[name]}: it is for a new network only"
            for name, value in wanted.items()
            if value is not None and value != found[name]
        ]
        if settings.network_key is not None and bytes(info.network_key.key.serialize()) != settings.network_key:
            warnings.append("the configured network key is not the network's: it is for a new network only")
        return warnings


def _described(info: Any) -> dict[str, Json]:
    return {
        "channel": int(info.channel),
        "pan_id": f"{int(info.pan_id):04x}",
        "extended_pan_id": str(info.extended_pan_id).replace(":", "").lower(),
    }
