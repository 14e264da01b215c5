"""Zigbee over the simulated shared channel, in virtual time: how near to the channel's lower bound a whole network gets
its image, and what the site's own traffic suffers from it. Beside zigpy's own OTA manager, and one node after the other.

The figures do not depend on the CPU: virtual time stands while anything computes.
"""

import asyncio
import logging
import math
import multiprocessing
import statistics
import struct
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import Any, Final

import zigpy.exceptions
import zigpy.types

from radios.radio import ImageRef, NodeDirective, Record, TransferEvent, TransferOrder, Want, parse_node_id
from radios.simulated.zigbee.channel import Channel, lower_bound_s
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.foreground import COMMAND_BYTES, Foreground, Message
from radios.simulated.zigbee.frames import CLUSTER_OTA, CLUSTER_POWER, PROFILE_HOME_AUTOMATION, ApsFrame
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaTiming
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop, run_virtual
from radios.simulated.zigbee.zigpy_radio import SimulatedRadio, radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from tests.benchmarks.result import Bench, Result, Target, quick
from tests.benchmarks.zigbee_site import BLOCK_BYTES, IMAGE_TYPE, MANUFACTURER, VERSION, with_metadata

NODES = 50
MAC_LOSS = 0.02
IMAGE_BYTES = 5_000 if quick() else 40_000  # 2 or 17 virtual minutes at the bound; bigger ones only take more CPU
SEEDS = (1, 2, 3) if quick() else (1, 2, 3, 4, 5)  # of our runs: the median is the figure; peers have the first
PAGE_BYTES = 1500
FOREGROUND_PER_S = 2.0
IDLE_S = 900.0  # of foreground alone, which the latencies during the update are compared with
SPACING_S = 0.25
MOST_TIMES_BOUND = 1.15
MOST_TIMES_IDLE = 2.0
LEAST_OF_BOUND = 45.0  # percent

_EUI64: Final = 0x00124B00_00001000
_SETTLE_S: Final = 20.0  # the interviews of all nodes are over
_DRAIN_S: Final = 5.0  # all APS retries are over
_LOOK_EVERY_S: Final = 0.1
_LONGEST_TIMES_BOUND: Final = 40.0
_NEVER_S: Final = 1e6


class Server(StrEnum):
    """Who serves the image."""

    GATEWAYD = "gatewayd"
    ZIGPY = "zigpy, all at once"
    SPACED = "one at a time, 250 ms"


@dataclass(frozen=True, slots=True)
class Run:
    """One update of the whole network. Latencies in seconds, infinite for messages that never arrived."""

    took_s: float
    bound_s: float
    idle_p95_s: float
    update_p95_s: float
    failed: int
    messages: int
    block_timeouts: int  # of all clients: requests that nobody answered in time

    @property
    def times_bound(self) -> float:
        return self.took_s / self.bound_s

    @property
    def times_idle(self) -> float:
        return self.update_p95_s / self.idle_p95_s


def saturated() -> list[Result]:
    """(b): the channel has nothing else to carry."""
    pages = partial(measure, Server.GATEWAYD, foreground_per_s=0.0, habits=OtaHabits(page_size=PAGE_BYTES))
    runs, others = _of_seeds(0.0)
    acknowledging = PacingLimits(acknowledge_every=1)
    paged, acknowledged = in_parallel(
        [pages, partial(measure, Server.GATEWAYD, foreground_per_s=0.0, pacing=acknowledging)]
    )
    ratios = sorted(run.times_bound for run in runs)
    peers = {server.value: run.times_bound for server, run in zip(list(Server)[1:], others, strict=True)}
    what = f"{NODES} nodes at 1 to 3 hops, saturated channel"
    return [
        Result(f"{what}: time / lower bound", statistics.median(ratios), "x", Target("<=", MOST_TIMES_BOUND), peers),
        Result(f"{what}: worst of {len(SEEDS)} seeds", ratios[-1], "x"),
        Result(f"{what}: every block acknowledged, as the bound counts", acknowledged.times_bound, "x"),
        Result(f"{what}: nodes that ask by pages, time / lower bound of block mode", paged.times_bound, "x"),
        Result(
            f"{what}: requests that timed out",
            statistics.median(run.block_timeouts for run in runs),
            "",
            peers={server.value: run.block_timeouts for server, run in zip(list(Server)[1:], others, strict=True)},
        ),
    ]


