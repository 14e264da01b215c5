"""What outlives the gateway's process: the nodes on their radio, the cloud with what it stores, the operator, and what was
asked of the mirror.

It is a process of its own, which answers one request of the gateway after the other over a pipe; its time is the one that
the gateway's requests tell, so a run is the same every time. While no gateway lives, time passes by `pause`. A fork of it
goes on from that moment by itself.
"""

import os
import socket
import sqlite3
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Report, ReportBatch
from gatewayd.demo.cloud_side import GATEWAY
from gatewayd.publisher.collector import ReportStore
from radios.errors import RadioError
from radios.simulated.zigbee.virtual_time import Agenda, run_agenda
from tests.crash.cloud import Published

COMMITTED = ("installing", "confirming", "updated", "rolled_back")
ANSWER_WITHIN_S = 60  # real time; a gateway that says nothing for so long is stuck
HELD_AT_BYTES = 1500  # of the story's first node: when the operator holds its campaign
HELD_FOR_S = 5.0
STILL_AFTER_S = 2.0  # of a hold: what was on its way when it was given has come


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the mirror, [start, stop) of a payload."""

    digest: str
    start: int
    stop: int


class World(ABC):
    """The methods under "requests" are what the gateway's process may ask; its side is `far.py`."""

    def __init__(self, published: Published, store: Path) -> None:
        self.published = published
        self.story = published.story
        self.store = store
        self.now = published.start
        self.requests = 0  # answered; between two that follow each other nothing changes here
        self.asked_for: list[Asked] = []
        self.told_too_early: list[str] = []  # to install, before the store said so
        self.moved_while_held = 0  # bytes
        self.troubles: list[str] = []  # that the gateway found with its store at a start
        self.news: list[tuple[Any, ...]] = []  # that the gateway's process has to be told
        self.log = [published.order(planned.name) for planned in self.story.campaigns]
        self._reports = ReportStore()
        self._acks = b""
        self._held_at: float | None = None  # when the gateway had stored the hold
        self._held_bytes = 0
        self.resumed = False
        self.life = 0

    # -- what is behind the radio --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def site(self) -> Agenda: ...

    @abstractmethod
    def bytes_held(self, node: str) -> int:
        """Of an image that has not been started yet."""

    @abstractmethod
    def nodes(self) -> dict[str, dict[str, object]]:
        """What has become of them."""

    @abstractmethod
    def known_nodes(self) -> Any:
        """What the gateway's process is told of the nodes before anything else."""

    def gateway_gone(self) -> None:
        """Nobody listens any more."""
        self.news.clear()

    # -- lives of the gateway ------------------------------------------------------------------------------------------

    def serve(self, connection: Connection) -> bool:
        """Answer the gateway until it ends; False when it said nothing for too long."""
        self.begin_life()
        with socket.socket(
            fileno=os.dup(connection.fileno())
        ) as end:  # the kernel's limit: `poll` makes a selector each time
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_WITHIN_S, 0))
        try:
            while self.answer(connection):
                pass
        except BlockingIOError:
            return False
        return True

    def begin_life(self) -> None:
        self.life += 1

    def answer(self, connection: Connection) -> bool:
        """One request; False when the gateway has ended."""
        try:
            name, arguments = connection.recv()
            try:
                result = getattr(self, name)(*arguments)
            except RadioError as error:
                result = error
            self.requests += 1
            news, self.news = self.news, []
            connection.send((result, news, self.next_deadline()))
        except (EOFError, ConnectionError):
            self.gateway_gone()
            return False
        return True

    def next_deadline(self) -> float | None:
        return self.site.next_deadline()

    def pause(self, seconds: float) -> None:
        """Nobody is there for so long."""
        if self._held_at is not None and (still_s := self._held_at + STILL_AFTER_S - self.now) > 0:
            # What was on its way arrives while nobody is there.
            first_s = min(still_s, seconds)
            run_agenda(self.site, self.now, first_s)
            self.now, seconds = self.now + first_s, seconds - first_s
            self._held_bytes = self.bytes_held(self.story.campaigns[0].nodes[0])
        run_agenda(self.site, self.now, seconds)
        self.now += seconds

    # -- requests: the radio -------------------------------------------------------------------------------------------

    def pass_time(self, now: float) -> None:
        self.now = now
        self.site.handle_timeout(now)
        node = self.story.campaigns[0].nodes[0]
        if self._held_at is not None and not self.resumed and now < self._held_at + STILL_AFTER_S:
            self._held_bytes = self.bytes_held(node)
        elif self._held_at is not None and not self.resumed:
            self.moved_while_held = max(self.moved_while_held, self.bytes_held(node) - self._held_bytes)

    def at_rest(self) -> bool:
        """Whether no node holds bytes of an image that nobody will complete."""
        return not any(self.bytes_held(node) for node in self.story.nodes)

    def judge_install(self, node: str) -> None:
        """A node is only told to install what the store, as it is on the disk, says it may be told."""
        store = sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)
        try:
            found = store.execute("SELECT state FROM node_update WHERE node = ?", (node,)).fetchall()
        finally:
            store.close()
        if not any(state in COMMITTED for (state,) in found):
            self.told_too_early.append(f"{node}: {found}")

    # -- requests: the operator ----------------------------------------------------------------------------------------

    def wish(self) -> bool | None:
        """What the operator wants of the first campaign: hold, resume, or nothing yet; said again until it is heard."""
        if self._held_at is None:
            node = self.story.campaigns[0].nodes[0]
            return True if self.bytes_held(node) >= HELD_AT_BYTES else None
        return self.now < self._held_at + HELD_FOR_S

    def done(self, hold: bool) -> None:
        """The gateway says that this is stored."""
        if hold and self._held_at is None:
            self._held_at = self.now
            self._held_bytes = self.bytes_held(self.story.campaigns[0].nodes[0])
        self.resumed = self.resumed or not hold

    # -- requests: cloud and mirror ------------------------------------------------------------------------------------

    def retained(self, known: int) -> tuple[int, list[tuple[str, bytes]], bytes, bool | None]:
        """What is retained beyond what was known, the newest for each topic, the acknowledgement, the operator's wish."""
        newest = {order.topic: order.envelope for order in self.log[known:]}
        return len(self.log), list(newest.items()), self._acks, self.wish()

    def reports(self, raw: bytes) -> None:
        batch = messages.parse(ReportBatch, raw, "reports", messages.RELEASE_MAX_BYTES)
        if (acks := self._reports.store(GATEWAY, batch, self.now)) is not None:
            self._acks = messages.dump(acks)

    def troubled(self, code: str, detail: str) -> None:
        self.troubles.append(f"{code}: {detail}")

    def asked(self, digest: str, start: int, stop: int) -> None:
        self.asked_for.append(Asked(digest, start, stop))

    # -- what has become of it -----------------------------------------------------------------------------------------

    def told(self) -> list[Report]:
        """Reports that the cloud has stored, each once, in order."""
        return [report for _, report in self._reports.reports()]

    def faults(self) -> list[str]:
        """What should never have happened."""
        return [f"{self.moved_while_held} bytes delivered while held"] if self.moved_while_held else []
