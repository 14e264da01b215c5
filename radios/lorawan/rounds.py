"""What is sent to a cohort's group and when: plain fragments, polls, and rounds of coded fragments sized by the answers.

PURE. First all plain fragments, with a poll now and then, so that no node loses 256 unseen. Then, until nobody needs any
more: a poll that all answer or are given up for, and as many new coded fragments as the neediest node should need. Never
a plain fragment again: nodes drop what they passed. Exactly one frame is outstanding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from radios.lorawan.answers import Air
from radios.lorawan.cohort import FRAG_INDEX, BlockSource, Cohort, SessionSettings, answer_spread_s
from radios.lorawan.messages import Multicast
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import fragmentation
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.session_node import SessionNode
from radios.radio import Fact

_FEW = 2  # silent nodes that are asked one by one rather than all again


class Pace(Protocol):
    """When frames may go out, and how long they take."""

    def earliest(self, payload_len: int, now: float) -> float: ...

    def book(self, payload_len: int, now: float) -> None: ...

    def spacing_s(self, payload_len: int) -> float: ...


@dataclass(slots=True)
class _Poll:
    """A poll that is being waited for."""

    repeats: int = 0
    deadline: float = 0.0  # 0: not sent yet
    alone: bool = False  # silent nodes were asked one by one


class Rounds:
    """The frames of one group. Asked for the next one only when the last is done and a window is open."""

    def __init__(self, out: Outgoing, block: BlockSource, pace: Pace, port: int) -> None:
        self._out = out
        self._block = block
        self._pace = pace
        self._port = port
        cohort = out.cohort
        self._next = cohort.next_counter()
        self._highest = max(cohort.reserved, self._next - 1)  # that a node can have seen
        self._last_of_round = max(cohort.nb_frag, self._next - 1)
        self._since_poll = 0
        self._polls = 0
        self._poll: _Poll | None = None
        self._poll_sent_last = False
        self._in_flight: Multicast | None = None
        self._not_before = 0.0
        self._silence_s = 0.0

    @property
    def in_flight(self) -> bool:
        return self._in_flight is not None

    @property
    def sent(self) -> int:
        return self._next - 1

    def air(self) -> Air:
        """For judging an answer that came now."""
        return Air(highest=self._highest, poll=self._polls, still=self._poll_sent_last)

    def planned_s(self) -> float:
        """About how long the present round takes, with its polls."""
        size = fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size
        left = max(self._settings.reserve_fragments, self._last_of_round - self._next + 1)
        waits = 3 * (answer_spread_s(self._cohort.block_ack_delay) + self._settings.poll_margin_s)
        return 1.3 * left * self._pace.spacing_s(size) + waits

    def next_frame(self, nodes: Iterable[SessionNode], now: float) -> tuple[Multicast | None, float | None]:
        """The frame to send now, or the time to ask again; (None, None) when only an answer can change anything."""
        demand = [node for node in nodes if node.in_demand]
        if self._in_flight is not None or not demand:
            return None, None
        if now < self._not_before:
            return None, self._not_before
        if self._poll is not None and self._poll.deadline:
            wait = self._waited(self._poll, demand, now)
            if wait is not None:
                return None, wait
            if now < self._not_before:
                return None, self._not_before
        demand = [node for node in demand if node.in_demand]
        if not demand:
            return None, None
        if self._next <= self._last_of_round and self._next <= N_MAX:
            return self._fragment_or_mid_poll(now)
        return self._status_poll(now)

    def done(self, now: float) -> None:
        """The frame was taken by the network server."""
        frame, self._in_flight = self._in_flight, None
        if frame is None:
            return
        self._pace.book(len(frame.data), now)
        if frame.n is not None:
            self._next = frame.n + 1
            self._highest = max(self._highest, frame.n)
            self._cohort.mark = frame.n
            self._since_poll += 1
        elif self._poll is not None:
            wait = answer_spread_s(self._cohort.block_ack_delay) + self._settings.poll_margin_s
            self._poll.deadline = now + wait

    def refused(self, now: float, wait_s: float) -> None:
        """The frame was not taken; the same one is tried again."""
        self._in_flight = None
        self._not_before = now + wait_s

    @property
    def _cohort(self) -> Cohort:
        return self._out.cohort

    @property
    def _settings(self) -> SessionSettings:
        return self._out.settings

    def _fragment_or_mid_poll(self, now: float) -> tuple[Multicast | None, float | None]:
        every = self._settings.poll_fragments
        plain_left = self._cohort.nb_frag - self._next + 1
        if self._since_poll >= every and plain_left > every // 4:
            frame = self._status_req()
        else:
            data = self._block.fragment(self._next)
            command = fragmentation.DataFragment(frag_index=FRAG_INDEX, n=self._next, data=data)
            frame = self._frame("DataFragment", command, self._next)
        early = self._too_early(frame, now)
        if early is not None:
            return None, early
        if frame.n is None:
            self._since_poll = 0
            self._polls += 1
            self._poll_sent_last = False
        else:
            self._reserve(frame.n)
            self._poll_sent_last = False
        self._in_flight = frame
        return frame, None

    def _status_poll(self, now: float) -> tuple[Multicast | None, float | None]:
        frame = self._status_req()
        early = self._too_early(frame, now)
        if early is not None:
            return None, early
        if self._poll is None:
            self._poll = _Poll()
            self._polls += 1
            self._since_poll = 0
        self._poll_sent_last = True
        self._in_flight = frame
        return frame, None

    def _waited(self, poll: _Poll, demand: list[SessionNode], now: float) -> float | None:
        """None when the poll is over or is to be repeated; else the time to look again."""
        silent = [node for node in demand if node.answered_poll < self._polls]
        if silent and now < poll.deadline:
            return poll.deadline
        if silent and poll.repeats < self._settings.poll_repeats and len(silent) > _FEW:
            poll.repeats += 1
            poll.deadline = 0.0
            return None
        if silent and not poll.alone and (len(silent) < len(demand) or len(silent) <= _FEW):
            poll.alone = True
            for node in silent:
                node.ask_afresh()
                node.poll_alone = True
        # Those that are asked one by one end it by an answer or by giving up; both wake the session.
        if any(node.poll_alone or node.suspect for node in demand):
            return now + self._settings.answer_timeout_s
        self._conclude(demand, now)
        return None

    def _conclude(self, demand: list[SessionNode], now: float) -> None:
        """The poll is over: size the next round by those that answered."""
        self._poll = None
        answered = [node for node in demand if node.answered_poll >= self._polls]
        for node in demand:
            if node.answered_poll < self._polls and not node.stalled:
                node.stalled = True
                self._out.event(node, Fact.STALLED, now, code="silent", detail="answers no status request")
        if not answered:
            # Fragments into the silence would be a guess, and the uplink may be what is broken.
            first, most = self._settings.silent_poll_s, self._settings.answer_timeout_most_s
            self._silence_s = min(most, max(first, self._silence_s * 2))
            self._not_before = now + self._silence_s
            return
        self._silence_s = 0.0
        need = max(node.block.need(self._next - 1) for node in answered)
        if self._next > N_MAX:
            for node in answered:
                self._out.again(node, now, "lost", "every coded counter was sent")
            return
        self._last_of_round = min(N_MAX, self._next - 1 + min(need, self._settings.round_most))

    def _reserve(self, n: int) -> None:
        """Counters are durable before they are used, some at a time; plain and coded ones never in one piece."""
        cohort = self._cohort
        if n <= cohort.reserved:
            return
        end = cohort.nb_frag if n <= cohort.nb_frag else N_MAX
        cohort.reserved = min(end, n + self._settings.reserve_fragments - 1)
        cohort.mark = n - 1
        cohort.data_started = True
        self._out.cohort_changed()

    def _status_req(self) -> Multicast:
        """All answer: silence would not tell a node that is complete from one that did not hear."""
        command = fragmentation.FragSessionStatusReq(frag_index=FRAG_INDEX, participants=True)
        return self._frame("FragSessionStatusReq", command, None)

    def _frame(self, name: str, command: fragmentation.DownlinkCommand, n: int | None) -> Multicast:
        data = fragmentation.encode(command, self._cohort.frag_version)
        return Multicast(self._cohort.group_id, self._port, data, name, n)

    def _too_early(self, frame: Multicast, now: float) -> float | None:
        when = self._pace.earliest(len(frame.data), now)
        return when if when > now else None
