"""A zigpy radio library without a radio: a `ControllerApplication` on a simulated mesh in the same process.

Responsible for packets in and out and for what zigpy asks of a coordinator. Whoever owns the mesh lets its time pass
(`MeshDriver` on a clock, or `VirtualLoop.attach`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zigpy.application
import zigpy.config
import zigpy.device
import zigpy.endpoint
import zigpy.exceptions
import zigpy.state
import zigpy.types as t
import zigpy.zdo.types as zdo_t

from radios.simulated.zigbee.faults import Faults
from radios.simulated.zigbee.frames import CLUSTER_BASIC, CLUSTER_OTA, CLUSTER_POWER, PROFILE_ZDO, ApsFrame
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.ncp_neighbours import neighbour_table
from radios.simulated.zigbee.network_state import COORDINATOR_EUI64, NetworkState, ready_made
from radios.simulated.zigbee.node import ENDPOINT, VirtualNode
from radios.simulated.zigbee.zdo import DEVICE_TYPE, coordinator_answer

_ADDRESS_REQUESTS = (0x0000, 0x0001)
_REBROADCAST_TO_ALL = 0xFFFF


class SimulatedRadio(zigpy.application.ControllerApplication):  # type: ignore[misc]  # zigpy has no types for us
    """Subclass it with a mesh by `radio_library`; zigpy makes the instances, one per start."""

    mesh: Mesh
    now: Callable[[], float]
    network: NetworkState
    faults: Faults
    introduce_nodes: bool
    app: "SimulatedRadio | None" = None  # the newest instance, of each library

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.packets_sent = 0
        self.packets_failed = 0
        self._counter = 0
        self._connected = False
        self._running = False
        self._waiting: set[asyncio.Future[bool]] = set()
        type(self).app = self

    # ---- the mesh's side (mesh.Coordinator)

    @property
    def listening(self) -> bool:
        return self._running

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        if not self._running:
            return
        source = t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(node.nwk))
        if frame.broadcast:
            everyone = t.BroadcastAddress.ALL_ROUTERS_AND_COORDINATOR
            destination = t.AddrModeAddress(addr_mode=t.AddrMode.Broadcast, address=everyone)
        else:
            destination = t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0))
        self.packet_received(
            t.ZigbeePacket(
                src=source,
                src_ep=frame.source_endpoint,
                dst=destination,
                dst_ep=frame.destination_endpoint,
                tsn=frame.counter,
                profile_id=frame.profile,
                cluster_id=frame.cluster,
                data=t.SerializableBytes(frame.payload),
                lqi=node.spec.lqi,
                rssi=node.spec.rssi_dbm,
            )
        )

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        if not self._running:
            return
        if status is JoinStatus.LEFT:
            self.handle_leave(nwk=t.NWK(node.nwk), ieee=_ieee(node.spec.eui64))
        else:
            self.handle_join(nwk=t.NWK(node.nwk), ieee=_ieee(node.spec.eui64), parent_nwk=t.NWK(0))

    def route_recorded(self, node: VirtualNode, relays: tuple[int, ...]) -> None:
        if self._running:
            self.handle_relays(t.NWK(node.nwk), [t.NWK(relay) for relay in relays])

    def lose_connection(self, error: Exception | None = None) -> None:
        """The dongle is pulled out: zigpy is told, and nothing is heard or sent any more."""
        self._connected = self._running = False
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(zigpy.exceptions.DeliveryError("the dongle is gone"))
        self.connection_lost(error or OSError("the dongle is gone"))

    # ---- zigpy's side

    async def connect(self) -> None:
        self._connected = True
        await self.register_endpoints()

    async def disconnect(self) -> None:
        self._connected = self._running = False
        if self.mesh.coordinator is self:
            self.mesh.coordinator = None

    async def start_network(self) -> None:
        await self.load_network_info(load_devices=False)
        own = zigpy.device.Device(self, self.state.node_info.ieee, self.state.node_info.nwk)
        flags = zdo_t.NodeDescriptor.MACCapabilityFlags
        own.node_desc = zdo_t.NodeDescriptor(
            zdo_t.LogicalType.Coordinator,
            0x40,
            flags.MainsPowered | flags.RxOnWhenIdle | flags.FullFunctionDevice | flags.AllocateAddress,
            0x1049,
            82,
            255,
            0x2C41,
            255,
            0,
        )
        own.manufacturer, own.model = "gatewayd", "simulated coordinator"
        endpoint = own.add_endpoint(1)
        endpoint.status = zigpy.endpoint.Status.ZDO_INIT
        endpoint.profile_id = 0x0104
        self.devices[own.ieee] = own
        self._running = True
        self.mesh.coordinator = self
        self.mesh.route_recorded = self.route_recorded
        if self.introduce_nodes:
            for node in self.mesh.nodes.values():
                if node.joined:
                    self.add_interviewed(node)
        else:
            self.mesh.network_up(self.now())

    def add_interviewed(self, node: VirtualNode) -> Any:
        """Put a node into zigpy's table as if it had been interviewed; its zigpy device."""
        device = self.add_device(_ieee(node.spec.eui64), t.NWK(node.nwk))
        flags = zdo_t.NodeDescriptor.MACCapabilityFlags(node.zdo.capability)
        kind = zdo_t.LogicalType.EndDevice if node.spec.sleepy else zdo_t.LogicalType.Router
        device.node_desc = zdo_t.NodeDescriptor(kind, 0x40, flags, node.spec.manufacturer_code, 82, 255, 0, 255, 0)
        device.manufacturer, device.model = node.spec.manufacturer, node.spec.model
        endpoint = device.add_endpoint(ENDPOINT)
        endpoint.profile_id, endpoint.device_type = 0x0104, DEVICE_TYPE
        endpoint.add_input_cluster(CLUSTER_BASIC)
        endpoint.add_input_cluster(CLUSTER_POWER)
        for cluster in node.zdo.more_inputs:
            endpoint.add_input_cluster(cluster)
        endpoint.add_output_cluster(CLUSTER_OTA)
        endpoint.status = zigpy.endpoint.Status.ZDO_INIT
        device.status = zigpy.device.Status.ENDPOINTS_INIT
        return device

    async def send_packet(self, packet: Any) -> None:
        """DeliveryError when it did not arrive, as far as the sender can know."""
        if not self._connected:
            raise zigpy.exceptions.DeliveryError("the dongle is gone")
        async with self._limit_concurrency(priority=packet.priority):
            self.packets_sent += 1
            self._counter = (self._counter + 1) % 256
            broadcast = packet.dst.addr_mode in (t.AddrMode.Broadcast, t.AddrMode.Group)
            frame = ApsFrame(
                int(packet.profile_id),
                int(packet.cluster_id),
                int(packet.src_ep or 0),
                int(packet.dst_ep or 0),
                packet.data.serialize(),
                self._counter,
                broadcast,
            )
            if broadcast:
                address_request = frame.profile == PROFILE_ZDO and frame.cluster in _ADDRESS_REQUESTS
                to_all = int(packet.dst.address) == _REBROADCAST_TO_ALL or address_request
                self.mesh.broadcast(frame, self.now(), to_sleepy=to_all)
                return
            if not await self._unicast(self._destination(packet), frame, packet):
                self.packets_failed += 1
                raise zigpy.exceptions.DeliveryError(f"no delivery to {packet.dst}")

    async def load_network_info(self, *, load_devices: bool = False) -> None:
        del load_devices
        network = self.network
        self.state.node_info = zigpy.state.NodeInfo(
            nwk=t.NWK(0),
            ieee=_ieee(COORDINATOR_EUI64),
            logical_type=zdo_t.LogicalType.Coordinator,
            manufacturer="gatewayd",
            model="simulated coordinator",
        )
        info = self.state.network_info
        info.extended_pan_id = t.ExtendedPanId(network.extended_pan_id)
        info.pan_id = t.PanId(network.pan_id)
        info.channel = network.channel
        info.channel_mask = t.Channels(network.channels)
        info.nwk_update_id = t.uint8_t(network.update_id)
        info.network_key = zigpy.state.Key(key=t.KeyData(network.network_key), seq=network.key_sequence)
        info.tc_link_key = zigpy.state.Key(key=t.KeyData(network.link_key), partner_ieee=_ieee(COORDINATOR_EUI64))

    async def write_network_info(self, *, network_info: Any, node_info: Any) -> None:
        """Takes the network over; the coordinator's own address stays."""
        del node_info
        network = self.network
        network.extended_pan_id = network_info.extended_pan_id.serialize()
        network.pan_id = int(network_info.pan_id)
        network.channel = int(network_info.channel)
        network.network_key = network_info.network_key.key.serialize()
        network.link_key = network_info.tc_link_key.key.serialize()

    async def reset_network_info(self) -> None:
        type(self).network = ready_made("reset")

    async def force_remove(self, dev: Any) -> None:
        self.mesh.remove(int.from_bytes(dev.ieee.serialize(), "little"), self.now())

    async def add_endpoint(self, descriptor: Any) -> None:
        """Every endpoint is taken: nodes are answered by zigpy, whatever endpoint they ask."""

    async def permit_ncp(self, time_s: int = 60) -> None:
        self.mesh.permit_joining(1e9 if time_s == 0xFF else time_s, self.now())

    async def permit_with_link_key(self, node: Any, link_key: Any, time_s: int = 60) -> None:
        """Simulated nodes join without keys: only the time counts."""
        del node, link_key
        await self.permit_ncp(time_s)

    # ---- within

    def _destination(self, packet: Any) -> int:
        if packet.dst.addr_mode == t.AddrMode.IEEE:
            return int(self.get_device(ieee=packet.dst.address).nwk)
        return int(packet.dst.address)

    async def _unicast(self, destination: int, frame: ApsFrame, packet: Any) -> bool:
        if destination == 0:
            self._to_myself(frame)
            return True
        faults = self.faults
        if faults.busy:
            faults.busy -= 1
            self.packets_failed += 1
            raise zigpy.exceptions.DeliveryError("NETWORK_BUSY")
        if faults.undelivered:
            faults.undelivered -= 1
            return False
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.add(outcome)

        def done(arrived: bool) -> None:
            if not outcome.done():
                outcome.set_result(arrived)

        try:
            if faults.swallowed:
                faults.swallowed -= 1
            else:
                wanted = t.TransmitOptions.ACK in packet.tx_options
                self.mesh.unicast(destination, frame, self.now(), acknowledged=wanted, done=done)
            return await outcome
        finally:
            self._waiting.discard(outcome)

    def _to_myself(self, frame: ApsFrame) -> None:
        """zigpy asks its own coordinator."""
        if frame.profile != PROFILE_ZDO or frame.cluster & 0x8000 or not frame.payload:
            return
        own = t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0))
        neighbours = neighbour_table(self.mesh, self.network.extended_pan_id)
        body = coordinator_answer(frame.cluster, frame.payload, neighbours)
        answer = t.ZigbeePacket(
            src=own,
            src_ep=0,
            dst=own,
            dst_ep=0,
            tsn=frame.payload[0],
            profile_id=PROFILE_ZDO,
            cluster_id=frame.cluster | 0x8000,
            data=t.SerializableBytes(frame.payload[:1] + body),
            lqi=255,
            rssi=-10,
        )
        asyncio.get_running_loop().call_soon(self.packet_received, answer)


def radio_library(
    mesh: Mesh,
    now: Callable[[], float],
    *,
    network: NetworkState | None = None,
    interviewed: bool = False,
    bases: Sequence[type] = (),
) -> type[SimulatedRadio]:
    """The `ControllerApplication` class of a radio library on this mesh; `library.app` is its newest instance.

    `interviewed`: every joined node is in zigpy's table from the start. `bases` are mixins that come first.
    """
    return type(
        "ControllerApplication",
        (*bases, SimulatedRadio),
        {
            "mesh": mesh,
            "now": staticmethod(now),
            "network": network or ready_made(),
            "faults": Faults(),
            "introduce_nodes": interviewed,
        },
    )


def quiet_config(**more: Any) -> dict[str, Any]:
    """A zigpy configuration without background work, database or OTA of its own."""
    return {
        "device": {"path": "simulated"},
        "database_path": None,
        "ota": {"enabled": False},
        "backup_enabled": False,
        "topology_scan_enabled": False,
        "watchdog_enabled": False,
        **more,
    }


def _ieee(eui64: int) -> Any:
    return t.EUI64(eui64.to_bytes(8, "little"))
