"""A zigpy radio library in this process: a coordinator and nodes as zigpy knows them, and no radio behind."""

from collections.abc import Sequence
from typing import Any

import zigpy.application
import zigpy.device
import zigpy.endpoint
import zigpy.exceptions
import zigpy.state
import zigpy.types as t
import zigpy.zdo.types as zdo

COORDINATOR = t.EUI64.convert("00:12:4b:00:00:00:00:ff")
IEEE = t.EUI64.convert("00:12:4b:00:00:00:00:01")
NWK = 0x1234


class FakeRadio(zigpy.application.ControllerApplication):
    """A zigpy radio library without a radio: keeps what is sent, `fail` makes sends fail."""

    instances: list["FakeRadio"]
    refusals: list[str]  # a connection takes one, as long as there are some
    nodes: Sequence[tuple[t.EUI64, int]] = ((IEEE, NWK),)  # in the network from the start: address and short address

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.sent: list[t.ZigbeePacket] = []
        self.priorities: list[int] = []  # of `sent`, as zigpy's queue would see them
        self.fail = False
        type(self).instances.append(self)

    async def connect(self) -> None:
        if self.refusals:
            raise OSError(self.refusals.pop())
        await self.register_endpoints()

    async def disconnect(self) -> None: ...

    async def start_network(self) -> None:
        await self.load_network_info()
        device = zigpy.device.Device(self, COORDINATOR, 0x0000)
        device.node_desc = zdo.NodeDescriptor(0, 0x40, 0x8E, 0x1049, 82, 82, 0, 82, 0)
        endpoint = device.add_endpoint(1)
        endpoint.status = zigpy.endpoint.Status.ZDO_INIT
        endpoint.profile_id = 0x0104
        device.model, device.manufacturer = "fake", "fake"
        self.devices[COORDINATOR] = device
        for ieee, nwk in self.nodes:
            add_node(self, ieee, nwk)

    async def load_network_info(self, *, load_devices: bool = False) -> None:
        self.state.node_info = zigpy.state.NodeInfo(nwk=t.NWK(0), ieee=COORDINATOR, logical_type=zdo.LogicalType(0))
        self.state.network_info.channel = 15
        self.state.network_info.pan_id = t.PanId(0x1A62)

    async def send_packet(self, packet: t.ZigbeePacket) -> None:
        if self.fail:
            raise zigpy.exceptions.DeliveryError("not acknowledged")
        self.sent.append(packet)
        self.priorities.append(self._packet_priority_var.get() if packet.priority is None else packet.priority)

    async def force_remove(self, dev: Any) -> None: ...
    async def add_endpoint(self, descriptor: Any) -> None: ...
    async def permit_ncp(self, time_s: int = 60) -> None: ...
    async def permit_with_link_key(self, node: Any, link_key: Any, time_s: int = 60) -> None: ...
    async def write_network_info(self, *, network_info: Any, node_info: Any) -> None: ...
    async def reset_network_info(self) -> None: ...


def add_node(app: Any, ieee: Any, nwk: int, *, sleepy: bool = False) -> Any:
    device = app.add_device(ieee, t.NWK(nwk))
    flags = zdo.NodeDescriptor.MACCapabilityFlags.AllocateAddress
    if not sleepy:
        flags |= zdo.NodeDescriptor.MACCapabilityFlags.RxOnWhenIdle | zdo.NodeDescriptor.MACCapabilityFlags.MainsPowered
    device.node_desc = zdo.NodeDescriptor(2 if sleepy else 1, 0x40, flags, 0x1049, 82, 82, 0, 82, 0)
    device.manufacturer, device.model = "Synthetic", "SIM-1"
    endpoint = device.add_endpoint(1)
    endpoint.profile_id, endpoint.device_type = 0x0104, 0x0100
    endpoint.status = zigpy.endpoint.Status.ZDO_INIT
    endpoint.add_input_cluster(0x0000)
    endpoint.add_input_cluster(0x0001)
    endpoint.add_output_cluster(0x0019)
    return device
