"""Fragments for single nodes, by unicast: the whole block for a node without multicast, new coded ones for a straggler.

PURE. A few fragments at a time go into the node's queue, when it is empty, so that nothing is queued twice; a status
request ends each leg, and its answer sizes the next. Nothing is sent into silence. Counters are the cohort's: what one node
is given no other is. A node that makes up too few losses for its link gets each plain fragment until it has
seen it: it drops one that it passed, so that to send one again does no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from radios.lorawan.cohort import FRAG_INDEX, BlockSource, Cohort, SessionSettings
from radios.lorawan.counters import Counters
from radios.lorawan.messages import Feed, FeedFrame
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import fragmentation
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD, N_MAX
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.status_answers import Air
from radios.lorawan.traits import Trait
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import Fact

_STATUS_BYTES = 2
_WINDOW_BYTES = 11  # McClassCSessionReq
_WORTH = 0.95  # unicast is slower in class A: not for a frame or two
_EXPIRES_S = 86_400.0  # a queued fragment never harms, but its node may never come back
_BUSY_WAIT_S = 5.0  # of a class C node's queue
_LOCK_S = 2.5  # a network server's pause between two class C downlinks
_AFTER_UPLINK_S = 1.0


@dataclass(slots=True)
class _Leg:
    """What is being sent to one node before it is asked what it has."""

    left: int = 0  # counters still to be handed out
    batch: tuple[int, ...] = ()  # handed out, not yet taken by the network server
    polling: bool = False  # the batch ends with a status request
    in_flight: bool = False
    awaiting: bool = False  # the status request is out
    poll: int = 0  # number of the last status request
    alone: bool = False  # it was repeated by itself
    not_before: float = 0.0
    silence_s: float = 0.0


class Feeds:
    """All nodes of one cohort that are fed by unicast."""

    def __init__(self, out: Outgoing, block: BlockSource, air: UnicastAir | None, counters: Counters) -> None:
        self.used_s = 0.0
        self._out = out
        self._block = block
        self._air = air
        self._counters = counters
        self._legs: dict[str, _Leg] = {}

    # Whether it is worth it.

    def possible(self, node: SessionNode) -> bool:
        """Whether fragments of this cohort fit into unicast downlinks to the node, as it is heard now."""
        size = FRAGMENT_OVERHEAD + self._cohort.frag_size
        return self._air is not None and node.unicast_dr is not None and self._air.max_payload(node.unicast_dr) >= size

    def airtime_s(self, node: SessionNode, fragments: int, polls: int = 1) -> float:
        """Of so many fragments and status requests to this node."""
        if self._air is None or node.unicast_dr is None:
            return 0.0
        one = self._air.airtime_s(node.unicast_dr, FRAGMENT_OVERHEAD + self._cohort.frag_size)
        return fragments * one + polls * self._air.airtime_s(node.unicast_dr, _STATUS_BYTES)

    def cost_s(self, node: SessionNode, fragments: int) -> float:
        """Time on air to bring it so many fragments; infinite when that is not possible or takes its uplinks too long."""
        slow = not node.profile.always_on and fragments * node.profile.answer_timeout_s > self._settings.unicast_most_s
        return float("inf") if slow or not self.possible(node) else self.airtime_s(node, fragments)

    def multicast_cost_s(self, fragments: int, windows: int = 0) -> float:
        """Time on air of the same to the group, on every gateway, with so many requests to open a window."""
        if self._air is None:
            return 0.0
        rate, size = self._cohort.data_rate, FRAGMENT_OVERHEAD + self._cohort.frag_size
        frames = fragments * self._air.airtime_s(rate, size) + self._air.airtime_s(rate, _STATUS_BYTES)
        return max(1, len(self._cohort.gateways)) * frames + windows * self._air.airtime_s(rate, _WINDOW_BYTES)

    def worth(self, needs: Mapping[str, int], windows: int) -> bool:
        """Whether these nodes take clearly less air one by one; `needs`: fragments by DevEUI."""
        alone = sum(self.cost_s(self._out.nodes[dev_eui], need) for dev_eui, need in needs.items())
        return alone < _WORTH * self.multicast_cost_s(max(needs.values(), default=0), windows)

    # What goes out.

    def step(self, now: float) -> tuple[Feed | None, float | None]:
        """The batch to hand over now, and when to ask again."""
        wake: list[float] = []
        for node in self._out.roster.of(Trait.FED):
            leg = self._legs.setdefault(node.dev_eui, _Leg(poll=max(0, node.answered_poll)))
            if leg.in_flight or node.suspect or node.poll_alone:
                continue  # its answer, or giving up on one, wakes the session
            if leg.awaiting:
                self._heard_or_not(node, leg, now)
            if node.poll_alone:
                continue
            if now < leg.not_before:
                wake.append(leg.not_before)
                continue
            feed, when = self._next(node, leg, now)
            if feed is not None:
                return feed, now
            if when is not None:
                wake.append(when)
        return None, min(wake, default=None)

    def air(self, node: SessionNode, *, quiet: bool) -> Air:
        """For judging an answer of a fed node; `quiet`: the group is sent nothing meanwhile."""
        leg = self._legs.get(node.dev_eui) or _Leg()
        still = quiet and not leg.in_flight and not leg.batch and (leg.awaiting or node.poll_alone)
        return Air(highest=self._counters.highest, poll=leg.poll, still=still)

    def heard(self, node: SessionNode, now: float) -> None:
        """An uplink takes something out of a queue, and a node that was silent is there: no need to wait any longer."""
        leg = self._legs.get(node.dev_eui)
        if leg is not None and (leg.silence_s or not leg.awaiting):
            leg.not_before = min(leg.not_before, now + _AFTER_UPLINK_S)

    def taken(self, node: SessionNode, frames: int, now: float) -> None:
        """The network server queued so many frames of the batch that was given out; the rest is tried again."""
        leg = self._legs[node.dev_eui]
        leg.in_flight = False
        fragments = leg.batch[:frames]
        for n in fragments:
            self._counters.sent(n)
        if fragments:
            self._out.cohort_changed()  # after a crash none of them is queued again
        complete = frames >= len(leg.batch) + leg.polling
        leg.batch = leg.batch[frames:]
        self._book(node, len(fragments), int(complete and leg.polling), now)
        if not complete:
            leg.not_before = now + self._settings.retry_s
        elif not leg.polling:
            leg.not_before = now + self._served_s(node, frames)
        else:
            leg.polling, leg.awaiting = False, True
            leg.not_before = now + self._served_s(node, frames) + node.profile.answer_timeout_s

    def busy(self, node: SessionNode, now: float) -> None:
        """Something is queued for the node: nothing was added."""
        leg = self._legs[node.dev_eui]
        leg.in_flight = False
        leg.not_before = now + (_BUSY_WAIT_S if node.profile.always_on else node.profile.answer_timeout_s)

    @property
    def _cohort(self) -> Cohort:
        return self._out.cohort

    @property
    def _settings(self) -> SessionSettings:
        return self._out.settings

    def _heard_or_not(self, node: SessionNode, leg: _Leg, now: float) -> None:
        """The status request was answered, or is repeated by itself, with growing pauses."""
        if node.answered_poll >= leg.poll:
            leg.awaiting = leg.alone = False
            leg.silence_s = leg.not_before = 0.0
        elif now >= leg.not_before and not leg.alone:
            leg.alone = True
            self._out.ask_alone(node)
        elif now >= leg.not_before:
            if not node.stalled:
                node.stalled = True
                self._out.event(node, Fact.STALLED, now, code="silent", detail="answers no status request")
            first, most = self._settings.silent_poll_s, self._settings.answer_timeout_most_s
            most = max(most, node.profile.answer_timeout_s)
            leg.silence_s = min(most, max(first, leg.silence_s * 2))
            leg.not_before = now + leg.silence_s
            leg.alone = False

    def _next(self, node: SessionNode, leg: _Leg, now: float) -> tuple[Feed | None, float | None]:
        if leg.awaiting:
            return None, leg.not_before
        if self._air is None or not self.possible(node):
            return None, self._too_large(node, now)
        node.oversize_since = 0.0
        if not leg.batch and not leg.polling and not self._hand_out(node, leg, now):
            return None, None
        airtime_s = self.airtime_s(node, len(leg.batch), int(leg.polling))
        when = self._air.earliest(airtime_s, now, always_on=node.profile.always_on)
        if when > now:
            return None, when
        port = node.profile.ports.fragmentation
        frames = [FeedFrame(port, self._encoded(fragment), fragment.n) for fragment in map(self._fragment, leg.batch)]
        if leg.polling:
            request = fragmentation.FragSessionStatusReq(frag_index=FRAG_INDEX, participants=True)
            frames.append(FeedFrame(port, self._encoded(request), None))
        leg.in_flight = True
        return Feed(node.dev_eui, tuple(frames), now + _EXPIRES_S + self._served_s(node, len(frames))), None

    def _hand_out(self, node: SessionNode, leg: _Leg, now: float) -> bool:
        """Give the node its next counters; False: there are none to give now."""
        counters, cohort = self._counters, self._cohort
        if not leg.left and not self._size(node, leg, now):
            return False
        count = min(leg.left, self._settings.unicast_batch)
        first = counters.next
        if count:
            counters.reserve(first, count, now=count)
            counters.next = first + count
            cohort.data_started = True
        leg.batch = tuple(range(first, first + count))
        leg.left -= count
        leg.polling = leg.left == 0
        leg.poll += leg.polling
        return True

    def _size(self, node: SessionNode, leg: _Leg, now: float) -> bool:
        """How many until the node is asked again: a stretch of the plain ones, then what it needs."""
        counters, cohort, every = self._counters, self._cohort, self._settings.poll_fragments
        each = node.profile.confirm_each and cohort.unicast and counters.highest <= cohort.nb_frag
        if each and counters.highest:
            if node.answered_poll < 0:
                return True  # as after a crash: it is asked first
            counters.back_to(min(counters.next, node.block.last_seen + 1))
        if not counters.coding:
            plain_left = cohort.nb_frag - counters.next + 1
            leg.left = 1 if each else plain_left if plain_left <= every + every // 4 else every
        elif counters.used_up:
            self._out.again(node, now, "lost", "every coded counter was sent")
            return False
        elif node.answered_poll >= 0:  # else, as after a crash, it is asked first
            need = node.block.need(counters.next - 1)
            leg.left = min(need, self._settings.round_most, N_MAX - counters.next + 1)
        return True

    def _fragment(self, n: int) -> fragmentation.DataFragment:
        return fragmentation.DataFragment(frag_index=FRAG_INDEX, n=n, data=self._block.fragment(n))

    def _encoded(self, command: fragmentation.DownlinkCommand) -> bytes:
        return fragmentation.encode(command, self._cohort.frag_version)

    def _served_s(self, node: SessionNode, frames: int) -> float:
        """How long a queue of so many frames may take: one an uplink in class A."""
        return _LOCK_S * frames if node.profile.always_on else node.profile.answer_timeout_s * max(1, frames)

    def _book(self, node: SessionNode, fragments: int, polls: int, now: float) -> None:
        if self._air is not None:
            airtime_s = self.airtime_s(node, fragments, polls)
            self.used_s += airtime_s
            self._air.book(airtime_s, now, always_on=node.profile.always_on)

    def _too_large(self, node: SessionNode, now: float) -> float | None:
        """Its data rate went down: a network server would drop the fragments silently."""
        if not self._cohort.unicast:
            node.unicast = False  # the group may still reach it
            self._out.move(node, Step.GROUP)  # the one that it knows may be gone
            return now
        if not node.oversize_since:
            node.oversize_since = now
            detail = f"fragments of {self._cohort.frag_size} bytes do not fit its data rate any more"
            self._out.event(node, Fact.STALLED, now, code="data_rate", detail=detail)
        until = node.oversize_since + self._settings.oversize_wait_s
        if now < until:
            return until
        self._out.again(node, now, "data_rate", f"fragments of {self._cohort.frag_size} bytes do not fit")
        return None
