"""Requests to single nodes, as the air sees them: whether one fits the node's data rate, and what it takes. PURE."""

from collections.abc import Mapping

from radios.lorawan.inventory import Node
from radios.lorawan.network_server import DeviceClass
from radios.lorawan.reach import unicast_rate
from radios.lorawan.unicast_air import UnicastAir


class SingleAir:
    """`nodes` by DevEUI are kept by the caller."""

    def __init__(self, nodes: Mapping[str, Node], air: UnicastAir) -> None:
        self._nodes = nodes
        self._air = air

    def oversize(self, dev_eui: str, size: int) -> str:
        """Why a payload cannot go to the node as it is heard now: a network server would drop it silently. Empty: it can."""
        rate = self._rate(dev_eui)
        if rate is None or size <= (most := self._air.max_payload(rate)):
            return ""
        return f"{size} bytes do not fit data rate {rate}, which takes {most}"

    def book(self, dev_eui: str, size: int, now: float) -> None:
        """It was handed to the network server; what nobody can say is not booked."""
        rate = self._rate(dev_eui)
        if rate is not None:
            self._air.book(self._air.airtime_s(rate, size), now, always_on=self.always_on(dev_eui))

    def always_on(self, dev_eui: str) -> bool:
        """Whether its queue is served at once."""
        node = self._nodes.get(dev_eui)
        return node is not None and node.device.device_class is DeviceClass.C

    def _rate(self, dev_eui: str) -> int | None:
        node = self._nodes.get(dev_eui)
        return None if node is None else unicast_rate(node, self._air)
