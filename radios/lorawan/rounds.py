"""What is sent to a cohort's group and when: plain fragments, polls, and rounds of coded fragments sized by the answers.

PURE. First all plain fragments, with a poll now and then, so that no node loses 256 unseen. Then, until nobody needs any
more: a poll that all answer or are given up for, and as many new coded fragments as the neediest node should need. Never
a plain fragment again: nodes drop what they passed. Exactly one frame is outstanding.
"""

from dataclasses import dataclass
from math import ceil
from typing import Protocol

from radios.lorawan.cohort import FRAG_INDEX, BlockSource, Cohort, SessionSettings, answer_spread_s
from radios.lorawan.counters import Counters
from radios.lorawan.feeds import Feeds
from radios.lorawan.greatest import Greatest
from radios.lorawan.limits import beyond, sound
from radios.lorawan.messages import Multicast
from radios.lorawan.needs import UNPROVEN_GOALS, Needs
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import fragmentation
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.refusals import Refusals
from radios.lorawan.session_node import UNPROVEN_MOST, SessionNode
from radios.lorawan.status_answers import Air
from radios.lorawan.stragglers import FEW, Stragglers
from radios.lorawan.traits import Trait
from radios.radio import Fact

_EXPECTED_GOAL = 1.0  # deviations beyond the mean, for how much is to come in all: what is sent too early hurts less than what is sent too late
_CODED_UNTOLD = 0.3  # of the plain ones, before anybody has told
_FAR = 128  # coded fragments between two polls at most
_LAST_STRETCH = 100  # plain fragments before the end that need no poll, if a poll would delay the end
_MISSED = 3  # polls of all without an answer that are no news


class Pace(Protocol):
    """When frames may go out, and how long they take."""

    def earliest(self, payload_len: int, now: float) -> float: ...

    def book(self, payload_len: int, now: float) -> None: ...

    def spacing_s(self, payload_len: int) -> float: ...

    def expect(self, frames: int, payload_len: int) -> None: ...

    def duration_s(self, frames: int, payload_len: int) -> float: ...


@dataclass(slots=True)
class _Poll:
    """A poll that is being waited for."""

    repeats: int = 0
    deadline: float = 0.0  # 0: not sent yet
    alone: bool = False  # silent nodes were asked one by one


