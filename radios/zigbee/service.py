"""All OTA sessions of one network: orders and directives in, journal and image store beside, frames out.

Each session is worked by `kick`: what must be durable is committed first, then its frames go out; one timer serves all
sessions. Knows nodes by id and a way to send bytes, nothing of zigpy.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from radios.clock import Clock
from radios.errors import ContractError, FrameError, ImageError, Unsupported
from radios.radio import Fact, ImageStore, Journal, NodeDirective, NodeId, TransferEvent, TransferOrder, Want
from radios.tasks import RadioTasks, guarded
from radios.zigbee.broadcast import Broadcasts
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.node_config import is_config
from radios.zigbee.ota_commands import FileId
from radios.zigbee.ota_frames import reply
from radios.zigbee.ota_image import image_of
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer
from radios.zigbee.quirks import QuirkTable
from radios.zigbee.reconcile import ClientAttributes
from radios.zigbee.session_output import Outgoing, Purpose
from radios.zigbee.session_state import SessionLimits, SessionState, Stage, terms_of
from radios.zigbee.sleep import Alarm
from radios.zigbee.strangers import answer_stranger
from radios.zigbee.transmit import Transmit

_LOG = logging.getLogger(__name__)
_COMMIT_RETRY_S: Final = 2.0
_BEFORE_INSTALL: Final = (Stage.OFFERED, Stage.DOWNLOADING, Stage.READY)


class OtaService:
    """`transmit` sends a frame; `endpoint_of` says where a node's OTA client is. Runs while `run` does."""

    def __init__(
        self,
        pacer: Pacer,
        limits: SessionLimits,
        clock: Clock,
        transmit: Transmit,
        endpoint_of: Callable[[NodeId], int],
        quirks: QuirkTable | None = None,
        model_of: Callable[[NodeId], str | None] = lambda _: None,
    ) -> None:
        self._pacer = pacer
        self._limits = limits
        self._broadcasts = Broadcasts(0)
        self._broadcast: Callable[[bytes], Coroutine[Any, Any, bool]] | None = None
        self._prepare: Callable[[NodeId], bool] = lambda _: True
        self._sleeps: Callable[[NodeId], bool] = lambda _: False
        self._clock = clock
        self._transmit = transmit
        self._endpoint_of = endpoint_of
        self._quirks = quirks or QuirkTable()
        self._model_of = model_of
        self._orders: dict[str, TransferOrder] = {}
        self._waiting: dict[tuple[NodeId, str], NodeDirective] = {}  # until `run` or their order has come
        self._sessions: dict[NodeId, OtaSession] = {}
        self._committing: set[OtaSession] = set()
        self._apply_at: float | None = None  # when those are tried again that wait for their image
        self._revisions: dict[NodeId, int] = {}  # of the OTA cluster on the nodes
        self._journal: Journal | None = None
        self._images: ImageStore | None = None
        self._tasks = RadioTasks()
        self.spawn = self._tasks.spawn  # of the whole radio
        self._started_at = clock.now()
        self._alarm = Alarm(clock)
        clock.wall.watch(self._clock_stepped)

    def broadcast_by(self, at_least: int, broadcast: Callable[[bytes], Coroutine[Any, Any, bool]]) -> None:
        """Tell nodes of an image by broadcast when so many are silent."""
        self._broadcasts, self._broadcast = Broadcasts(at_least), broadcast

    def sleepers_by(self, sleeps: Callable[[NodeId], bool]) -> None:
        """Who does not listen when idle, as far as it is known."""
        self._sleeps = sleeps

    def prepare_by(self, prepare: Callable[[NodeId], bool]) -> None:
        """Ask before each update; False: an install waits until `prepared` (it does not wait long)."""
        self._prepare = prepare

    def prepared(self, node: NodeId) -> None:
        session = self._sessions.get(node)
        if session is not None:
            session.prepared(self._clock.now())
            self._kick(session)

    async def load(self, journal: Journal, images: ImageStore) -> None:
        """Find again what was journalled: before the radio is opened, so that no frame meets an empty memory."""
        self._journal, self._images = journal, images
        now = self._started_at = self._clock.now()
        for record in await journal.load():
            if record.scope != "node" or is_config(record):
                continue  # of the network, or what nodes were configured with
            try:
                state = session_state(record)
            except FrameError as error:
                _LOG.error("Zigbee journal: %s; left out, the node goes on from its own offset", error)
                continue
            self._sessions[state.node] = self._session(state, now, reconciled=False)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Serve until cancelled; `tasks` owns what is spawned."""
        self._tasks.begin(tasks)
        try:
            self._apply_waiting()
            while True:
                await guarded(self._timer())
                await self._clock.sleep_until(self._clock.now() + _COMMIT_RETRY_S)
        finally:
            self._tasks.end()
            self._journal = self._images = None

    # -- the daemon's side ---------------------------------------------------------------------------------------

    def put(self, order: TransferOrder) -> None:
        known = self._orders.get(order.transfer)
        if known is not None and known.image != order.image:
            raise ContractError(f"transfer {order.transfer!r}: its image cannot change")
        self._orders[order.transfer] = order
        for session in self._sessions.values():
            if session.transfer == order.transfer:
                session.reterm(terms_of(order), self._clock.now())
                self._rearm(session)
        self._apply_waiting()

    def direct(self, directive: NodeDirective) -> None:
        key = (directive.node, directive.transfer)
        waiting = self._waiting.get(key)
        if waiting is None or waiting.generation < directive.generation:
            self._waiting[key] = directive
        self._apply_waiting()

    def stages(self) -> dict[str, int]:
        """How many sessions are in which stage."""
        return dict(sorted(Counter(session.stage.value for session in self._sessions.values()).items()))

    # -- the radio's side ----------------------------------------------------------------------------------------

    def receive(self, node: NodeId, endpoint: int, frame: bytes) -> None:
        """A cluster-specific frame from a node's OTA client."""
        now = self._clock.now()
        session = self._sessions.get(node)
        if session is not None:
            session.receive(frame, endpoint, now)
            self._kick(session)
            return

        def limits_for(manufacturer: int, image_type: int) -> SessionLimits:
            return self._quirks.limits(self._limits, manufacturer, image_type, self._model_of(node))

        answer = answer_stranger(frame, now, self._started_at, limits_for)
        if answer is not None:
            self.spawn(self._transmit(node, endpoint, answer))

    def refused(self, node: NodeId, command: int, status: int) -> None:
        session = self._sessions.get(node)
        if session is not None and status != 0:
            session.refused(command, status, self._clock.now())
            self._kick(session)

    def heard(self, node: NodeId) -> None:
        session = self._sessions.get(node)
        if session is not None:
            session.heard(self._clock.now())
            self._rearm(session)

    def rebooted(self, node: NodeId) -> None:
        session = self._sessions.get(node)
        if session is not None:
            session.rebooted(self._clock.now())
            self._rearm(session)

    def client_described(self, node: NodeId, said: ClientAttributes, asked_at: float) -> bool:
        """The attributes of a node's OTA client, asked for at `asked_at`; False when no session cares for the node."""
        session = self._sessions.get(node)
        if said.cluster_revision is not None:
            self._revisions[node] = said.cluster_revision
        if session is None:
            return False
        session.client_described(said, asked_at, self._clock.now())
        self._kick(session)
        return True

    def awake_s(self, node: NodeId) -> float | None:
        """How long a sleepy node should poll fast for what is wanted of it; None: nothing is."""
        session = self._sessions.get(node)
        return None if session is None else session.awake_s(self._clock.now())

    def concerns(self, node: NodeId, manufacturer: int, image_type: int) -> bool:
        """Whether what a node says of such an image may be said of the node: not of another one beside that which it gets."""
        session = self._sessions.get(node)
        return session is None or session.image.file.covers(manufacturer, image_type)

    def described(self, node: NodeId) -> None:
        """The node's model is known now, or anew."""
        session = self._sessions.get(node)
        if session is not None:
            session.limits, session.sleeps = self._limits_of(node, session.file), self._sleeps(node)
            session.located(self._endpoint_of(node))

    def link_up(self) -> None:
        now = self._clock.now()
        for session in self._sessions.values():
            session.limits = self._limits_of(session.node, session.file)
            session.sleeps = self._sleeps(session.node)
            session.link_up(self._endpoint_of(session.node), now)
            self._kick(session)

    # -- sessions ------------------------------------------------------------------------------------------------

    def _apply_waiting(self) -> None:
        if not self._tasks.open:
            return
        for key, directive in list(self._waiting.items()):
            if self._apply(directive):
                del self._waiting[key]

    def _apply(self, directive: NodeDirective) -> bool:
        """Give a directive to its session; False when its order is still missing."""
        now = self._clock.now()
        order = self._orders.get(directive.transfer)
        session = self._sessions.get(directive.node)
        if session is not None and session.transfer == directive.transfer:
            session.direct(directive, now)
        elif directive.want is Want.DROP:
            self.spawn(self._report(directive, Fact.DROPPED))
            return True
        elif order is None:
            return False
        else:
            try:
                image = image_of(order, directive.node, self._images)
            except Unsupported as error:
                self.spawn(self._report(directive, Fact.FAILED, "wrong_node", str(error)))
                return True
            except ImageError as error:
                # What has rotted in the cache is fetched again: no reason to give up every node that begins meanwhile.
                _LOG.warning("%s waits for its image: %s", directive.node, error)
                self._apply_at = now + self._limits.image_unavailable_wait_s
                self._alarm.set(self._apply_at)
                return False
            except FrameError as error:
                self.spawn(self._report(directive, Fact.FAILED, "invalid_image", str(error)))
                return True
            state = SessionState(
                directive.node,
                directive.transfer,
                directive.generation,
                directive.want,
                directive.install_at.timestamp() if directive.install_at else None,
                image,
                Stage.OFFERED,
                endpoint=self._endpoint_of(directive.node),
            )
            if session is not None:
                self._pacer.release(directive.node)
            session = self._sessions[directive.node] = self._session(state, now, reconciled=True)
        if order is not None:
            session.reterm(terms_of(order), now)
        self._kick(session)
        return True

    def _session(self, state: SessionState, now: float, *, reconciled: bool) -> OtaSession:
        digest = state.image.ref.digest

        def read(offset: int, length: int) -> bytes:
            if self._images is None:
                raise ImageError("the radio does not run")
            return self._images.read(digest, offset, length)

        limits = self._limits_of(state.node, state.image.file)
        session = OtaSession(state, read, self._pacer, limits, now, reconciled=reconciled, wall=self._clock.wall)
        session.cluster_revision = self._revisions.get(state.node)
        session.sleeps = self._sleeps(state.node)
        if state.stage in _BEFORE_INSTALL and not self._prepare(state.node):
            session.unprepared()
        return session

    def _limits_of(self, node: NodeId, file: FileId) -> SessionLimits:
        limits = self._quirks.limits(self._limits, file.manufacturer, file.image_type, self._model_of(node))
        return limits if self._limits.page_requests else replace(limits, page_requests=False)

    def _kick(self, session: OtaSession) -> None:
        """Commit what must be, then send. Returns at once; at most one commit per session is under way."""
        if session in self._committing:
            return
        if session.pending_commit() is not None:
            self._committing.add(session)
            self.spawn(self._commit(session))
            return
        for outgoing in session.to_send(self._clock.now()):
            self.spawn(self._send(session, outgoing))
        if self._pacer.wishing:
            self._wake_invited()
        event = session.progress()
        if event is not None and self._journal is not None:
            self._journal.progress([event], [session_record(session.state())])
        self._rearm(session)

    async def _commit(self, session: OtaSession) -> None:
        try:
            while (commit := session.pending_commit()) is not None and self._journal is not None:
                if self._sessions.get(session.node) is not session:
                    return  # another transfer took its place, and its record
                try:
                    await self._journal.commit([session_record(commit.state)], commit.events)
                except Exception as error:  # noqa: BLE001  # whatever the journal raises: not durable, so not done
                    _LOG.error("Zigbee journal: %s not committed, nothing sent: %r", session.node, error)
                    if session.refuse_install(self._clock.now()):
                        continue
                    await self._clock.sleep_until(self._clock.now() + _COMMIT_RETRY_S)
                    continue
                session.committed(commit)
        finally:
            self._committing.discard(session)
        self._kick(session)

    async def _report(self, directive: NodeDirective, fact: Fact, code: str = "", detail: str = "") -> None:
        """An event of a node that has no session."""
        now = self._clock.now()
        node, transfer = directive.node, directive.transfer
        event = TransferEvent(transfer, node, directive.generation, fact, now, code=code, detail=detail)
        while self._journal is not None:
            try:
                await self._journal.commit([], [event])
            except Exception:  # noqa: BLE001  # as in _commit
                _LOG.exception("Zigbee journal: %s for %s not committed", fact, node)
                await self._clock.sleep_until(self._clock.now() + _COMMIT_RETRY_S)
            else:
                return

    async def _send(self, session: OtaSession, outgoing: Outgoing) -> None:
        handed_over = self._clock.now()
        acknowledged = outgoing.acknowledged
        ok = await self._transmit(session.node, outgoing.endpoint, outgoing.frame, acknowledged=acknowledged)
        now = self._clock.now()
        if outgoing.purpose is Purpose.BLOCK and (acknowledged or not ok):
            self._pacer.delivered(session.node, ok, now - handed_over, now)
        elif outgoing.purpose is Purpose.PAGE and ok:
            self._pacer.taken(now)
        session.delivered(outgoing, ok, now)
        if not ok or outgoing.purpose is Purpose.PAGE:
            self._rearm(session)

    def _clock_stepped(self, _by_s: float) -> None:
        for session in list(self._sessions.values()):
            session.clock_stepped(self._clock.now())
            self._kick(session)

    # -- time ----------------------------------------------------------------------------------------------------

    async def _timer(self) -> None:
        while True:
            now = self._clock.now()
            self._alarm.clear()
            for session in list(self._sessions.values()):
                deadline = session.next_deadline()
                if deadline is not None and deadline <= now:
                    session.handle_timeout(now)
                    self._kick(session)
                self._rearm(session)
            if self._apply_at is not None and self._apply_at <= now:
                self._apply_at = None
                self._apply_waiting()
            self._alarm.set(self._apply_at)
            self._wake_invited()
            self._broadcast_if_due(now)
            await self._alarm.wait(now)

    def _wake_invited(self) -> None:
        """Nodes that waited for a place, and have one now, are offered their image."""
        now = self._clock.now()
        for node in self._pacer.to_wake(now):
            session = self._sessions.get(NodeId(node))
            if session is None:
                self._pacer.release(node)
                continue
            session.invited(now)
            self._rearm(session)
        self._alarm.set(self._pacer.next_deadline())

    def _broadcast_if_due(self, now: float) -> None:
        if self._broadcast is None or not self._broadcasts.is_due_to_look(now):
            return
        silent = (session.file for session in self._sessions.values() if session.is_silent)
        notify = self._broadcasts.due(silent, self._pacer.places, now)
        if notify is not None:
            self.spawn(self._broadcast(reply(notify, 0)))

    def _rearm(self, session: OtaSession) -> None:
        self._alarm.set(session.next_deadline())
