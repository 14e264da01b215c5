"""When single nodes are asked, given up for, and told to install. PURE.

What is asked follows from the node alone (`questions`), what silence means too (`silence`). Only the nodes are looked at
whose time has come, or that were touched. Those that always listen are asked one at a time, the least often asked first: who
stays silent takes no turn of one that may answer.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from radios.backoff import growing_s
from radios.lorawan import reboot
from radios.lorawan.air import Turn
from radios.lorawan.cohort import BlockSource
from radios.lorawan.lookout import Lookout
from radios.lorawan.messages import Unicast
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.questions import INSTALL, VERSION, asks, question, session_start
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.silence import give_up
from radios.radio import Fact, Want

PROMPT_EXPIRES_S = 10.0
_BACK_OFF = 1.5
_SAME_UPLINK_S = 0.3  # after an uplink a request still goes down with it
_ANSWER_S = 5.0  # a class A node answers a request by an uplink of its own
_IMPATIENT = 12  # requests that are repeated with the first uplink that has no answer to them
_SILENT_INTERVALS = 3  # a node that did not speak for so many is asked by a request that waits in its queue
_PROMPTS_LOST = 6  # in a row without an answer: they are probably not lost, but late
_STEADY = 3  # requests before the back-off begins: a lost frame is no reason for it

_Entry = tuple[bool, float, int, int, str]


class Asking:
    """`highest_sent`: the counter."""

    def __init__(self, out: Outgoing, block: BlockSource, turn: Turn, highest_sent: Callable[[], int]) -> None:
        self._prompts_left = 0  # so many may go unanswered in a row; see `_in_time`
        self._out = out
        self._block = block
        self._turn = turn
        self._highest_sent = highest_sent
        self._lookout = Lookout(out.roster)
        self._line: list[_Entry] = []  # always on, and wait for their turn; see `_wait_for_turn`
        self._in_line: dict[str, _Entry] = {}  # an entry that is not here too is outdated
        self._expired = False
        self._for_uplink: set[str] = set()  # rest until they are heard
        self._window_start = 0.0  # as they know it
        self._woken = False  # more of them than were due
        self._asked: list[Unicast] = []
        self._turn_at: float | None = None

    @property
    def by_uplink(self) -> bool:
        """A class B window begins with a beacon, up to 128 s later: nothing is won by asking late."""
        return self._in_time and self._out.cohort.ping_periodicity is None

    @property
    def _in_time(self) -> bool:
        """The network server takes a request into the downlink that follows the uplink just heard, as far as answers tell."""
        return self._prompts_left > 0

    def answered_in_time(self) -> None:
        """An answer came so soon that its request went down with the uplink before it."""
        self._set_prompts_left(_PROMPTS_LOST)

    def heard(self, node: SessionNode) -> bool:
        """Any uplink of the node came; True: a request waits for it."""
        waited_for = node.dev_eui in self._for_uplink
        if waited_for:
            self._lookout.wake(node.dev_eui)
        return waited_for

    def settle(self, expires: float | None, now: float) -> None:
        """What the time alone means for single nodes. `expires`: of the order, Unix seconds."""
        expired = expires is not None and self._out.settings.wall.unix(now) >= expires
        if expired and not self._expired:
            for dev_eui in self._in_line:
                self._lookout.wake(dev_eui)
        self._expired = expired
        if (first := self._first_in_line()) is not None and self._turn.free_at(now) <= now:
            self._lookout.wake(first.dev_eui)
        for node in self._lookout.due(now):
            if node.step is Step.READY:
                self._begin_install(node, now)
            if node.asked and node.not_before <= now:
                give_up(self._out, node, self._highest_sent(), expires, now)
                if node.step is not Step.LEFT:
                    self._out.roster.touch(node)

    def ask(self, now: float) -> None:
        """ImageError when a question needs the image and it cannot be read; what was asked before that is not lost."""
        self._turn_at = None
        if self._window_start != self._out.cohort.window_start:
            self._window_start = self._out.cohort.window_start
            self._wake_those_for_uplink()
        self._woken = False
        due, place = deque(self._lookout.due(now)), self._out.roster.place
        while due:
            node = due.popleft()
            self._look(node, now)
            if self._woken:
                due = deque(later for later in self._lookout.due(now) if place(later) > place(node))
                self._woken = False
        while self._turn.free_at(now) <= now and (first := self._first_in_line()) is not None:
            self._lookout.wake(first.dev_eui)  # it rested in the line; an error must not lose it
            self._look(first, now, its_turn=True)
        if self._first_in_line() is not None:
            self._turn_at = self._turn.request_at(now)

    def taken(self) -> list[Unicast]:
        """What to send, once."""
        asked, self._asked = self._asked, []
        return asked

    def next(self) -> float | None:
        """When to call again, as of the last call."""
        first = self._lookout.next()
        if self._turn_at is None or first is None:
            return self._turn_at if first is None else first
        return min(self._turn_at, first)

    def _first_in_line(self) -> SessionNode | None:
        while self._line:
            entry = self._line[0]
            dev_eui = entry[-1]
            current = self._in_line.get(dev_eui) == entry
            if current and dev_eui in self._out.nodes:
                return self._out.nodes[dev_eui]
            heappop(self._line)
            if current:
                del self._in_line[dev_eui]
        return None

    def _begin_install(self, node: SessionNode, now: float) -> None:
        if node.want is not Want.INSTALL or node.unsure:
            return
        if not self._out.idle():
            return  # it has a commit of its own, which the daemon may refuse; the shell calls again at once
        if max(node.not_before, reboot.begins_at(node, self._out.settings.wall)) > now:
            return
        node.installing_since = now
        self._out.move(node, Step.INSTALLING)
        self._out.event(node, Fact.INSTALLING, now)
        if not node.profile.firmware_management:
            self._out.move(node, Step.CONFIRMING)  # nothing can tell it to start: it does by itself, or not at all

    def _look(self, node: SessionNode, now: float, *, its_turn: bool = False) -> None:
        """Ask the node if there is something to ask, or let it rest. Where neither is done it is looked at again next time."""
        self._in_line.pop(node.dev_eui, None)
        self._for_uplink.discard(node.dev_eui)
        if not asks(node):
            waits = node.step is Step.READY and node.want is Want.INSTALL
            begins_at = max(node.not_before, reboot.begins_at(node, self._out.settings.wall))
            if not waits or begins_at > now:
                self._lookout.rest(node, begins_at if waits else None)
            return
        if node.step is Step.WINDOW and not self._out.cohort.window_start:
            return
        reboot.come(self._out, node, now)
        until = max(node.not_before, reboot.silent_until(node, self._out.settings, now))
        if now < until:
            self._lookout.rest(node, until)
            return
        # A node that does not always listen is asked at its next uplink: until then the request waits in its queue.
        if node.profile.always_on and not its_turn:
            self._wait_for_turn(node)
            return
        heard_now = not node.profile.always_on and now <= node.last_heard + _SAME_UPLINK_S
        if not heard_now and (speaks_by := self._worth_waiting_for(node, now)) > now:
            self._for_uplink.add(node.dev_eui)
            self._lookout.rest(node, speaks_by)
        elif self._ask(node, now, heard_now=heard_now):
            self._lookout.rest(node, node.not_before)

    def _worth_waiting_for(self, node: SessionNode, now: float) -> float:
        """Until when a request for a window that has begun waits for the node's uplink: a start soon after it costs the cohort
        less time than the one that a request in the queue has to name, for the latest uplink that may take it."""
        if node.step is not Step.WINDOW or node.profile.always_on or not self.by_uplink:
            return now
        silent_at = node.last_heard + _SILENT_INTERVALS * node.profile.answer_timeout_s
        return silent_at if self._out.cohort.window_start < now + node.profile.answer_timeout_s else now

    def _set_prompts_left(self, count: int) -> None:
        before, self._prompts_left = self._in_time, count
        if self._in_time is not before:
            self._wake_those_for_uplink()

    def _wake_those_for_uplink(self) -> None:
        for dev_eui in self._for_uplink:
            self._lookout.wake(dev_eui)
        self._woken = True

    def _wait_for_turn(self, node: SessionNode) -> None:
        """Who was not asked yet goes first; then who answered last, because it will answer again sooner than a silent one."""
        entry = node.asked > 0, -node.answered_at, node.asked, self._out.roster.place(node), node.dev_eui
        self._in_line[node.dev_eui] = entry
        heappush(self._line, entry)
        if node.step is not Step.CONFIRMING or node.profile.firmware_management:
            self._lookout.rest(node)  # else `give_up` looks at the time

    def _ask(self, node: SessionNode, now: float, *, heard_now: bool) -> bool:
        """False: there is nothing that can be asked now."""
        settings, cohort = self._out.settings, self._out.cohort
        node.prompt = node.step is Step.WINDOW and heard_now and (self._in_time or node.asked % 2 == 0)
        wanted = question(node, cohort, self._out.mc_key, self._block, settings, now)
        if wanted is None:
            return False
        if node.prompt:
            self._set_prompts_left(max(0, self._prompts_left - 1))
        if node.profile.always_on:
            self._turn.take(now, settings.unicast_gap_s)
        if wanted.name != node.question:
            node.question, node.asked = wanted.name, 0
        if node.step is Step.WINDOW:
            node.window_before = node.window_from
            node.window_from = session_start(node, cohort, settings, now)
        most = max(settings.answer_timeout_most_s, node.profile.answer_timeout_s)
        wait = growing_s(node.profile.answer_timeout_s, _BACK_OFF, node.asked - _STEADY, most)
        node.asked += 1
        node.asked_at, node.not_before = now, now + wait
        if wanted.name == INSTALL:
            reboot.sent(node, settings, now)
            self._out.changed(node)
        node.version_requests += wanted.name == VERSION
        node.chances = int(heard_now)
        if node.asked > settings.stalled_after and not node.stalled and node.step is not Step.RUNNING:
            node.stalled = True
            self._out.event(node, Fact.STALLED, now, code="silent", detail=f"no answer to {wanted.name}")
        expires = now + PROMPT_EXPIRES_S if node.prompt else node.not_before
        self._asked.append(Unicast(node.dev_eui, wanted.port, wanted.data, expires, wanted.name))
        return True


def asked_in_vain(node: SessionNode, now: float) -> bool:
    """Class A: an uplink without the answer, after one that the request went down with, means that one of them was lost."""
    if node.profile.always_on or not node.asked or now <= node.asked_at + _ANSWER_S:
        return False
    node.chances += 1
    if node.chances < 2 or node.asked >= _IMPATIENT:
        return False
    node.not_before = min(node.not_before, now)  # it goes down with this very uplink
    return True
