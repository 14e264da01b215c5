"""The LoRaWAN radio: `radios.radio.Radio` over a network server. SHELL.

Keeps the inventory, forms cohorts, runs their sessions, and restores all of it from the journal. What a session does is
decided in `fuota_session`; how the network server is spoken to, in `chirpstack`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, replace

from radios.clock import Clock
from radios.errors import ContractError, LinkError, Unsupported
from radios.lorawan.chirpstack import ChirpStack
from radios.lorawan.cohorts import Cohorts
from radios.lorawan.gps_time import GpsTime
from radios.lorawan.inventory import Node, time_answer
from radios.lorawan.journal_codec import (
    BadRecord,
    Known,
    Records,
    known_record,
    read_known,
)
from radios.lorawan.network_server import Device, DeviceClass, NetworkServer, Uplink
from radios.lorawan.placement import Candidate
from radios.lorawan.runner import JournalFailed, wait_until
from radios.lorawan.settings import LorawanSettings
from radios.lorawan.single_requests import SingleRequests
from radios.lorawan.transfer_plan import ASSUMPTIONS, planned
from radios.radio import (
    CommandResult,
    ImageStore,
    Journal,
    Json,
    NodeCommand,
    NodeDirective,
    NodeId,
    NodeMessage,
    NodeObservation,
    TransferOrder,
    TransferPlan,
    radio_of,
)

__all__ = ["LorawanRadio", "LorawanSettings"]

_log = logging.getLogger(__name__)

_UNDERWAY_MOST_S = 60.0  # from the node to us
_ANSWERS_OBSERVED = 10_000  # observations kept for a slow reader; older ones go


class LorawanRadio:
    """`network`: for tests and other servers; by default the ChirpStack of the settings."""

    kind = "lorawan"

    def __init__(self, settings: LorawanSettings, clock: Clock, network: NetworkServer | None = None) -> None:
        self._clock = clock
        settings = self._settings = replace(
            settings, session=replace(settings.session, wall=clock.wall, gps=GpsTime(clock.wall))
        )
        self._network: NetworkServer = network or ChirpStack(settings.chirpstack, clock.wall)
        self._observed: asyncio.Queue[NodeObservation] = asyncio.Queue(_ANSWERS_OBSERVED)
        self._wake = asyncio.Event()
        self._cohorts = Cohorts(settings, clock, self._network, self._wake)
        self._requests = SingleRequests(self._network, self._cohorts.single, clock, self._cohorts.watch.changed)
        self._device_error = ""

    # The contract.

    async def run(self, journal: Journal, images: ImageStore) -> None:
        records = Records.sorted(await journal.load())
        self._restore_network(records)
        try:
            async with asyncio.TaskGroup() as group:
                self._cohorts.ground.open(journal, images, group)
                self._cohorts.gps_moved()
                for cohort in records.cohorts:
                    self._cohorts.restore(cohort, records)
                group.create_task(self._listen(), name="lorawan uplinks")
                group.create_task(self._watch_gateways(), name="lorawan gateways")
                group.create_task(self._poll_devices(), name="lorawan devices")
                group.create_task(self._steward(), name="lorawan steward")
        finally:
            self._cohorts.ground.close()
            await self._network.close()

    async def plan(self, order: TransferOrder, nodes: Sequence[NodeId]) -> TransferPlan:
        skipped: dict[NodeId, str] = {}
        taking: list[Node] = []
        for node_id in nodes:
            node = self._cohorts.nodes.get(_dev_eui(node_id))
            reason = "unknown to the network server" if node is None else self._cohorts.obstacle(node)
            if reason or node is None:
                skipped[node_id] = reason
            else:
                taking.append(node)
        if not taking:
            return TransferPlan(frames=0, airtime_s=0.0, eta_s=0.0, skipped=skipped)
        cohorts, settings = self._cohorts, self._settings
        ready: list[Candidate] = []
        for node in taking:
            if (found := cohorts.candidate(node, order.transfer)) is None:
                skipped[node.node_id] = "not heard yet: its next uplink tells its data rate"
            else:
                ready.append(found)
        made = planned(
            order.image,
            ready,
            cohorts.gateways,
            settings.plan,
            cohorts.factory.unicast_air,
            lambda place: cohorts.factory.pace(order.air_share, place.gateways, place.data_rate),
            self._uplink_s,
        )
        return TransferPlan(
            frames=sum(part.frames for part in made.parts),
            airtime_s=sum(part.airtime_s for part in made.parts),
            eta_s=max(part.eta_s for part in made.parts) + settings.session.lead_s if made.parts else 0.0,
            skipped={**skipped, **made.skipped},
            parts=made.parts,
            assumptions=ASSUMPTIONS,
        )

    async def put(self, order: TransferOrder) -> None:
        before = self._cohorts.orders.get(order.transfer)
        if before is not None and before.image != order.image:
            raise ContractError(f"transfer {order.transfer}: the image never changes")
        self._cohorts.put(order)
        self._wake.set()

    async def direct(self, directives: Sequence[NodeDirective]) -> None:
        for directive in directives:
            if radio_of(directive.node) != self.kind:
                raise ContractError(f"{directive.node} is no LoRaWAN node")
            self._cohorts.direct(_dev_eui(directive.node), directive)
        self._wake.set()

    async def manage(self, command: NodeCommand) -> CommandResult:
        if command.name == "list":
            return CommandResult(ok=True, value=[self._listed(node) for node in self._cohorts.nodes.values()])
        if command.name == "read" and command.node is not None:
            node = self._cohorts.nodes.get(_dev_eui(command.node))
            if node is None:
                return CommandResult(ok=False, detail=f"{command.node} is unknown to the network server")
            node.ask_version()
            self._wake.set()
            return CommandResult(ok=True, detail="asked; the answer is an observation", value=self._listed(node))
        if command.name == "plan":
            return await self._plan(str(command.arguments.get("transfer", "")))
        return CommandResult(ok=False, detail=f"{command.name}: devices are managed in the network server")

    async def observations(self) -> AsyncIterator[NodeObservation]:
        while True:
            yield await self._observed.get()

    async def traffic(self) -> AsyncIterator[NodeMessage]:
        """Nothing: application uplinks are ChirpStack's to hand on, by its own integrations."""
        nothing: tuple[NodeMessage, ...] = ()
        for message in nothing:
            yield message

    def status(self) -> Mapping[str, Json]:
        now = self._clock.now()
        link: dict[str, Json] = dict(self._network.link_up())
        cohorts = self._cohorts.status()
        air: dict[str, Json] = {
            gateway: {"used_s": round(ledger.used(now), 3), "budget_s": ledger.budget_s}
            for gateway, ledger in self._cohorts.book.of(self._settings.frequency_hz).items()
        }
        return {
            "link": link,
            "error": self._device_error,
            "devices": len(self._cohorts.nodes),
            "gateways": list(self._cohorts.gateways),
            "cohorts": cohorts,
            "air": air,
            "gateway_bus": {
                "downlinks": self._cohorts.watch.downlinks,
                "acks": self._cohorts.watch.acks,
                "unacknowledged": self._cohorts.watch.unacknowledged,
            },
        }

    # Tasks.

    async def _listen(self) -> None:
        async for uplink in self._network.uplinks():
            self._heard(uplink)

    async def _watch_gateways(self) -> None:
        async for event in self._network.gateway_events():
            self._cohorts.watch.hear(event, self._clock.now())

    def _heard(self, uplink: Uplink) -> None:
        now = self._clock.now()
        node = self._cohorts.nodes.get(uplink.dev_eui)
        if node is None:
            return
        if uplink.received_at is not None and abs(now - uplink.received_at) > _UNDERWAY_MOST_S:
            uplink = replace(uplink, received_at=None)  # by another clock, or ours was stepped meanwhile
        if (gps_s := next((r.gps_time_s for r in uplink.receptions if r.gps_time_s is not None), None)) is not None:
            self._settings.session.gps.heard(gps_s, now)
            self._cohorts.gps_moved()
        if node.hear(uplink, now):
            self._keep_known(node.known)
            self._wake.set()
        elif node.asked and node.is_due(self._settings.inventory, now):
            self._wake.set()  # the question goes down with this very uplink
        answer = time_answer(node.device, node.ports, uplink, now, self._settings.session.gps)
        if answer is not None and self._settings.owns(node.device.tags):
            self._cohorts.ground.spawn(self._requests.send(answer))
        self._offer(node.told(now))
        runner = self._cohorts.runner_of(uplink.dev_eui)
        if runner is not None:
            runner.receive(uplink)

    async def _poll_devices(self) -> None:
        while True:
            wait_s = self._settings.device_poll_s
            try:
                devices = await self._network.devices()
                self._cohorts.gateways = tuple(await self._network.gateways())
                self._cohorts.book.know(self._cohorts.gateways)
                self._device_error = ""
            except (LinkError, Unsupported) as error:
                self._device_error = str(error)
                _log.warning("lorawan devices: %s", error)
                wait_s = min(wait_s, self._settings.session.retry_s)
            else:
                self._adopt(devices)
            await self._clock.sleep_until(self._clock.now() + wait_s)

    def _adopt(self, devices: Sequence[Device]) -> None:
        for device in devices:
            node = self._cohorts.nodes.get(device.dev_eui)
            if node is None:
                known = self._cohorts.known.setdefault(device.dev_eui, Known(device.dev_eui))
                self._cohorts.nodes[device.dev_eui] = node = Node(device, known, self._settings.ports)
            node.describe(device)
            if not self._settings.may_set_up(device.tags):
                self._cohorts.disown(device.dev_eui)
            self._offer(node.described(self._clock.now(), self._cohorts.obstacle(node)))
        gone = set(self._cohorts.nodes) - {device.dev_eui for device in devices}
        for dev_eui in gone:
            node = self._cohorts.nodes.pop(dev_eui)
            self._offer(NodeObservation(node.node_id, self._clock.now(), joined=False, alive=False))
        self._wake.set()

    async def _steward(self) -> None:
        """Asks nodes what they are, and gives those that are wanted a place in a cohort."""
        while True:
            self._wake.clear()
            self._keep_air()
            claiming = await self._ask_nodes()
            try:
                await self._cohorts.place()
            except JournalFailed as error:
                _log.error("lorawan journal: %s", error)
            now = self._clock.now()
            due = [node.not_before for node in self._cohorts.nodes.values() if node.not_before > now]
            if claiming or self._cohorts.claiming:
                due.append(now + self._settings.claim_settle_s)
            free_at = self._cohorts.turn.free_at(now)
            if free_at > now and any(n.always_on and n.not_before <= now for n in self._cohorts.nodes.values()):
                due.append(free_at)
            await wait_until(self._clock, min([now + self._settings.steward_s, *due]), self._wake)

    async def _ask_nodes(self) -> bool:
        """Whether one of them has to be claimed first."""
        claiming = in_turn = False
        # Silent ones let others go before.
        for node in sorted(self._cohorts.nodes.values(), key=lambda node: node.asked):
            dev_eui = node.device.dev_eui
            if node.device.refused or not self._settings.may_set_up(node.device.tags):
                continue
            if self._cohorts.runner_of(dev_eui) is not None:
                continue  # its session asks what it needs; two questions at a time collide
            now = self._clock.now()
            if node.always_on and (in_turn or self._cohorts.turn.free_at(now) > now):
                in_turn = True  # nor is one behind it; the steward looks again when the air is free
                continue
            if not node.is_due(self._settings.inventory, now):
                if node.take_changed():
                    self._keep_known(node.known)
                continue
            if not await self._cohorts.owners.may_ask(node, self._cohorts.gateways, now):
                claiming = True
                continue
            action = node.ask(self._settings.inventory, now)
            if node.take_changed():
                self._keep_known(node.known)
            if action is None:
                continue
            if node.always_on:
                self._cohorts.turn.take(now, self._settings.session.unicast_gap_s)
            if not await self._requests.send(action):
                node.postpone(self._clock.now() + self._settings.session.retry_s)
        return claiming

    def _restore_network(self, records: Records) -> None:
        for record in records.known:
            try:
                known = read_known(record)
            except BadRecord as error:
                _log.error("lorawan: %s", error)
            else:
                self._cohorts.known[known.dev_eui] = known
        for record in records.air:
            try:
                self._cohorts.book.restore(record, self._clock.now())
            except ValueError as error:
                _log.error("lorawan %s: %s", record.key, error)

    async def _plan(self, transfer: str) -> CommandResult:
        """The plan of a transfer that was put, for the nodes that are directed to it."""
        order = self._cohorts.orders.get(transfer)
        if order is None:
            return CommandResult(ok=False, detail=f"transfer {transfer!r} is not known")
        nodes = [directive.node for directive in self._cohorts.directives.values() if directive.transfer == transfer]
        made = asdict(await self.plan(order, nodes))
        parts = [part | {"members": list(part["members"])} for part in made["parts"]]
        return CommandResult(ok=True, detail=ASSUMPTIONS, value=made | {"parts": parts})

    # Small things.

    def _keep_air(self) -> None:
        """What others sent; what we send is kept when it is sent."""
        if self._cohorts.watch.unsaved:
            self._cohorts.watch.unsaved = False
            self._cohorts.keep_air()

    def _keep_known(self, known: Known) -> None:
        """What a node told of itself can be asked again: no commit of its own."""
        journal = self._cohorts.ground.journal
        if journal is not None:
            journal.progress((), (known_record(known),))

    def _offer(self, observation: NodeObservation) -> None:
        if self._observed.full():
            self._observed.get_nowait()
        self._observed.put_nowait(observation)

    def _uplink_s(self, dev_eui: str) -> float:
        device = self._cohorts.nodes[dev_eui].device
        return 0.0 if device.device_class is DeviceClass.C else device.uplink_interval_s

    def _listed(self, node: Node) -> Json:
        seen = node.device.last_seen
        return {
            "node": node.node_id,
            "name": node.device.name,
            "class": str(node.device.device_class),
            "version": node.known.fw_version,
            "region": node.device.region,
            "mac_version": ".".join(map(str, node.device.mac_version)),
            "profile": node.device.profile,
            "last_seen": None if seen is None else self._clock.wall.unix(seen),  # Unix seconds, for people
            "battery_percent": node.device.battery_percent,
            "external_power": node.device.external_power,
            "margin_db": node.device.margin_db,
            "tags": dict(node.device.tags),
            "hardware": None if node.known.hw_version is None else f"lorawan:{node.known.hw_version:08x}",
            "packages": {str(package): version for package, version in node.known.packages.items()},
            "refused": self._cohorts.obstacle(node),
        }


def _dev_eui(node: NodeId) -> str:
    return node.partition(":")[2]
