"""What a session has decided and not yet handed to its shell: changed records, events, actions. PURE.

It also holds the few ways in which a node's state changes together with an event, so that no step is taken unreported.
"""

from collections.abc import Callable, Sequence

from radios.lorawan.cohort import Cohort, SessionSettings
from radios.lorawan.journal_codec import cohort_record, deleted, key_record, node_record
from radios.lorawan.keys import Key
from radios.lorawan.messages import Action, Commit, Observed, Progress, Release
from radios.lorawan.roster import Roster
from radios.lorawan.session_node import SessionNode, Step
from radios.radio import Fact, NodeId, Record, TransferEvent

Remember = Callable[[Release | Observed], Sequence[Record]]
"""The records that change by what a session found out about a node; asked again when a commit failed."""


class Outgoing:
    """The nodes of a session, and everything about them that is not journalled or done yet."""

    def __init__(
        self, cohort: Cohort, mc_key: Key, settings: SessionSettings, *, new: bool, remember: Remember | None = None
    ) -> None:
        self._remember = remember or _nothing
        self.cohort = cohort
        self.mc_key = mc_key
        self.settings = settings
        self.roster = Roster()
        self._cohort_changed = new
        self._key_changed = new
        self._changed: dict[str, None] = {}
        self._moved: dict[str, None] = {}
        self._deleted: list[Record] = []
        self._events: list[TransferEvent] = []
        self._moves: list[TransferEvent] = []
        self._actions: list[Action] = []

    def cohort_changed(self, *, key: Key | None = None) -> None:
        self._cohort_changed = True
        if key is not None:
            self.mc_key, self._key_changed = key, True

    def replace_group(self, mc_addr: int, key: Key) -> None:
        """The network server's group is gone, and its frame counter with it: another one needs another address and key."""
        self.cohort.group_id = ""
        self.cohort.group_serial += 1
        self.cohort.mc_addr = mc_addr
        self.cohort_changed(key=key)

    @property
    def nodes(self) -> dict[str, SessionNode]:
        """Those of the roster, which alone adds and removes any."""
        return self.roster.nodes

    def changed(self, node: SessionNode) -> None:
        """The node's record is to be durable before the next action."""
        self._changed[node.dev_eui] = None
        self.roster.touch(node)

    def idle(self) -> bool:
        """Whether nothing waits to be made durable."""
        return not (self._changed or self._events or self._cohort_changed or self._key_changed or self._deleted)

    def act(self, action: Action) -> None:
        self._actions.append(action)

    def event(
        self,
        node: SessionNode,
        fact: Fact,
        now: float,
        *,
        version: int | None = None,
        code: str = "",
        detail: str = "",
    ) -> None:
        confirmed = min(node.block.confirmed * self.cohort.frag_size, self.cohort.size)
        event = TransferEvent(
            transfer=self.cohort.transfer,
            node=NodeId(f"lorawan:{node.dev_eui}"),
            generation=node.generation,
            fact=fact,
            at=now,
            confirmed=confirmed if fact in (Fact.PROGRESS, Fact.COMPLETE, Fact.READY) else None,
            version=version,
            code=code,
            detail=detail,
        )
        if fact in (Fact.PROGRESS, Fact.STALLED):
            self._moves.append(event)
            self._moved[node.dev_eui] = None
        else:
            self._events.append(event)

    def move(self, node: SessionNode, step: Step) -> None:
        node.move(step)
        self.changed(node)

    def ask_afresh(self, node: SessionNode) -> None:
        """The next question to the node is a new one, now."""
        node.ask_afresh()
        self.roster.touch(node)

    def ask_alone(self, node: SessionNode) -> None:
        """The node is asked for its status by itself, now."""
        node.ask_afresh()
        node.poll_alone = True
        self.roster.touch(node)

    def fail(self, node: SessionNode, now: float, code: str, detail: str = "") -> None:
        """The radio stops trying; the node keeps its old image."""
        node.code = code
        self.move(node, Step.FAILED)
        self.event(node, Fact.FAILED, now, code=code, detail=detail)

    def again(self, node: SessionNode, now: float, code: str, detail: str, *, limit: int | None = None) -> None:
        """The node needs a deliberate new session, as long as it may still have one. `limit`: see `Release`."""
        if node.attempt >= self.settings.attempts_most:
            if limit is not None:
                self.act(Observed(node.dev_eui, limit))
            self.fail(node, now, code, f"{detail}, in attempt {node.attempt}")
        else:
            self.leave(node, Release(node.dev_eui, again=True, reason=code, detail=detail, limit=limit))

    def leave(self, node: SessionNode, release: Release) -> None:
        """Take the node and its record out of the session."""
        node.move(Step.LEFT)
        self.roster.remove(node)
        self._changed.pop(node.dev_eui, None)
        self._moved.pop(node.dev_eui, None)
        self._deleted.append(deleted(node_record(self.cohort.cohort, node)))
        self.act(release)

    def close(self) -> None:
        """Nobody is left: forget the cohort too."""
        cohort = self.cohort
        self._deleted += [deleted(cohort_record(cohort)), deleted(key_record(cohort.cohort, self.mc_key))]
        self._cohort_changed = self._key_changed = False

    def flush(self) -> list[Action]:
        """Everything, what must be durable first."""
        if self.idle() and not (self._moves or self._actions):
            return []
        cohort = self.cohort
        records = [node_record(cohort.cohort, self.nodes[dev_eui]) for dev_eui in self._changed]
        if self._cohort_changed:
            records.insert(0, cohort_record(cohort))
        if self._key_changed:
            records.insert(0, key_record(cohort.cohort, self.mc_key))
        records += self._deleted
        for action in self._actions:
            if isinstance(action, Release | Observed):
                records += self._remember(action)
        actions: list[Action] = []
        if records or self._events:
            actions.append(Commit(tuple(records), tuple(self._events)))
        if self._moves:
            soft = [node_record(cohort.cohort, self.nodes[dev_eui]) for dev_eui in self._moved]
            actions.append(Progress(tuple(soft), tuple(self._moves)))
        actions += self._actions
        self._cohort_changed = self._key_changed = False
        for pending in (self._changed, self._moved, self._deleted, self._events, self._moves, self._actions):
            pending.clear()
        return actions


def _nothing(_lesson: Release | Observed) -> Sequence[Record]:
    return ()
