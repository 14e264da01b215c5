"""A small network in virtual time, and a small site on sockets."""

import asyncio
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from radios.errors import FrameError
from radios.simulated.chirpstack.model import Event, GroupSettings, GroupType, Scheduling
from radios.simulated.chirpstack.network import NetworkServer, NetworkSettings
from radios.simulated.lorawan import crypto, firmware
from radios.simulated.lorawan.node_clock import gps_of_unix
from radios.simulated.lorawan.spec import NodeSpec

ORIGIN = 1_800_000_000.0
APPLICATION = "2f3c5f0e-5b0e-4a75-9d6f-0d5f1c3c0001"
TENANT = "2f3c5f0e-5b0e-4a75-9d6f-0d5f1c3c0002"
GATEWAY = "00800000a0000001"
FREQUENCY_HZ = 869_525_000
MC_ADDR, MC_KEY = 0x01020304, bytes(range(16))


def verify(image: bytes) -> int | None:
    try:
        return firmware.parse(image).version
    except FrameError:
        return None


def node_spec(number: int, **changes: object) -> NodeSpec:
    values: dict[str, object] = {
        "dev_eui": f"00000000000000{number:02x}",
        "name": f"node {number}",
        "gen_app_key": bytes([number] * 16),
        "image": firmware.build(version=1, hardware=0x20, size=2000, seed=number),
        "version": 1,
        "hardware": 0x20,
        "uplink_interval_s": 60.0,
        **changes,
    }
    return NodeSpec(**values)  # type: ignore[arg-type]


@dataclass
class Network:
    """A network server with everything it would publish, by hand."""

    server: NetworkServer
    events: list[Event] = field(default_factory=list)

    def run(self, seconds: float) -> list[Event]:
        """What was published while time passed."""
        self.server.advance(self.server.agenda.now + seconds)
        new = list(self.server.events)
        self.server.events.clear()
        self.events += new
        return new

    def of(self, kind: str, dev_eui: str | None = None) -> list[Event]:
        return [e for e in self.events if e.kind == kind and dev_eui in (None, e.dev_eui)]

    def ask(self, dev_eui: str, f_port: int, payload: bytes) -> None:
        self.server.enqueue(dev_eui, f_port, payload, confirmed=False, expires_at=None)

    def set_up_group(self, dev_eui: str, data_rate: int = 5, in_s: int = 400) -> None:
        """Group 0 and a class C window of 2^13 s, through the device queue."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        root = crypto.mc_root_key(gen_app_key=self.server.device(dev_eui).spec.gen_app_key)
        decryptor = Cipher(algorithms.AES(crypto.mc_ke_key(root)), modes.ECB()).decryptor()
        sealed = decryptor.update(MC_KEY) + decryptor.finalize()
        self.ask(dev_eui, 200, b"\x02" + struct.pack("<BI16sII", 0, MC_ADDR, sealed, 0, 0xFFFFFFFF))
        window = struct.pack("<BIB", 0, int(gps_of_unix(self.server.agenda.now)) + in_s, 13)
        self.ask(dev_eui, 200, b"\x04" + window + (FREQUENCY_HZ // 100).to_bytes(3, "little") + bytes([data_rate]))

    def group(self, name: str = "g", data_rate: int = 5, scheduling: Scheduling = Scheduling.DELAY) -> str:
        settings = GroupSettings(
            name,
            APPLICATION,
            0,
            MC_ADDR,
            crypto.mc_nwk_s_key(MC_KEY, MC_ADDR),
            crypto.mc_app_s_key(MC_KEY, MC_ADDR),
            0,
            GroupType.CLASS_C,
            data_rate,
            FREQUENCY_HZ,
            scheduling,
        )
        self.server.multicast.create(name, settings)
        return name


@pytest.fixture
def settings() -> NetworkSettings:
    return NetworkSettings(TENANT, APPLICATION, (GATEWAY,))


@pytest.fixture
def spec() -> Callable[..., NodeSpec]:
    return node_spec


@pytest.fixture
def make_network() -> Callable[..., Network]:
    def make(*specs: NodeSpec, **changes: object) -> Network:
        values: dict[str, object] = {
            "tenant_id": TENANT,
            "application_id": APPLICATION,
            "gateway_ids": (GATEWAY,),
            **changes,
        }
        return Network(NetworkServer(NetworkSettings(**values), specs, verify, ORIGIN))  # type: ignore[arg-type]

    return make


@dataclass
class Broker:
    """A mosquitto that can be stopped and started again on its port."""

    config: str
    port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            shutil.which("mosquitto", path="/usr/sbin:/usr/bin") or "mosquitto",
            "-c",
            self.config,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
        raise AssertionError("mosquitto does not listen")

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await self.process.wait()
            self.process = None


@pytest.fixture
async def broker(tmp_path) -> AsyncIterator[Broker]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = Broker(str(config), port)
    await broker.start()
    yield broker
    await broker.stop()
