"""When a cohort departs, and when its windows, of class C or B, are open. PURE.

A cohort departs when all its nodes are set up, or when the first ones have waited long enough; who is late is released for
another cohort. A window that ends before all is done is opened again for those that still need data.
"""

from radios.lorawan.cohort import beacon_at, window_length_s
from radios.lorawan.feeds import Feeds
from radios.lorawan.messages import Release
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.questions import PROMPT_S
from radios.lorawan.rounds import Rounds
from radios.lorawan.session_node import BEFORE_DATA, Step
from radios.lorawan.traits import Trait, active

_ASKED_BEFORE = 3  # times before a window starts
_ASKED_AFTER = 2  # times that a node may still be asked for a window that has begun
_FEW_UNREADY = 0.25  # of the nodes: the others are asked for their window while these are being set up


class Windows:
    def __init__(self, out: Outgoing, rounds: Rounds, feeds: Feeds) -> None:
        self._out = out
        self._roster = out.roster
        self._rounds = rounds
        self._feeds = feeds
        self._first_set_up: float | None = None
        self._departed_at: float | None = None
        self._expecting = self._prompt = False
        self._wake: float | None = None

    def step(self, now: float, *, expecting: bool, prompt: bool) -> float | None:
        """What the time means for the windows; when to ask again. `prompt`: a request is known to go down with an uplink."""
        self._wake = None
        self._prompt = prompt
        self._expecting = expecting
        if not self._out.cohort.closed:
            self._depart(now)
        elif self._out.cohort.unicast:
            return None
        elif not self._out.cohort.data_started and not self._missed(now):
            self._first_window(now)
        else:
            self._reopen(now)
        return self._wake

    def _missed(self, now: float) -> bool:
        """The first window went by without a fragment, as while the daemon or the network server was away."""
        over = now >= self._out.cohort.window_end - self._out.settings.window_guard_s
        return over and self._roster.count(Step.RECEIVING) > 0

    def _depart(self, now: float) -> None:
        """Close the cohort when all are set up, or when those that are have waited long enough for the others."""
        if not self._roster.count(Trait.SET_UP):
            self._first_set_up = None
            if not self._out.nodes and self._out.cohort.reserved == 0:
                self._out.cohort.closed = True  # all were dropped: nothing to depart with
            return
        if self._first_set_up is None:
            self._first_set_up = now
        deadline = self._first_set_up + max(self._out.settings.gather_s, self._lead_s())
        unready = self._roster.count(Trait.UNREADY)
        if now < deadline and (unready or self._expecting) and not self._out.cohort.unicast:
            self._wake_at(deadline)
            few = unready <= _FEW_UNREADY * self._roster.count(Trait.ACTIVE) and not self._expecting
            if few or self._out.cohort.window_start:
                self._invite(now)
            return
        self._out.cohort.closed = True
        self._out.cohort_changed()
        self._departed_at = now
        for node in list(self._out.nodes.values()):
            if node.step in BEFORE_DATA and not (active(node) and node.step is Step.SET_UP):
                self._out.leave(node, Release(node.dev_eui, again=True, reason="late"))
        if not self._alone():
            self._invite(now)

    def _invite(self, now: float) -> None:
        """Ask for the first window; who is asked while the last few are still being set up is open by the time they are."""
        cohort = self._out.cohort
        if not cohort.window_start or now + self._rounds.planned_s() > cohort.window_end:
            waits_s = 0.0 if cohort.closed else self._lead_s()
            self._open_soon(now, waits_s)
            for node in self._roster.of(Trait.SET_UP):
                if node.step is Step.RECEIVING:
                    self._out.move(node, Step.WINDOW)
                elif node.step is Step.WINDOW:
                    self._out.ask_afresh(node)
        for node in self._roster.of(Trait.SET_UP if cohort.closed else Trait.LISTENS_LATER):
            if node.step is Step.SET_UP:
                self._out.move(node, Step.WINDOW)

    def _alone(self) -> bool:
        """Nobody but one node, which needs no window, or takes less air without one: its cohort becomes a unicast one."""
        cohort = self._out.cohort
        if len(self._out.nodes) > 1:
            return False
        node = self._roster.of(Trait.SET_UP)[0]
        if node.step is not Step.SET_UP:
            return False
        if not cohort.unicast and not self._feeds.worth({node.dev_eui: cohort.nb_frag}, windows=1):
            return False
        cohort.unicast = node.unicast = True
        self._out.cohort_changed()
        self._out.move(node, Step.RECEIVING)
        return True

    def _first_window(self, now: float) -> None:
        """Data waits until all have agreed. A cohort of its own costs a late node all fragments; waiting costs only time."""
        if not self._roster.count(Step.GROUP) + self._roster.count(Step.WINDOW):
            return
        if self._departed_at is None:
            self._departed_at = now
        waits_s = max(self._out.settings.gather_s, self._lead_s())
        last = max(self._departed_at, self._out.cohort.window_start) + waits_s
        if now < last:
            self._wake_at(last)
        elif self._roster.count(Step.RECEIVING):
            for node in list(self._out.nodes.values()):
                if node.step in (Step.GROUP, Step.WINDOW):
                    self._out.leave(node, Release(node.dev_eui, again=True, reason="late"))
        else:
            self._departed_at = now
            self._open_soon(now)

    def _reopen(self, now: float) -> None:
        """The window ends before all is done: the same nodes are asked to open another one."""
        end = self._out.cohort.window_end - self._out.settings.window_guard_s
        roster = self._roster
        if not roster.count(Trait.DEMAND) + roster.count(Step.WINDOW):
            return
        if now < end:
            self._wake_at(end)
            return
        if roster.count(Trait.ASKED_ALONE):
            return  # it needs no window to tell whether it still has its session; asking for one would silence it
        self._rescue()
        for node in roster.of(Trait.DEMAND):
            # One that cannot tell is asked for its image, which needs no window.
            if not node.suspect and self._rounds.may_be_complete(node):
                node.suspect = True
                roster.touch(node)
        demand = [node for node in roster.of(Trait.DEMAND) if not node.suspect]
        if not demand and not roster.count(Step.WINDOW):
            return
        # Who does not hear the first request starts one timeout later: there has to be data for it then too.
        self._open_soon(now)
        for node in demand:
            self._out.move(node, Step.WINDOW)

    def _rescue(self) -> None:
        """A whole window has passed without a word of these nodes about it: the queue may reach them where it did not."""
        if not self._rounds.coding or not self._out.cohort.window_start:
            return
        for node in self._roster.of(Step.WINDOW):
            if self._feeds.possible(node):
                node.unicast = True
                self._out.move(node, Step.RECEIVING)

    def _lead_s(self) -> float:
        """Time for the slowest node (class A: by its uplinks) to be asked a few times."""
        return max(self._out.settings.lead_s, _ASKED_BEFORE * self._slowest_s())

    def _slowest_s(self) -> float:
        """Until the slowest node that needs data has answered."""
        return self._roster.slowest_s(Trait.NEEDS_DATA)

    def _open_soon(self, now: float, waits_s: float = 0.0) -> None:
        """Another window, with room for nodes that agree late, and for as long as it waits for others."""
        classes = {node.profile.always_on for node in self._roster.of(Trait.NEEDS_DATA)}
        lead_s = PROMPT_S if self._prompt and classes == {False} else self._lead_s() / _ASKED_BEFORE
        self._plan_window(now + lead_s, waits_s + _ASKED_AFTER * self._slowest_s())

    def _plan_window(self, start: float, room_s: float) -> None:
        """`room_s`: beside what the fragments take."""
        cohort = self._out.cohort
        cohort.window_start = start if cohort.ping_periodicity is None else beacon_at(start, self._out.settings.gps)
        planned = room_s + self._rounds.planned_s() + 2 * self._out.settings.window_guard_s
        cohort.window_end = cohort.window_start + window_length_s(cohort, planned)
        self._out.cohort_changed()

    def _wake_at(self, when: float) -> None:
        self._wake = when if self._wake is None else min(self._wake, when)