def beside_foreground() -> list[Result]:
    """(c): the site goes on working."""
    runs, others = _of_seeds(FOREGROUND_PER_S)
    queued, zigpys = _queued()
    ratios, shares = sorted(run.times_idle for run in runs), sorted(100 / run.times_bound for run in runs)
    named = list(zip([server.value for server in Server][1:], others, strict=True))
    what = f"{NODES} nodes, {FOREGROUND_PER_S:g} foreground unicasts a second"
    return [
        Result(
            f"{what}: p95 latency during update / idle",
            statistics.median(ratios),
            "x",
            Target("<=", MOST_TIMES_IDLE),
            {name: run.times_idle for name, run in named},
        ),
        Result(
            f"{what}: update's share of the bound",
            statistics.median(shares),
            "%",
            Target(">=", LEAST_OF_BOUND),
            {name: 100 / run.times_bound for name, run in named},
        ),
        Result(f"{what}: p95 latency during update / idle, worst of {len(SEEDS)} seeds", ratios[-1], "x"),
        Result(f"{what}: update's share of the bound, worst of {len(SEEDS)} seeds", shares[0], "%"),
        Result(
            f"{what}: p95 latency during update",
            statistics.median(run.update_p95_s for run in runs) * 1e3,
            "ms",
            peers={"idle": statistics.median(run.idle_p95_s for run in runs) * 1e3}
            | {name: run.update_p95_s * 1e3 for name, run in named},
        ),
        Result(
            f"{what}, commands through zigpy's queue: p95 latency during update / idle",
            statistics.median(run.times_idle for run in queued),
            "x",
            peers={Server.ZIGPY.value: zigpys.times_idle},
        ),
        Result(
            f"{what}, commands through zigpy's queue: p95 latency during update",
            statistics.median(run.update_p95_s for run in queued) * 1e3,
            "ms",
            peers={
                "idle": statistics.median(run.idle_p95_s for run in queued) * 1e3,
                Server.ZIGPY.value: zigpys.update_p95_s * 1e3,
            },
        ),
        Result(
            f"{what}, commands through zigpy's queue: update's share of the bound",
            statistics.median(100 / run.times_bound for run in queued),
            "%",
            peers={Server.ZIGPY.value: 100 / zigpys.times_bound},
        ),
        Result(
            f"{what}: failed during update",
            100 * sum(run.failed for run in runs) / sum(run.messages for run in runs),
            "%",
            peers={name: 100 * run.failed / run.messages for name, run in named},
        ),
    ]


def measure(
    server: Server,
    *,
    foreground_per_s: float,
    pacing: PacingLimits | None = None,
    nodes: int = NODES,
    image_bytes: int = IMAGE_BYTES,
    seed: int = 1,
    habits: OtaHabits | None = None,
    queued: bool = False,
) -> Run:
    """One run in virtual time; `pacing` is gatewayd's. `queued`: foreground that goes down is given to zigpy, and has to wait
    in its queue with all else."""
    # zigpy warns of each frame that was not delivered, and its retries are part of the measurement.
    logging.disable(logging.ERROR)
    image = build_ota_file(manufacturer=MANUFACTURER, image_type=IMAGE_TYPE, version=VERSION, size=image_bytes)
    # What comes after the last block is not measured: gatewayd's nodes are told to hold, those of others verify for ever.
    verify_s = 0.0 if server is Server.GATEWAYD else _NEVER_S
    timing = OtaTiming(boot_query_delay_s=(_NEVER_S, _NEVER_S), verify_s=verify_s)
    kind = NodeSpec(_EUI64, mac_loss=MAC_LOSS, timing=timing, habits=habits or OtaHabits(), seed=seed)
    specs = [replace(kind, eui64=_EUI64 + at, hops=1 + at % 3) for at in range(nodes)]

    async def main() -> Run:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise TypeError("needs virtual time")
        mesh = Mesh(specs, channel=Channel(seed), seed=seed)
        loop.attach(mesh)
        host = _Host(mesh, loop)
        send_down = host.send_down if queued else None
        foreground = Foreground(mesh, foreground_per_s, seed=seed, send_down=send_down) if foreground_per_s else None
        host.foreground = foreground
        scene = _Scene(mesh, loop, image, foreground)
        match server:
            case Server.GATEWAYD:
                return await _by_gatewayd(scene, pacing or PacingLimits())
            case Server.ZIGPY:
                return await _by_zigpy(scene)
            case Server.SPACED:
                return await scene.run(_Spaced(mesh, image).serve)

    return run_virtual(main())


def _of_seeds(foreground_per_s: float) -> tuple[list[Run], list[Run]]:
    """Our runs with every seed, and one of each peer."""
    ours = [partial(measure, Server.GATEWAYD, foreground_per_s=foreground_per_s, seed=seed) for seed in SEEDS]
    peers = [partial(measure, server, foreground_per_s=foreground_per_s, seed=SEEDS[0]) for server in list(Server)[1:]]
    runs = in_parallel([*peers, *ours])
    return runs[len(peers) :], runs[: len(peers)]


