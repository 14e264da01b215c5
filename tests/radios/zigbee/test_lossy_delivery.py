"""Sessions against an independent small client over a link that loses, repeats and reorders frames, with restarts of the
daemon (from its journal), reboots of the node and holds at any point.

The invariants: the client ends with identical bytes within a bounded virtual time as long as anything gets through, or
keeps its old image if it refuses the new one; what the session called confirmed was really there; no install is sent
that was not committed; a download that is wanted is never ended by the server.
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
from radios.zigbee.reconcile import ClientAttributes
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage

NODE = NodeId("zigbee:00124b0000000001")
MANUFACTURER, IMAGE_TYPE, OLD, NEW = 0x1049, 1, 1, 2
LIMITS = SessionLimits()
TIMEOUT_S = 2.5
PAGE_SPACING_MS = 50


@dataclass
class Client:
    """Asks in order, repeats after a time, keeps what it has over a reboot. Decodes with its own eyes.

    `page_size`: it asks for pages until they are refused; `period`: it offers MinimumBlockPeriod, in milliseconds;
    `refuses`: no image is good enough for it, and it begins again.
    """

    page_size: int = 0
    period: int | None = None
    refuses: bool = False
    flash: bytearray = field(default_factory=bytearray)
    ahead: dict[int, bytes] = field(default_factory=dict)
    page_end: int = 0
    size: int | None = None
    version: int = OLD
    tsn: int = 0
    next_at: float = 0.0
    answered: bool = False
    thrown_away: int = 0

    def reboot(self, now: float) -> None:
        self.ahead.clear()
        self.page_end = 0
        self.next_at = now + 1.0
        if self.period is not None:
            self.period = 0

    def timeout(self, now: float) -> bytes | None:
        if now < self.next_at or self.version == NEW:
            return None
        self.next_at = now + TIMEOUT_S
        self.tsn = (self.tsn + 1) % 256
        at = len(self.flash)
        if self.size is None:
            return bytes((1, self.tsn, 0x01, 0)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, self.version)
        if at == self.size:
            status = 0x96 if self.refuses else 0
            if self.refuses:
                self.answered = False
            return bytes((1, self.tsn, 0x06, status)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, NEW)
        wanted = struct.pack("<HHLLB", MANUFACTURER, IMAGE_TYPE, NEW, at, 64)
        if self.page_size and at >= self.page_end:
            self.page_end = min(at + self.page_size, self.size)
            return bytes((1, self.tsn, 0x04, 0)) + wanted + struct.pack("<HH", self.page_size, PAGE_SPACING_MS)
        if self.period is not None:
            return bytes((1, self.tsn, 0x03, 2)) + wanted + struct.pack("<H", self.period)
        return bytes((1, self.tsn, 0x03, 0)) + wanted

    def receive(self, frame: bytes, now: float) -> None:
        command, body = frame[2], frame[3:]
        if not frame[0] & 1:
            self.default_response(body, now)
        elif command == 0x00 and self.size is None:
            self.next_at = now
        elif command == 0x02 and body[0] == 0 and self.size is None:
            self.size = struct.unpack_from("<L", body, 9)[0]
            self.next_at = now
        elif command == 0x05 and body[0] == 0x97:
            current, until = struct.unpack_from("<LL", body, 1)
            if len(body) > 9 and self.period is not None:
                (self.period,) = struct.unpack_from("<H", body, 9)
            self.page_end = 0
            self.next_at = now + max(until - current, 0.1) + (self.period or 0) / 1000
        elif command == 0x05 and body[0] == 0:
            self.block(*struct.unpack_from("<LB", body, 9), body[14:], now)
        elif command == 0x05:
            self.thrown_away += 1
        elif command == 0x07 and self.size == len(self.flash) and struct.unpack_from("<L", body, 12)[0] == 0:
            assert not self.refuses
            self.version = NEW

    def block(self, offset: int, length: int, data: bytes, now: float) -> None:
        if self.size is None or offset < len(self.flash) or offset + length > self.size or len(data) != length:
            return
        if offset > len(self.flash) and offset + length > self.page_end:
            return
        self.ahead[offset] = data
        while (data := self.ahead.pop(len(self.flash), b"")) != b"":
            self.flash += data
        done = len(self.flash) >= max(self.page_end, 1) or len(self.flash) == self.size
        if done or (not self.ahead and not self.page_end):
            self.ahead.clear()
            self.next_at = now + (self.period or 0) / 1000
        else:
            self.next_at = now + 2 * PAGE_SPACING_MS / 1000 + 0.5  # for the rest of the page, then hole by hole

    def default_response(self, body: bytes, now: float) -> None:
        if body[0] == 0x04 and body[1] != 0:
            self.page_size, self.page_end, self.next_at = 0, 0, now
        elif body[0] == 0x06 and self.refuses and self.size == len(self.flash):
            self.flash, self.size, self.next_at = bytearray(), None, now + 1.0


class World:
    """Client, link and session; the journal keeps records only when told to commit."""

    def __init__(
        self,
        image: bytes,
        seed: int,
        loss: float,
        twice: float,
        client: Client | None = None,
        limits: SessionLimits = LIMITS,
    ) -> None:
        self.limits = limits
        self.random = random.Random(seed)
        self.image, self.loss, self.twice = image, loss, twice
        self.client = client or Client()
        self.generation = 1
        self.want = Want.INSTALL
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
        return OtaSession(state, read, Pacer(PacingLimits()), self.limits, self.now, reconciled=reconciled)

    def restart(self) -> None:
        """SIGKILL: what was not committed is gone, and so is what was on its way."""
        self.session = self.open(reconciled=False)
        self.session.direct(NodeDirective("t", NODE, self.generation, self.want), self.now)
        self.session.client_described(ClientAttributes(cluster_revision=3), self.now, self.now)

    def turn(self) -> None:
        """The daemon holds the node, or lets it go on."""
        self.generation += 1
        self.want = Want.HOLD if self.want is Want.INSTALL else Want.INSTALL
        self.session.direct(NodeDirective("t", NODE, self.generation, self.want), self.now)
        self.pump()

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
            if outgoing.frame[2] == 0x07 and outgoing.frame[0] & 1 and outgoing.frame[-4:] == bytes(4):
                assert self.stored.stage is Stage.INSTALLING, "told to start before that was committed"
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
                assert self.client.refuses or self.session.confirmed <= held, "confirmed what the node does not hold"
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
    assert world.client.thrown_away == 0
    assert world.now < 3600
    assert Fact.INSTALLING in world.facts
    world.session.receive(bytes((1, 9, 1, 0)) + struct.pack("<HHL", MANUFACTURER, IMAGE_TYPE, NEW), 1, world.now)
    world.pump()
    assert world.facts[-1] is Fact.RUNNING


STEPS = st.lists(st.integers(0, 150), max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(60, 1500),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4, 0.7]),
    twice=st.sampled_from([0.0, 0.3]),
    page_size=st.sampled_from([0, 0, 128, 512, 600]),
    period=st.sampled_from([None, 0, 300]),
    pages_served=st.booleans(),
    restarts=STEPS,
    reboots=STEPS,
    turns=st.lists(st.integers(0, 150), max_size=1).map(lambda at: [*at, at[0] + 20] if at else at),
)
def test_any_client_ends_with_identical_bytes_whatever_happens(
    size: int,
    seed: int,
    loss: float,
    twice: float,
    page_size: int,
    period: int | None,
    pages_served: bool,
    restarts: list[int],
    reboots: list[int],
    turns: list[int],
) -> None:
    image = random.Random(seed).randbytes(size)
    world = World(image, seed, loss, twice, Client(page_size, period), SessionLimits(page_requests=pages_served))
    for step in range(40_000):
        if step in restarts:
            world.restart()
        if step in reboots:
            world.client.reboot(world.now)
        if step in turns:
            world.turn()
        world.step()
        if world.client.version == NEW and step > max(turns, default=0):
            break
    assert world.client.version == NEW, f"not done at {world.now:.0f} s"
    assert bytes(world.client.flash) == image
    assert world.client.thrown_away == 0
    assert world.now < 4 * 3600


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(60, 300),
    seed=st.integers(0, 2**32),
    page_size=st.sampled_from([0, 128]),
    restarts=STEPS,
    reboots=STEPS,
)
def test_where_nine_frames_of_ten_are_lost_it_only_takes_longer(
    size: int, seed: int, page_size: int, restarts: list[int], reboots: list[int]
) -> None:
    image = random.Random(seed).randbytes(size)
    world = World(image, seed, 0.9, 0.0, Client(page_size))
    for step in range(400_000):
        if step in restarts:
            world.restart()
        if step in reboots:
            world.client.reboot(world.now)
        world.step()
        if world.client.version == NEW:
            break
    assert world.client.version == NEW, f"not done at {world.now:.0f} s"
    assert bytes(world.client.flash) == image
    assert world.client.thrown_away == 0
    assert world.now < 4 * 86400


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(60, 600),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    page_size=st.sampled_from([0, 512]),
    restarts=STEPS,
)
def test_a_client_that_refuses_the_image_keeps_its_own_and_is_given_up(
    size: int, seed: int, loss: float, page_size: int, restarts: list[int]
) -> None:
    image = random.Random(seed).randbytes(size)
    world = World(image, seed, loss, 0.1, Client(page_size, refuses=True))
    for step in range(20_000):
        if step in restarts:
            world.restart()
        world.step()
        if world.session.stage is Stage.FAILED:
            break
    world.pump()
    assert world.session.stage is Stage.FAILED, f"not given up at {world.now:.0f} s"
    assert world.facts[-1] is Fact.FAILED
    assert Fact.INSTALLING not in world.facts
    assert world.client.version == OLD
    assert world.now < 3600
