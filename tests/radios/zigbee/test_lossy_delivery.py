"""Sessions against an independent small client over a link that loses, repeats and reorders frames, with restarts.

The invariant: the client ends with identical bytes, within a bounded virtual time, and what the session called
confirmed was really there.
"""

import random
import struct
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, Want
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import FileId
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer, PacingLimits
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage

NODE = NodeId("zigbee:00124b0000000001")
MANUFACTURER, IMAGE_TYPE, OLD, NEW = 0x1049, 1, 1, 2
LIMITS = SessionLimits()
TIMEOUT_S = 2.5


@dataclass
class Client:
    """Asks in order, repeats after a time, keeps what it has over a reboot. Decodes with its own eyes."""

    flash: bytearray = field(default_factory=bytearray)
    size: int | None = None
    version: int = OLD
    tsn: int = 0
    next_at: float = 0.0
    ended: bool = False

    def timeout(self, now: float) -> bytes | None:
        if now < self.next_at or self.version == NEW:
            return None
        self.next_at = now + TIMEOUT_S
        self.tsn = (self.tsn + 1) % 256
        if self.size is None:
            return bytes((1, self.tsn, 0x01, 0)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, self.version)
        if len(self.flash) < self.size:
            return bytes((1, self.tsn, 0x03, 0)) + struct.pack(
                "<HHLLB", MANUFACTURER, IMAGE_TYPE, NEW, len(self.flash), 64
            )
        return bytes((1, self.tsn, 0x06, 0)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, NEW)

    def receive(self, frame: bytes, now: float) -> None:
        command, body = frame[2], frame[3:]
        if command == 0x00 and self.size is None:
            self.next_at = now
        elif command == 0x02 and body[0] == 0 and self.size is None:
            self.size = struct.unpack_from("<L", body, 9)[0]
            self.next_at = now
        elif command == 0x05 and body[0] == 0x97:
            current, until = struct.unpack_from("<LL", body, 1)
            self.next_at = now + max(until - current, 0.1)
        elif command == 0x05 and body[0] == 0:
            offset, length = struct.unpack_from("<LB", body, 9)
            if self.size is not None and offset == len(self.flash):
                self.flash += body[14 : 14 + length]
                self.next_at = now
        elif command == 0x05:
            raise AssertionError(f"download thrown away: {body.hex()}")
        elif command == 0x07 and self.size == len(self.flash) and struct.unpack_from("<L", body, 12)[0] == 0:
            self.version = NEW


class World:
    """Client, link and session; the journal keeps records only when told to commit."""

    def __init__(self, image: bytes, seed: int, loss: float, twice: float) -> None:
        self.random = random.Random(seed)
        self.image, self.loss, self.twice = image, loss, twice
        self.client = Client()
        self.now = 0.0
        self.air: list[tuple[float, int, bytes, bool]] = []  # arrival, order, frame, to the client
        self.count = 0
        self.facts: list[Fact] = []
        reference = OtaImage(ImageRef("d" * 64, len(image), NEW), FileId(MANUFACTURER, IMAGE_TYPE, NEW))
        self.stored = SessionState(NODE, "t", 1, Want.INSTALL, None, reference, Stage.OFFERED)
        self.session = self.open(reconciled=True)

    def open(self, *, reconciled: bool) -> OtaSession:
        def read(offset: int, length: int) -> bytes:
            return self.image[offset : offset + length]

        state = session_state(session_record(self.stored))
        return OtaSession(state, read, Pacer(PacingLimits()), LIMITS, self.now, reconciled=reconciled)

    def restart(self) -> None:
        """SIGKILL: what was not committed is gone, and so is what was on its way."""
        self.session = self.open(reconciled=False)
        self.session.direct(NodeDirective("t", NODE, 1, Want.INSTALL), self.now)

    def put(self, frame: bytes, *, down: bool) -> None:
        for _ in range(2 if self.random.random() < self.twice else 1):
            if self.random.random() >= self.loss:
                self.count += 1
                arrival = self.now + self.random.choice((0.01, 0.02, 0.05, 0.4, 3.0))
                self.air.append((arrival, self.count, frame, down))

    def pump(self) -> None:
        while (commit := self.session.pending_commit()) is not None:
            self.stored = commit.state
            self.facts += [event.fact for event in commit.events]
            self.session.committed(commit)
        for outgoing in self.session.to_send(self.now):
            self.put(outgoing.frame, down=True)
            self.session.delivered(outgoing, self.random.random() >= self.loss, self.now)
        if self.session.progress() is not None:
            self.stored = self.session.state()

    def step(self) -> None:
        asked = self.client.timeout(self.now)
        if asked is not None:
            self.put(asked, down=False)
        self.session.handle_timeout(self.now)
        self.pump()
        times = [arrival for arrival, *_ in self.air]
        deadline = self.session.next_deadline()
        times += [self.client.next_at] + ([deadline] if deadline is not None else [])
        self.now = max(self.now + 0.001, min(times))
        for item in sorted(item for item in self.air if item[0] <= self.now):
            self.air.remove(item)
            if item[3]:
                self.client.receive(item[2], self.now)
            else:
                self.session.receive(item[2], 1, self.now)
                held = len(self.client.flash)
                assert self.session.confirmed <= held, "confirmed what the node does not hold"
                self.pump()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(60, 1500),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    twice=st.sampled_from([0.0, 0.3]),
    restarts=st.lists(st.integers(0, 120), max_size=4),
)
def test_a_node_ends_with_identical_bytes(size: int, seed: int, loss: float, twice: float, restarts: list[int]) -> None:
    image = random.Random(seed).randbytes(size)
    world = World(image, seed, loss, twice)
    for step in range(20_000):
        if step in restarts:
            world.restart()
        world.step()
        if world.client.version == NEW:
            break
    assert world.client.version == NEW, f"not done at {world.now:.0f} s"
    assert bytes(world.client.flash) == image
    assert world.now < 3600
    assert Fact.INSTALLING in world.facts
    world.session.receive(bytes((1, 9, 1, 0)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, NEW), 1, world.now)
    world.pump()
    assert world.facts[-1] is Fact.RUNNING