def _queued() -> tuple[list[Run], Run]:
    """As `_of_seeds`, with commands through zigpy's queue; of the peers only zigpy has one."""
    ours = [
        partial(measure, Server.GATEWAYD, foreground_per_s=FOREGROUND_PER_S, seed=seed, queued=True) for seed in SEEDS
    ]
    zigpys = partial(measure, Server.ZIGPY, foreground_per_s=FOREGROUND_PER_S, seed=SEEDS[0], queued=True)
    first, *runs = in_parallel([zigpys, *ours])
    return runs, first


def in_parallel(runs: Sequence[Callable[[], Run]]) -> list[Run]:
    """Each in a process of its own, on all cores."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(run) for run in runs]]


class _Scene:
    """The mesh, its foreground and the watch."""

    def __init__(self, mesh: Mesh, loop: VirtualLoop, image: bytes, foreground: Foreground | None) -> None:
        self.mesh = mesh
        self.loop = loop
        self.image = image
        self._foreground = foreground

    def holds(self, node: VirtualNode) -> bool:
        return node.ota.file_offset == len(self.image)

    async def run(self, serve: Callable[[], Coroutine[Any, Any, None]]) -> Run:
        """`serve` starts the update; it is cancelled when all nodes hold the image."""
        loop, mesh, foreground = self.loop, self.mesh, self._foreground
        mesh.power_on(loop.time())
        await asyncio.sleep(_SETTLE_S)
        idle_from = loop.time()
        if foreground is not None:
            foreground.start(idle_from)
            await asyncio.sleep(IDLE_S)
        begun = loop.time()
        blocks = math.ceil(len(self.image) / BLOCK_BYTES)
        bound = lower_bound_s([(blocks, node.spec.hops) for node in mesh.nodes.values()], data_bytes=BLOCK_BYTES)
        serving = asyncio.create_task(serve())
        left = list(mesh.nodes.values())
        while left := [node for node in left if not self.holds(node)]:
            if loop.time() - begun > bound * _LONGEST_TIMES_BOUND:
                raise TimeoutError(f"{len(left)} nodes still have no image after {loop.time() - begun:.0f} s")
            await asyncio.sleep(_LOOK_EVERY_S)
        ended = loop.time()
        if any(bytes(node.ota.staged) != self.image for node in mesh.nodes.values()):
            raise AssertionError("a node holds other bytes")
        serving.cancel()
        if foreground is not None:
            foreground.stop()
            await asyncio.sleep(_DRAIN_S)
        latencies = foreground.latencies(begun, ended) if foreground is not None else []
        return Run(
            took_s=ended - begun,
            bound_s=bound,
            idle_p95_s=foreground.percentile(95, idle_from, begun) if foreground is not None else math.nan,
            update_p95_s=foreground.percentile(95, begun, ended) if foreground is not None else math.nan,
            failed=sum(map(math.isinf, latencies)),
            messages=len(latencies),
            block_timeouts=sum(node.counters.timeouts for node in mesh.nodes.values()),
        )


class _Host:
    """A program that sends commands by zigpy. A message has arrived when its acknowledgement is back: zigpy tells no more."""

    def __init__(self, mesh: Mesh, loop: VirtualLoop) -> None:
        self.foreground: Foreground | None = None
        self._mesh = mesh
        self._loop = loop
        self._sequence = 0
        self._sending: set[asyncio.Task[None]] = set()

    def send_down(self, node: VirtualNode, message: Message) -> None:
        task = self._loop.create_task(self._send(node, message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, node: VirtualNode, message: Message) -> None:
        app, foreground = self._mesh.coordinator, self.foreground
        if not isinstance(app, SimulatedRadio) or foreground is None:
            raise TypeError("needs zigpy")
        self._sequence = (self._sequence + 1) % 256
        to = zigpy.types.AddrModeAddress(addr_mode=zigpy.types.AddrMode.NWK, address=zigpy.types.NWK(node.nwk))
        packet = zigpy.types.ZigbeePacket(
            src=zigpy.types.AddrModeAddress(addr_mode=zigpy.types.AddrMode.NWK, address=zigpy.types.NWK(0)),
            src_ep=1,
            dst=to,
            dst_ep=1,
            tsn=self._sequence,
            profile_id=PROFILE_HOME_AUTOMATION,
            cluster_id=CLUSTER_POWER,
            data=zigpy.types.SerializableBytes(bytes((0x18, self._sequence, 0x0B)) + bytes(COMMAND_BYTES - 3)),
            tx_options=zigpy.types.TransmitOptions.ACK,
        )
        try:
            await app.send_packet(packet)
        except zigpy.exceptions.DeliveryError:
            foreground.failed(message)
        else:
            foreground.arrived(message, self._loop.time())


# -- gatewayd ----------------------------------------------------------------------------------------------------------


class _Journal:
    """Forgets at once: what the store costs is measured elsewhere."""

    async def load(self) -> Sequence[Record]:
        return ()

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        pass

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        pass


class _Images:
    def __init__(self, image: bytes) -> None:
        self._image = image

    def read(self, digest: str, offset: int, length: int) -> bytes:
        return self._image[offset : offset + length]

    def size(self, digest: str) -> int:
        return len(self._image)


async def _by_gatewayd(scene: _Scene, pacing: PacingLimits) -> Run:
    library = radio_library(scene.mesh, scene.loop.time, interviewed=True)
    radio = ZigbeeRadio(ZigbeeSettings("bench", pacing=pacing), LoopClock(), library)
    image = ImageRef(sha256(scene.image).hexdigest(), len(scene.image), VERSION)

    async def serve() -> None:
        expires = datetime.fromtimestamp(scene.loop.time(), UTC) + timedelta(days=30)
        await radio.put(TransferOrder("bench", image, 0, 1.0, expires))
        await radio.direct([NodeDirective("bench", parse_node_id(node), 1, Want.DELIVER) for node in scene.mesh.nodes])

    running = asyncio.create_task(radio.run(_Journal(), _Images(scene.image)))
    try:
        return await scene.run(serve)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# -- zigpy -------------------------------------------------------------------------------------------------------------


async def _by_zigpy(scene: _Scene) -> Run:
    """`device.update_firmware` for all nodes at once, and again for each that it gives up."""
    library = radio_library(scene.mesh, scene.loop.time, interviewed=True)
    app: SimulatedRadio = await library.new(zigpy_config(ZigbeeSettings("bench")), auto_form=False)
    image = with_metadata(scene.image)

    async def update(node: VirtualNode) -> None:
        device = app.devices[zigpy.types.EUI64(node.spec.eui64.to_bytes(8, "little"))]
        while not scene.holds(node):
            await device.update_firmware(image)
            await asyncio.sleep(1.0)

    async def serve() -> None:
        await asyncio.gather(*map(update, scene.mesh.nodes.values()))

    try:
        return await scene.run(serve)
    finally:
        await app.shutdown()


# -- one at a time -----------------------------------------------------------------------------------------------------


class _Spaced:
    """A coordinator without a host that serves one node after the other, a block every `SPACING_S` at most."""

    listening = True

    def __init__(self, mesh: Mesh, image: bytes) -> None:
        self._mesh = mesh
        self._image = image
        self._file = struct.pack("<HHI", MANUFACTURER, IMAGE_TYPE, VERSION)
        self._next_block = -math.inf
        self._counter = 0
        mesh.coordinator = self

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        for node in self._mesh.nodes.values():
            asked = -math.inf
            while node.ota.file_offset != len(self._image):
                if node.ota.target is None and loop.time() - asked > 5.0:
                    asked = loop.time()
                    self._counter += 1
                    self._send(node, bytes((0x09, self._counter & 0xFF, 0x00, 0x00, 100)), asked)
                await asyncio.sleep(_LOOK_EVERY_S)

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        if frame.cluster != CLUSTER_OTA or frame.profile != PROFILE_HOME_AUTOMATION or not frame.payload[0] & 1:
            return
        now = asyncio.get_running_loop().time()
        sequence, command = frame.payload[1:3]
        head = bytes((0x19, sequence))
        if command == 0x01:
            self._send(node, head + b"\x02\x00" + self._file + struct.pack("<I", len(self._image)), now)
        elif command == 0x03:
            (offset,) = struct.unpack_from("<I", frame.payload, 12)
            data = self._image[offset : offset + BLOCK_BYTES]
            answer = head + b"\x05\x00" + self._file + struct.pack("<IB", offset, len(data)) + data
            self._next_block = max(now, self._next_block + SPACING_S)
            self._mesh.call_at(self._next_block, partial(self._send, node, answer))

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        pass

    def _send(self, node: VirtualNode, payload: bytes, now: float) -> None:
        self._counter = (self._counter + 1) % 256
        frame = ApsFrame(PROFILE_HOME_AUTOMATION, CLUSTER_OTA, 1, 1, payload, self._counter)
        self._mesh.unicast(node.nwk, frame, now, acknowledged=True, done=_ignore)


def _ignore(_arrived: bool) -> None:
    pass


BENCHES: tuple[Bench, ...] = (saturated, beside_foreground)
