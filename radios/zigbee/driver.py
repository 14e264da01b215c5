"""The Zigbee radio of the contract: sessions on one side, zigpy's application on the other.

Owns the link to the dongle, what is observed of nodes, and sending; downloads are the business of `service`, what is
asked of nodes that of `interviews` and `survey`. Nodes are keyed by EUI64, as zigpy replaces its device objects. SHELL.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import zigpy.profiles.zha

from radios.clock import Clock
from radios.errors import ContractError
from radios.radio import (
    NODE_REQUESTS,
    CommandResult,
    ImageStore,
    Journal,
    Json,
    NodeCommand,
    NodeDirective,
    NodeId,
    NodeObservation,
    SiteTraffic,
    TransferOrder,
    TransferPlan,
    radio_of,
)
from radios.zigbee import management, network_commands, nodes, packets
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.green_power import Handled
from radios.zigbee.interviews import Interviews
from radios.zigbee.link import RadioLink
from radios.zigbee.missing_nodes import MissingNodes
from radios.zigbee.network_memory import NetworkMemory
from radios.zigbee.observations import ObservationFeed
from radios.zigbee.ota_commands import OTA_CLUSTER_ID, CommandId
from radios.zigbee.pacing import Pacer
from radios.zigbee.poll_control import POLL_CONTROL_CLUSTER_ID, FastPolls, fast_poll_stop
from radios.zigbee.queries import decode_query, queried
from radios.zigbee.requests import NodeRequests
from radios.zigbee.service import OtaService
from radios.zigbee.session_state import MAX_BLOCK_BYTES
from radios.zigbee.settings import ZigbeeSettings, forming_config, quirk_table, zigpy_config
from radios.zigbee.survey import Surveys
from radios.zigbee.tap import Peer, load_application, tapped
from radios.zigbee.traffic import Traffic, answers_request

_LINK_QUALITY_EVERY_S: Final = 10.0
_DEFAULT_PEER: Final = Peer(zigpy.profiles.zha.PROFILE_ID, 1, 1)


class ZigbeeRadio:
    """radios.radio.Radio for one zigpy network. `application` replaces the radio library's class (simulation)."""

    kind = "zigbee"

    def __init__(self, settings: ZigbeeSettings, clock: Clock, application: type | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._pacer = Pacer(settings.pacing, lambda at: settings.minute_of_day(clock.wall.unix(at)))
        self._feed = ObservationFeed()
        self._traffic = Traffic(settings.traffic_queue)

        def app_if_up() -> Any:
            return self._link.app if self._link.up else None

        self._keeper = ConfigKeeper(clock, settings, app_if_up)
        self._surveys = Surveys(clock, settings, app_if_up, self._keeper, lambda node: self._service.prepared(node))
        self._requests = NodeRequests(settings, self._keeper)
        self._memory = NetworkMemory(settings)
        self._missing = MissingNodes(clock, app_if_up)
        self._link = RadioLink(
            lambda: tapped(application or load_application(settings.radio_library), self),
            zigpy_config(settings),
            clock,
            self,
            form_network=settings.form_network,
            max_wait_s=settings.max_reconnect_wait_s,
            known_network=self._memory.known,
            replacement=lambda: self._network.replacement(),
            forming=forming_config(settings),
        )
        self._network = network_commands.NetworkCommands(self._link, self._memory, clock)
        quirks = quirk_table(settings.quirks)
        self._service = OtaService(
            self._pacer, settings.session_limits, clock, self._transmit, self._endpoint, quirks, self._model
        )
        self._service.broadcast_by(settings.broadcast_notify, self._broadcast)
        self._service.prepare_by(self._surveys.before_update)
        self._service.sleepers_by(self._sleeps)
        self._peers: dict[NodeId, Peer] = {}
        self._node_ids: dict[bytes, NodeId] = {}
        self._link_said_at: dict[NodeId, float] = {}
        self._polls = FastPolls()
        self._interviews = Interviews(
            clock,
            settings,
            lambda: self._link.app,
            self._feed,
            self._keeper,
            self._polls,
            self._service,
            self._transmit,
        )

    # -- the contract --------------------------------------------------------------------------------------------

    async def run(self, journal: Journal, images: ImageStore) -> None:
        await self._memory.load(journal)
        await self._keeper.load(journal)
        await self._service.load(journal, images)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._service.run(tasks), name="zigbee-ota")
            tasks.create_task(self._keeper.run(), name="zigbee-configuration")
            tasks.create_task(self._surveys.run(), name="zigbee-surveys")
            tasks.create_task(self._link.run(self._link_up), name="zigbee-link")

    async def plan(self, order: TransferOrder, nodes: Sequence[NodeId]) -> TransferPlan:
        app = self._link.app
        skipped = {node: "not a Zigbee node" for node in nodes if radio_of(node) != self.kind}
        if self._link.up:
            known = {self._node_id(ieee) for ieee in app.devices}
            skipped |= {node: "not in this network" for node in nodes if node not in known}
        blocks = -(-order.image.size // MAX_BLOCK_BYTES) * (len(nodes) - len(skipped))
        airtime = self._pacer.airtime_s(blocks)
        return TransferPlan(blocks, airtime, airtime / max(order.air_share, 0.01), skipped)

    async def put(self, order: TransferOrder) -> None:
        self._service.put(order)

    async def direct(self, directives: Sequence[NodeDirective]) -> None:
        for directive in directives:
            if radio_of(directive.node) != self.kind:
                raise ContractError(f"{directive.node} is no Zigbee node")
        for directive in directives:
            self._service.direct(directive)

    async def manage(self, command: NodeCommand) -> CommandResult:
        if command.name in network_commands.NAMES:
            return await self._network.manage(command)
        if not self._link.up:
            return CommandResult(False, f"the Zigbee radio is not available: {self._link.error or 'starting'}")
        if command.name in NODE_REQUESTS:
            return await self._requests.run(self._link.app, command)
        result = await management.manage(self._link.app, command)
        if result.ok and command.name == "remove" and command.node is not None:
            self._surveys.forget(command.node)
            self._service.spawn(self._keeper.forget(command.node))
        return result

    def observations(self) -> AsyncIterator[NodeObservation]:
        return self._feed.__aiter__()

    def traffic(self) -> AsyncIterator[SiteTraffic]:
        return self._traffic.__aiter__()

    def status(self) -> Mapping[str, Json]:
        link, now = self._link, self._clock.now()
        sessions: dict[str, Json] = dict(self._service.stages())
        status: dict[str, Json] = {
            "link": "up" if link.up else "down",
            "error": link.error,
            "warning": "; ".join(self._memory.warnings),
            "device": self._settings.device,
            "starts": link.starts,
            "nodes_found": self._missing.found,  # in the network, and not in zigpy's table
            "nodes": max(len(link.app.devices) - 1, 0) if link.up else 0,
            **self._pacer.status(now),
            "sessions": sessions,
            "traffic": self._traffic.status(now),
            "configuration": {**self._keeper.status(), **self._surveys.status()},
        }
        if link.up:
            status["channel"] = int(link.app.state.network_info.channel)
            status["pan_id"] = f"{int(link.app.state.network_info.pan_id):04x}"
        return status

    # -- from the tap and from zigpy -----------------------------------------------------------------------------

    def ota_frame(self, device: Any, peer: Peer, frame: bytes) -> None:
        now = self._clock.now()
        node = self._node_id(device.ieee)
        self._peers[node] = peer
        self._observe_link(device, node, now)
        query = decode_query(frame) if frame[2] == CommandId.QUERY_NEXT_IMAGE_REQUEST else None
        if query is not None:
            if self._service.concerns(node, query.manufacturer, query.image_type):
                self._feed.put(queried(node, query, now))
                self._keeper.version_seen(node, query.version)
                self._interviews.queried(node, query.version)
            self._interviews.heard(node)
        self._keeper.heard(node)
        self._surveys.heard(node)
        self._service.receive(node, peer.endpoint, frame)
        if self._polls:
            self._let_sleep(node, device, now)

    def ota_default_response(self, device: Any, command: int, status: int) -> None:
        self._service.refused(self._node_id(device.ieee), command, status)

    def heard(self, device: Any) -> None:
        app = self._link.app
        if app is None or device.ieee == app.state.node_info.ieee:
            return
        now = self._clock.now()
        node = self._node_id(device.ieee)
        self._observe_link(device, node, now)
        self._interviews.heard(node)
        self._keeper.heard(node)
        self._surveys.heard(node)
        self._service.heard(node)
        if self._polls:
            self._let_sleep(node, device, now)

    def node_frame(self, device: Any, packet: Any) -> None:
        app, now = self._link.app, self._clock.now()
        if device is None:
            self._traffic.hold(packet, now)
        elif app is not None and device.ieee != app.state.node_info.ieee:
            node = self._node_id(device.ieee)
            self._traffic.put(node, packet, answers=answers_request(device, packet), at=now)
            self._said(node, packet, now)

    def named(self, ieee: Any, nwk: int) -> None:
        node, now = self._node_id(ieee), self._clock.now()
        for packet in self._traffic.named(node, nwk, now):
            self._said(node, packet, now)

    def green_power(self, packet: Any, handled: Handled | None) -> None:
        self._traffic.green_power(packet, handled, self._clock.now())
        self.foreground()

    def check_in_answer(self, device: Any, frame: bytes) -> bytes:
        node = self._node_id(device.ieee)
        return self._polls.answer(node, frame, self._service.awake_s(node), self._clock.now())

    def may_ask_address(self, nwk: int) -> bool:
        return self._missing.may_ask(nwk)

    def foreground(self) -> None:
        self._pacer.foreground(self._clock.now())

    def unreadable(self) -> None:
        self._traffic.unreadable += 1

    def announced(self, ieee: Any) -> None:
        node = self._node_id(ieee)
        self._feed.put(NodeObservation(node, self._clock.now(), joined=True))
        self._service.rebooted(node)
        self._interviews.announced(node)

    def device_initialized(self, device: Any) -> None:
        """zigpy's event: the interview of endpoints and clusters is complete."""
        app = self._link.app
        if app is None or device.ieee == app.state.node_info.ieee:
            return
        self._feed.put(nodes.describe(device, self._clock.now()))
        self._service.described(self._node_id(device.ieee))
        self._surveys.look(self._node_id(device.ieee))
        self._interviews.begin(self._node_id(device.ieee))

    def device_left(self, device: Any) -> None:
        """zigpy's event."""
        node = self._node_id(device.ieee)
        self._pacer.forget(node)
        self._feed.put(NodeObservation(node, self._clock.now(), joined=False))

    device_removed = device_left

    def _link_up(self) -> None:
        now = self._clock.now()
        app = self._link.app
        self._service.spawn(self._memory.settle(app))
        for device in app.devices.values():
            if device.ieee == app.state.node_info.ieee or not hasattr(device, "node_desc"):
                continue
            node = self._node_id(device.ieee)
            self._feed.put(replace(nodes.describe(device, now), alive=False))  # by the table: it may be dead for long
            self._surveys.look(node)
            if nodes.is_sleepy(device):
                self._interviews.when_heard(node)
            else:
                self._interviews.begin(node)
        self._service.link_up()
        self._keeper.link_up()
        self._surveys.link_up()
        self._service.spawn(self._missing.look())

    async def _transmit(
        self, node: NodeId, endpoint: int, frame: bytes, cluster: int = OTA_CLUSTER_ID, *, acknowledged: bool = True
    ) -> bool:
        """Whether the node's radio acknowledged the frame."""
        app, device = self._link.app, self._device(node)
        if device is None:
            return False
        peer = replace(self._peers.get(node, _DEFAULT_PEER), endpoint=endpoint)
        routing = self._settings.source_routing
        return await packets.unicast(
            app, device, peer, frame, cluster, acknowledged=acknowledged, source_routing=routing
        )

    async def _broadcast(self, frame: bytes) -> bool:
        return self._link.up and await packets.broadcast(self._link.app, frame)

    def _let_sleep(self, node: NodeId, device: Any, now: float) -> None:
        """Stop the fast polling that a download, which is over now, asked for."""
        if self._service.awake_s(node) is None and self._polls.is_over(node, now):
            endpoint = nodes.poll_control_endpoint(device)
            if endpoint is not None:
                stop = fast_poll_stop(device.get_sequence())
                self._service.spawn(self._transmit(node, endpoint, stop, POLL_CONTROL_CLUSTER_ID))

    def _said(self, node: NodeId, packet: Any, now: float) -> None:
        """What a frame of a node's own says of the node."""
        if packet.cluster_id == nodes.POWER_CLUSTER_ID:
            battery = nodes.said_battery(node, packet.data.serialize(), now)
            if battery is not None:
                self._feed.put(battery)

    def _node_id(self, ieee: Any) -> NodeId:
        octets = bytes(ieee)  # zigpy's own hash of it makes a text first
        node = self._node_ids.get(octets)
        if node is None:
            node = self._node_ids[octets] = nodes.node_id(ieee)
        return node

    def _device(self, node: NodeId) -> Any:
        return nodes.device_of(self._link.app, node)

    def _endpoint(self, node: NodeId) -> int:
        peer, device = self._peers.get(node), self._device(node)
        if peer is not None:
            return peer.endpoint
        return (nodes.ota_endpoint(device) if device is not None else None) or _DEFAULT_PEER.endpoint

    def _model(self, node: NodeId) -> str | None:
        device = self._device(node)
        return None if device is None else device.model

    def _sleeps(self, node: NodeId) -> bool:
        device = self._device(node)
        return device is not None and nodes.is_sleepy(device)

    def _observe_link(self, device: Any, node: NodeId, now: float) -> None:
        if now - self._link_said_at.get(node, 0.0) >= _LINK_QUALITY_EVERY_S:
            self._link_said_at[node] = now
            if device.relays is not None:
                self._pacer.route(node, 1 + len(device.relays))
            self._feed.put(nodes.link_quality(node, device, now))
