"""The LoRaWAN world: a simulated network server with two nodes in class C.

The one's battery is low for a while in mid-transfer, behind the operator's hold; the other one rolls back.
The radio's time runs faster than the daemon's (as with `[lab] time_scale`): the rounds of its coordinator cost real time.
"""

import hashlib
import json
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from gatewayd.demo import scenario
from radios.errors import FrameError
from radios.lorawan.keys import Key
from radios.lorawan.network_server import Device, MulticastGroup
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.packages.commands import split_commands
from radios.simulated.lorawan.packages.fragmentation import FragSession
from radios.simulated.lorawan.spec import NodeSpec
from tests.crash.cloud import LORAWAN, METER, METER_ROLLED_BACK, Published
from tests.crash.world import World
from tests.radios.lorawan.memory_site import Network

SCALE = 20.0
METER_DATA_RATE = 3
_LOSS = 0.1  # of every frame to a node: something has to be repaired
_LATER_S = 1e-6  # so that what is due is not still ahead when the time is told the other way round
LOW_AT_BYTES = 2500  # held by the node whose battery falls then
LOW_FOR_S = 400.0  # of the radio's time
_GOOD, _LOW = 80.0, 20.0  # percent
_FIRMWARE_PORT = 203  # TS006
_COMMANDS = {0x00: 0, 0x01: 0, 0x02: 4, 0x03: 3, 0x04: 0, 0x05: 4}  # and how many bytes follow
_REBOOTS = (0x02, 0x03)


def specs() -> list[NodeSpec]:
    return [
        NodeSpec(
            dev_eui=name.removeprefix("lorawan:"),
            gen_app_key=root_key(name),
            image=scenario.lorawan_image(scenario.LORAWAN_OLD, size=500),
            version=scenario.LORAWAN_OLD,
            hardware=scenario.LORAWAN_HW,
            device_class="C",
            downlink_loss=_LOSS,
            self_test_fails=name == METER_ROLLED_BACK,
            seed=number,
        )
        for number, name in enumerate(LORAWAN.nodes, 1)
    ]


def root_key(node: str) -> bytes:
    return bytes([LORAWAN.nodes.index(node) + 1] * 16)


def verify(image: bytes) -> int | None:
    try:
        return firmware.parse(image).version
    except FrameError:
        return None


class _Network(Network):  # type: ignore[misc]  # tests of radios are not typed
    """As the tests of the driver have it; a group of a name is made once, as the contract says."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.groups: dict[str, str] = {}
        self.made: list[str] = []
        self.battery_percent = _GOOD

    async def devices(self) -> list[Device]:
        return [
            replace(device, external_power=f"lorawan:{device.dev_eui}" != METER, battery_percent=self.battery_percent)
            for device in await super().devices()
        ]

    async def create_group(self, group: MulticastGroup) -> str:
        if (known := self.groups.get(group.name)) in self.simulated.multicast.groups:
            return str(known)
        self.made.append(group.mc_addr)
        self.groups[group.name] = await super().create_group(group)
        return self.groups[group.name]


class RadioTime:
    """Of a world: the site's clock, which is `SCALE` times faster than its own since the start."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return to_radio(self._world.published, self._world.now)


def to_radio(published: Published, now: float) -> float:
    return published.start + (now - published.start) * SCALE


def from_radio(published: Published, now: float) -> float:
    return published.start + (now - published.start) / SCALE


class Meters(World):
    def __init__(self, published: Published, store: Path) -> None:
        super().__init__(published, store)
        self.network = _Network(specs(), RadioTime(self), signed=verify)
        self._scaled = _Scaled(self)
        self._sessions: dict[str, FragSession | None] = {}
        self._begun_again: list[str] = []
        self._low_until: float | None = None

    @property
    def site(self) -> "_Scaled":
        return self._scaled

    def known_nodes(self) -> Any:
        return None

    def bytes_held(self, node: str) -> int:
        virtual = self._node(node)
        if virtual.bootloader.download is not None:
            return len(self.story.new.image)
        decoder = virtual.fragmentation.session and virtual.fragmentation.session.decoder
        return decoder.received * decoder.frag_size if decoder else 0

    def listen(self, on: bool) -> None:
        """What is heard while nobody listens is lost."""

    # -- requests

    def call(self, now: float, name: str, arguments: tuple[Any, ...]) -> Any:
        """A method of the network server, at that moment."""
        self.now = now
        if name == "enqueue":
            self._judge(*arguments)
        return _immediate(getattr(self.network, name)(*arguments))

    def make_group(self, now: float, bare: dict[str, Any], net: bytes, app: bytes) -> str:
        group = MulticastGroup(**bare, mc_net_s_key=Key(net), mc_app_s_key=Key(app))
        return str(self.call(now, "create_group", (group,)))

    def _judge(self, dev_eui: str, port: int, data: bytes, *_: object) -> None:
        if port != _FIRMWARE_PORT:
            return
        for command, body in split_commands(data, _COMMANDS).commands:
            if command in _REBOOTS and set(body) != {0xFF}:  # all ones: no reboot
                self.judge_install(f"lorawan:{dev_eui}")

    def moved_on(self) -> None:
        """What has happened on the air is kept: who begins again, and what is heard of it."""
        for name in self.story.nodes:
            before, after = self._sessions.get(name), self._node(name).fragmentation.session
            if after is not before and before is not None and before.block is None and before.decoder.received:
                self._begun_again.append(name)
            self._sessions[name] = after
        now = self.network.clock.now()
        if self.resumed and self._low_until is None and self.bytes_held(METER) >= LOW_AT_BYTES:
            self._low_until = now + LOW_FOR_S
        self.network.battery_percent = _LOW if self._low_until is not None and now < self._low_until else _GOOD
        simulated = self.network.simulated
        while simulated.events:
            if (event := simulated.events.popleft()).kind == "up":
                self.news.append(("up", "", json.dumps(event.body).encode()))
        simulated.bus.clear()

    def gateway_gone(self) -> None:
        super().gateway_gone()
        self.network.simulated.events.clear()
        self.network.simulated.bus.clear()

    # -- what has become of it

    def faults(self) -> list[str]:
        reused = self.network.simulated.multicast.f_cnts_reused
        again = len(self.network.made) - len(set(self.network.made))
        found = [f"{name} has begun again" for name in self._begun_again]
        found += [f"{reused} frame counters used twice"] if reused else []
        return super().faults() + found + ([f"{again} group addresses used again"] if again else [])

    def nodes(self) -> dict[str, dict[str, object]]:
        return {name: _describe(self._node(name)) for name in self.story.nodes}

    def _node(self, name: str) -> VirtualNode:
        return self.network.simulated.nodes[name.removeprefix("lorawan:")]


class _Scaled:
    """The network server as an agenda of the daemon's time."""

    def __init__(self, world: Meters) -> None:
        self._world = world

    def next_deadline(self) -> float | None:
        due = self._world.network.simulated.next_deadline()
        return None if due is None else from_radio(self._world.published, due) + _LATER_S

    def handle_timeout(self, now: float) -> None:
        self._world.network.simulated.advance(to_radio(self._world.published, now))
        self._world.moved_on()


def _immediate(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of one that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError(f"{coroutine} waits")


def _describe(node: VirtualNode) -> dict[str, object]:
    return {
        "image": hashlib.sha256(node.running_image).hexdigest(),
        "version": node.version,
        "held": node.bootloader.download is not None,
    }
