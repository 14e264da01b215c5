"""A server's half of the protocols, written from the tables of TS003..TS006 for the tests of the virtual nodes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from radios.errors import FrameError
from radios.simulated.lorawan import crypto, firmware
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.node_clock import gps_of_unix
from radios.simulated.lorawan.phy import Activation, Downlink, JoinRequest, Uplink, build_downlink
from radios.simulated.lorawan.region import time_on_air_s
from radios.simulated.lorawan.spec import NodeSpec

ORIGIN = 1_800_000_000.0
HARDWARE = 0x20
MC_ADDR = 0x01020304
MC_KEY = bytes(range(1, 17))
FREQUENCY_HZ = 869_525_000
DATA_RATE = 5


def prbs23(x: int) -> int:
    return (x >> 1) + (((x ^ (x >> 5)) & 1) << 22)


def encode_coded(fragments: list[bytes], number: int, version: int) -> bytes:
    """Coded fragment `number` (from 1) over equally long plain ones, by the rule of the protocol file."""
    total = len(fragments)
    modulus = total + 1 if bin(total).count("1") == 1 else total
    x = 1 + 1001 * number
    chosen = [False] * total
    hits = 0
    while hits < total // 2:
        r = 1 << 16
        while r >= total:
            x = prbs23(x)
            r = x % modulus
        if version == 1 or not chosen[r]:
            hits += 1
        chosen[r] = True
    out = bytearray(len(fragments[0]))
    for row, fragment in zip(chosen, fragments, strict=True):
        if row:
            out = bytearray(a ^ b for a, b in zip(out, fragment, strict=True))
    return bytes(out)


def cut(image: bytes, size: int) -> list[bytes]:
    padded = image + bytes(-len(image) % size)
    return [padded[at : at + size] for at in range(0, len(padded), size)]


def data_fragment(counter: int, data: bytes, index: int = 0) -> bytes:
    return b"\x08" + (counter | index << 14).to_bytes(2, "little") + data


def verify(image: bytes) -> int | None:
    """Stands for the manufacturer's signature: the header's version when the body is what was built for it."""
    try:
        header = firmware.parse(image)
    except FrameError:
        return None
    good = firmware.build(version=header.version, hardware=header.hardware, size=len(image), seed=0)
    return header.version if good == image else None


@dataclass
class Bench:
    """One node in virtual time, with a session of its own towards the test; no air, no loss."""

    spec: NodeSpec
    now: float = ORIGIN
    uplinks: list[Uplink] = field(default_factory=list)
    joins: list[JoinRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Activation(0x01000001, bytes(16), bytes([1] * 16))
        self.node = VirtualNode(self.spec, verify, self.now, self.session)
        self.f_cnt = 0
        self.mc_f_cnt = 0
        self.mc_session = Activation(
            MC_ADDR, crypto.mc_nwk_s_key(MC_KEY, MC_ADDR), crypto.mc_app_s_key(MC_KEY, MC_ADDR)
        )

    def run(self, seconds: float) -> list[Uplink]:
        """Let time pass; returns what the node sent meanwhile. Joins are accepted when asked for."""
        until, first = self.now + seconds, len(self.uplinks)
        while (when := self.node.next_deadline()) <= until:
            self.now = max(self.now + 0.001, when)
            self.node.handle_timeout(self.now)
            for sent in self.node.to_send(self.now):
                if isinstance(sent, Uplink):
                    self.uplinks.append(sent)
                else:
                    self.joins.append(sent)
                    self.now += 5
                    self.f_cnt = 0
                    self.node.accept_join(self.session, self.now)
        self.now = max(self.now, until)
        return self.uplinks[first:]

    def wait_for_port(self, f_port: int) -> Uplink:
        """Let time pass until the node sends on that port."""
        for _ in range(4000):
            if found := [uplink for uplink in self.run(0.1) if uplink.f_port == f_port]:
                return found[0]
        raise AssertionError(f"nothing on port {f_port} within 400 s")

    def unicast(self, f_port: int, payload: bytes) -> None:
        """A downlink in class C's RX2."""
        phy = build_downlink(self.session, self.f_cnt, f_port, payload)
        self.f_cnt += 1
        self.now += time_on_air_s(len(phy), 0, crc=False)
        self.node.receive_downlink(Downlink(phy, FREQUENCY_HZ, 0), self.now)

    def multicast(
        self, f_port: int, payload: bytes, *, frequency_hz: int = FREQUENCY_HZ, data_rate: int = DATA_RATE
    ) -> None:
        phy = build_downlink(self.mc_session, self.mc_f_cnt, f_port, payload)
        self.mc_f_cnt += 1
        self.now += time_on_air_s(len(phy), data_rate, crc=False)
        self.node.receive_downlink(Downlink(phy, frequency_hz, data_rate), self.now)

    def ask(self, f_port: int, payload: bytes) -> bytes:
        """A unicast command and the answer on the same port; empty when none came within half a minute."""
        self.unicast(f_port, payload)
        answers = [uplink.payload for uplink in self.run(30) if uplink.f_port == f_port]
        return answers[0] if answers else b""

    def gps(self) -> int:
        return int(gps_of_unix(self.now))

    def join_group(self, group: int = 0, min_f_cnt: int = 0, max_f_cnt: int = 0xFFFFFFFF) -> bytes:
        root = crypto.mc_root_key(gen_app_key=self.spec.gen_app_key)
        encrypted = _aes_decrypt(crypto.mc_ke_key(root), MC_KEY)
        body = struct.pack("<BI16sII", group, MC_ADDR, encrypted, min_f_cnt, max_f_cnt)
        return self.ask(200, b"\x02" + body)

    def open_window(self, in_s: int = 40, time_out: int = 12, group: int = 0, data_rate: int = DATA_RATE) -> bytes:
        body = struct.pack("<BIB", group, (self.gps() + in_s) % 2**32, time_out)
        body += (FREQUENCY_HZ // 100).to_bytes(3, "little") + bytes([data_rate])
        return self.ask(200, b"\x04" + body)

    def set_up_fragments(
        self, nb: int, size: int, padding: int = 0, *, index: int = 0, control: int = 0, tail: bytes = b""
    ) -> bytes:
        body = struct.pack("<BHBBB4s", 1 | index << 4, nb, size, control, padding, bytes(4))
        return self.ask(201, b"\x02" + body + tail)


def _aes_decrypt(key: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()
    return decryptor.update(data) + decryptor.finalize()


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> MakeBench:
    """A class C node (so that unicast reaches it at any time) with 4 kB of firmware; keywords go to its NodeSpec."""

    def make(**changes: object) -> Bench:
        values: dict[str, object] = {
            "dev_eui": "0102030405060708",
            "gen_app_key": bytes([3, 2, 3, *range(4, 17)]),
            "image": firmware.build(version=1, hardware=HARDWARE, size=4000, seed=0),
            "version": 1,
            "hardware": HARDWARE,
            "device_class": "C",
            **changes,
        }
        return Bench(NodeSpec(**values))  # type: ignore[arg-type]

    return make


@pytest.fixture
def encoder() -> Callable[[list[bytes], int, int], bytes]:
    return encode_coded


@pytest.fixture
def cutter() -> Callable[[bytes, int], list[bytes]]:
    return cut


@pytest.fixture
def fragment() -> Callable[..., bytes]:
    return data_fragment
