"""The nodes of a session, found by what can be said of them, so that no event needs a look at all of them. PURE.

Whoever changes a node touches it afterwards: `Outgoing` does for every step, and the session at each of its inputs. What a
touched node is now is read when the roster is next asked. After any inputs the roster is what it would be if it were
made afresh from its nodes, which the tests hold it to.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from radios.lorawan.greatest import Greatest
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.traits import Mark, Trait, marks

_TIMED: tuple[Mark, ...] = (Trait.NEEDS_DATA, Step.WINDOW)


class Roster:
    """All lists are in the order in which the nodes joined."""

    def __init__(self, nodes: Iterable[SessionNode] = ()) -> None:
        self.nodes: dict[str, SessionNode] = {}
        self._places: dict[str, int] = {}
        self._joined = 0
        self._marks: dict[str, frozenset[Mark]] = {}
        self._kinds: dict[frozenset[Mark], frozenset[Mark]] = {}  # each set once: it takes most of what a node takes
        self._members: defaultdict[Mark, dict[int, SessionNode]] = defaultdict(dict)
        self._slowest = {mark: Greatest() for mark in _TIMED}
        self._watchers: list[dict[str, None]] = []
        self._unread = self.watch()
        for node in nodes:
            self.add(node)

    def add(self, node: SessionNode) -> None:
        self.nodes[node.dev_eui] = node
        self._places[node.dev_eui] = self._joined
        self._joined += 1
        self.touch(node)

    def remove(self, node: SessionNode) -> None:
        self._read(node.dev_eui, frozenset())
        del self.nodes[node.dev_eui], self._places[node.dev_eui]
        self.touch(node)

    def touch(self, node: SessionNode) -> None:
        """The node has changed, or something that decides what is done about it."""
        for watcher in self._watchers:
            watcher[node.dev_eui] = None

    def watch(self) -> dict[str, None]:
        """The DevEUIs touched from now on, those that left too, for one reader who takes out what it has dealt with."""
        watcher = dict.fromkeys(self.nodes)
        self._watchers.append(watcher)
        return watcher

    def of(self, mark: Mark) -> list[SessionNode]:
        self._catch_up()
        members = self._members[mark]
        return [members[place] for place in sorted(members)]

    def count(self, mark: Mark) -> int:
        if self._unread:
            self._catch_up()
        return len(self._members[mark])

    def slowest_s(self, mark: Mark) -> float:
        """Until the slowest node that needs data, or that is asked for its window, has answered."""
        self._catch_up()
        return self._slowest[mark].most(0.0)

    def ordered(self, dev_euis: Collection[str]) -> list[SessionNode]:
        """Those of them that are here."""
        if not dev_euis:
            return []
        here = sorted((self._places[dev_eui], dev_eui) for dev_eui in dev_euis if dev_eui in self.nodes)
        return [self.nodes[dev_eui] for _, dev_eui in here]

    def place(self, node: SessionNode) -> int:
        return self._places[node.dev_eui]

    def _catch_up(self) -> None:
        if not self._unread:
            return
        for dev_eui in self._unread:
            if (node := self.nodes.get(dev_eui)) is not None:
                self._read(dev_eui, marks(node))
        self._unread.clear()

    def _read(self, dev_eui: str, now: frozenset[Mark]) -> None:
        before = self._marks.get(dev_eui, frozenset())
        if now == before:
            return
        node, place = self.nodes[dev_eui], self._places[dev_eui]
        for mark in before - now:
            del self._members[mark][place]
            if mark in self._slowest:
                self._slowest[mark].drop(dev_eui)
        for mark in now - before:
            self._members[mark][place] = node
            if mark in self._slowest:
                self._slowest[mark].put(dev_eui, node.profile.answer_timeout_s)
        if now:
            self._marks[dev_eui] = self._kinds.setdefault(now, now)
        else:
            self._marks.pop(dev_eui, None)