class Rounds:
    """The frames of one group. Asked for the next one only when the last is done and a window is open."""

    def __init__(
        self, out: Outgoing, block: BlockSource, pace: Pace, port: int, counters: Counters, feeds: Feeds
    ) -> None:
        self._out = out
        self._roster = out.roster
        self._block = block
        self._pace = pace
        self._port = port
        self._counters = counters
        self._stragglers = Stragglers(out, counters, feeds)
        self._last_of_round = max(out.cohort.nb_frag, counters.next - 1)
        self._since_poll = 0
        self._polls = 0
        self._poll: _Poll | None = None
        self._poll_sent_last = False
        self._polled: int | None = None  # counter at the last poll: nodes answer it later, as they were then
        self._answers_until = 0.0
        self._sized_at = 0.0
        self._round_most = 0  # no round goes on beyond this counter
        self._asked_all: list[int] = []  # numbers of the last polls that all are to answer
        self._unproven_rounds = 0  # one after the other
        self._in_flight: Multicast | None = None
        self._not_before = 0.0
        self._expect_at = 0  # counter at which the pace is told again how much is to come
        self._silence_s = 0.0
        self._refusals = Refusals(out)
        self._needed = Needs(out.roster, counters)

    @property
    def in_flight(self) -> bool:
        return self._in_flight is not None

    @property
    def sent(self) -> int:
        return self._counters.next - 1

    @property
    def coding(self) -> bool:
        """All plain fragments are out."""
        return self._counters.coding

    def shift(self, count: int) -> None:
        """So many counters went to single nodes: the present round is still as long as it was."""
        self._last_of_round = min(N_MAX, self._last_of_round + count)
        self._round_most = min(N_MAX, self._round_most + count)

    def heard(self, node: SessionNode) -> None:
        """Any uplink of the node came."""
        self._needed.heard(node)

    def proved(self, node: SessionNode, command: object) -> None:
        """What a node of a restored session says of counters that we know nothing of."""
        if isinstance(command, fragmentation.FragSessionStatusAns) and self._counters.proved(
            node.block.seen(command.nb_frag_received, command.missing_frag)
        ):
            self._last_of_round = max(self._last_of_round, self._counters.next - 1)

    def air(self) -> Air:
        """For judging an answer that came now."""
        return Air(self._counters.highest, self._polls, still=self._poll_sent_last, polled=self._polled)

    def planned_s(self) -> float:
        """About how long the present round takes, with its polls."""
        size = fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size
        to_come = self._to_come(2.0)
        left = max(self._settings.reserve_fragments, self._last_of_round - self._counters.next + 1, to_come)
        return 1.2 * self._pace.duration_s(left, size) + 3 * self._answers_s()

    def may_be_complete(self, node: SessionNode) -> bool:
        """Whether a node that does not tell has probably all that it needs: its image is to be asked about."""
        highest = self._counters.highest
        return self._counters.coding and node.unproven < UNPROVEN_MOST and node.block.doubtful(0, highest)

    def next_frame(self, now: float) -> tuple[Multicast | None, float | None]:
        """The frame to send now, or the time to ask again; (None, None) when only an answer can change anything."""
        if self._in_flight is not None or not self._roster.count(Trait.DEMAND):
            return None, None
        if now < self._not_before:
            return None, self._not_before
        if self._poll is not None and self._poll.deadline:
            wait = self._waited(self._poll, now)
            if wait is not None:
                return None, wait
            if now < self._not_before:
                return None, self._not_before
        next_counter = self._counters.next
        for node in self._roster.of(Trait.BEYOND) if next_counter <= self._cohort.nb_frag + 1 else ():
            beyond(self._out, node, next_counter)
        if not self._roster.count(Trait.DEMAND):
            return None, None
        if next_counter == self._cohort.nb_frag + 1 and next_counter <= self._last_of_round and sound(self._out):
            return None, now + self._settings.answer_timeout_s
        if self._counters.coding:
            self._resize()
        if next_counter >= self._expect_at:
            self._expect()
        if self._counters.next <= self._last_of_round and self._counters.next <= N_MAX:
            return self._fragment_or_poll(now)
        return self._status_poll(now)

    def done(self, now: float) -> None:
        """The frame was taken by the network server."""
        frame, self._in_flight = self._in_flight, None
        if frame is None:
            return
        self._pace.book(len(frame.data), now)
        if frame.n is not None:
            self._counters.sent(frame.n)
            self._since_poll += 1
        else:
            self._answers_until = now + self._answers_s()
            if self._poll is not None:
                self._poll.deadline = self._answers_until

    def refused(self, now: float, wait_s: float) -> None:
        """The frame was not taken; the same one is tried again."""
        if self._in_flight is not None and self._in_flight.n is None and self._poll is None:
            self._polls, self._since_poll = self._polls - 1, self._settings.round_most  # a poll on the way is still due
        self._in_flight = None
        self._not_before = now + wait_s

    def transmitted(self, n: int | None, sent: bool, reason: str, now: float) -> None:
        """What the gateways did with a frame that `done` was told of; `n`: None for a poll.

        A refused fragment is no loss of a node and is never repeated: a new coded one makes it up. A refused poll is.
        """
        self._not_before = max(self._not_before, self._refusals.told(sent, reason, now))
        if n is not None:
            self._counters.transmitted(n, sent=sent)
            if not sent and n > self._cohort.nb_frag and self._poll is None:
                self.shift(1)
        elif not sent and now < self._answers_until:
            self._answers_until = now
            if self._poll is not None:
                self._poll.deadline = 0.0
            else:
                self._polls, self._since_poll = self._polls - 1, self._settings.round_most

    @property
    def _cohort(self) -> Cohort:
        return self._out.cohort

    @property
    def _settings(self) -> SessionSettings:
        return self._out.settings

    def _needs(self) -> Needs:
        self._needed.look(self._polls, self._unproven_rounds)
        return self._needed

    def _fragment_or_poll(self, now: float) -> tuple[Multicast | None, float | None]:
        if self._since_poll >= self._settings.round_most and now < self._answers_until and self._needs().silent:
            return None, self._answers_until  # MissingFrag wraps at 256
        if self._poll_is_due():
            frame = self._status_req(everybody=not self._counters.coding)
        else:
            early = self._too_early(fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size, now)
            if early is not None:
                return None, early  # before the fragment is made, which costs far more than asking
            data = self._block.fragment(self._counters.next)
            command = fragmentation.DataFragment(frag_index=FRAG_INDEX, n=self._counters.next, data=data)
            frame = self._frame("DataFragment", command, self._counters.next)
        early = self._too_early(len(frame.data), now)
        if early is not None:
            return None, early
        if frame.n is None:
            self._polled = self._counters.next - 1
            self._since_poll = 0
            self._polls += 1
        else:
            self._counters.reserve(frame.n, self._settings.reserve_fragments)
        self._poll_sent_last = False
        self._in_flight = frame
        return frame, None

    def _poll_is_due(self) -> bool:
        """While fragments go on: before 255 losses can pile up, and so that answers are here when a round ends."""
        size = fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size
        ahead = ceil(self._answers_s() / self._pace.spacing_s(size))
        if self._since_poll <= min(ahead, self._settings.round_most - 1):
            return False  # its answers would be mixed up with those that are still to come
        plain_left = self._cohort.nb_frag - self._counters.next + 1
        if plain_left > 0:
            return self._since_poll >= self._settings.poll_fragments and plain_left > min(ahead, _LAST_STRETCH)
        if not self._roster.count(Trait.TELLS):
            return False  # their answers tell nothing any more
        left = self._last_of_round - self._counters.next + 1
        return self._since_poll >= _FAR or 2 < left <= ahead

    def _expect(self) -> None:
        """Tell the pace about how many fragments are to come: the plain ones, and what the neediest node should need."""
        self._expect_at = self._counters.next + self._settings.reserve_fragments
        size = fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size
        self._pace.expect(self._to_come(_EXPECTED_GOAL), size)

    def _to_come(self, goal: float) -> int:
        """Plain fragments that are left, and coded ones for the neediest node in demand."""
        plain_count, sent = self._cohort.nb_frag, self._counters.next - 1
        needs = (node.block.demand(max(sent, plain_count)) for node in self._roster.of(Trait.TOLD))
        told = [found.at(goal) for found in needs if found is not None]
        coded = max(told, default=0.0 if self._counters.coding else _CODED_UNTOLD * plain_count)
        return max(0, plain_count - sent) + max(1, ceil(coded))

    def _resize(self) -> None:
        """Answers that came during a round change how long it is."""
        if self._poll is not None or self._counters.next > self._last_of_round:
            return
        needs = self._needs()
        if needs.heard_at() <= self._sized_at:
            return
        self._sized_at = needs.heard_at()
        self._last_of_round = min(self._round_most, self._counters.next - 1 + self._wanted(needs.of_all()))

    def _wanted(self, needed: float) -> int:
        """Fragments to send before looking again; 0: all of them may be complete, as far as can be known."""
        return min(ceil(max(0.0, needed)), self._settings.round_most)

    def _status_poll(self, now: float) -> tuple[Multicast | None, float | None]:
        if now < self._answers_until and self._needs().silent:
            return None, self._answers_until
        frame = self._status_req()
        early = self._too_early(len(frame.data), now)
        if early is not None:
            return None, early
        self._polled = self._counters.next - 1
        if self._poll is None:
            self._poll = _Poll()
            self._polls += 1
            self._since_poll = 0
            self._sized_at = now
            self._asked_all = [*self._asked_all[1 - _MISSED :], self._polls]
        self._poll_sent_last = True
        self._in_flight = frame
        return frame, None

    def _waited(self, poll: _Poll, now: float) -> float | None:
        """None when the poll is over or is to be repeated; else the time to look again."""
        needs, roster = self._needs(), self._roster
        wanted = self._wanted(needs.told.most(0.0))
        over = now >= poll.deadline
        enough = over or needs.silent.most(0.0) <= wanted
        if wanted and enough and (poll.alone or not self._stragglers.all_repairable(needs, over=over)):
            self._unproven_rounds = 0
            self._conclude(wanted, now)
            return None
        unproven = roster.count(Trait.SUSPECT)
        if (needs.silent or unproven) and not over:
            return poll.deadline
        if unproven and self._unproven_rounds < len(UNPROVEN_GOALS):
            # A few more for those that may need them: waiting for a class A node to tell costs far more time.
            self._unproven_rounds += 1
            if for_unproven := self._wanted(self._needs().suspect.most(0.0)):
                self._conclude(for_unproven, now)
                return None
            wanted = 0
        silent = self._needs().silent
        if poll.repeats < self._settings.poll_repeats and (len(silent) > FEW or unproven or self._asleep(silent)):
            poll.repeats += 1
            poll.deadline = 0.0
            return None
        if silent and not poll.alone and (len(silent) < roster.count(Trait.DEMAND) or len(silent) <= FEW):
            poll.alone = True
            for node in roster.ordered(silent.names()):
                self._out.ask_alone(node)
        # Those that are asked one by one end it by an answer or by giving up; both wake the session.
        if roster.count(Trait.ASKED_ALONE) + roster.count(Trait.SUSPECT):
            return now + self._settings.answer_timeout_s
        self._conclude(wanted, now)
        return None

    def _asleep(self, silent: Greatest) -> bool:
        """Whether one of them hears only the group before its next uplink."""
        return any(not self._out.nodes[name].profile.always_on for name in silent.names())

    def _conclude(self, wanted: int, now: float) -> None:
        """The poll is over: those that answered say how long the next round is."""
        alone = self._poll is not None and self._poll.alone
        expected_since = self._polls if alone else self._asked_all[0] if len(self._asked_all) == _MISSED else 0
        self._poll = None
        demand = self._roster.of(Trait.DEMAND)
        answered = [node for node in demand if node.answered_poll >= self._polls]
        for node in demand:
            if node.answered_poll < expected_since and not node.stalled:
                node.stalled = True
                self._out.event(node, Fact.STALLED, now, code="silent", detail="answers no status request")
        if not answered:
            # Fragments into the silence would be a guess, and the uplink may be what is broken.
            first, most = self._settings.silent_poll_s, self._settings.answer_timeout_most_s
            self._silence_s = min(most, max(first, self._silence_s * 2))
            self._not_before = now + self._silence_s
            return
        self._silence_s = 0.0
        left = sum(not node.suspect for node in demand)
        spacing_s = self._pace.spacing_s(fragmentation.FRAGMENT_OVERHEAD + self._cohort.frag_size)
        staying = self._stragglers.part(answered, left, spacing_s, now)
        if not staying:
            return
        if len(staying) < len(answered):
            wanted = self._wanted(max(map(self._needs().of, (node.dev_eui for node in staying))))
        if self._counters.next > N_MAX:
            for node in staying:
                self._out.again(node, now, "lost", "every coded counter was sent")
            return
        self._sized_at = now
        self._last_of_round = min(N_MAX, self._counters.next - 1 + wanted)
        self._expect_at = 0
        self._round_most = min(N_MAX, self._counters.next - 1 + self._settings.round_most)
        if not wanted:
            self._not_before = now + self._settings.poll_margin_s

    def _status_req(self, *, everybody: bool = True) -> Multicast:
        """Everybody, when silence would not tell a node that is complete from one that did not hear."""
        command = fragmentation.FragSessionStatusReq(frag_index=FRAG_INDEX, participants=everybody)
        return self._frame("FragSessionStatusReq", command, None)

    def _answers_s(self) -> float:
        """From a poll to the last of its answers."""
        return answer_spread_s(self._cohort.block_ack_delay) + self._settings.poll_margin_s

    def _frame(self, name: str, command: fragmentation.DownlinkCommand, n: int | None) -> Multicast:
        data = fragmentation.encode(command, self._cohort.frag_version)
        return Multicast(self._cohort.group_id, self._port, data, name, n)

    def _too_early(self, payload_len: int, now: float) -> float | None:
        when = self._pace.earliest(payload_len, now)
        return when if when > now else None
