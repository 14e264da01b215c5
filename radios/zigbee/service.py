"""All OTA sessions of one network: orders and directives in, journal and image store beside, frames out.

Each session is worked by `kick`: what must be durable is committed first, then its frames go out; one timer serves all
sessions. Knows nodes by id and a way to send bytes, nothing of zigpy.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from radios.clock import Clock
from radios.errors import ContractError, FrameError, ImageError
from radios.radio import Fact, ImageStore, Journal, NodeDirective, NodeId, TransferEvent, TransferOrder, Want
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import FileId
from radios.zigbee.ota_image import MAX_HEADER_BYTES, parse_ota_header
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer
from radios.zigbee.session_core import Outgoing, Purpose
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage, Terms
from radios.zigbee.strangers import answer_stranger

_LOG = logging.getLogger(__name__)
_COMMIT_RETRY_S: Final = 2.0
_SHORTEST_TIMER_S: Final = 0.005
_NEVER: Final = float("inf")

Transmit = Callable[[NodeId, int, bytes], Awaitable[bool]]  # node, endpoint, frame -> acknowledged


class OtaService:
    """`transmit` sends a frame; `endpoint_of` says where a node's OTA client is. Runs while `run` does."""

    def __init__(
        self,
        pacer: Pacer,
        limits: SessionLimits,
        clock: Clock,
        transmit: Transmit,
        endpoint_of: Callable[[NodeId], int],
    ) -> None:
        self._pacer = pacer
        self._limits = limits
        self._clock = clock
        self._transmit = transmit
        self._endpoint_of = endpoint_of
        self._orders: dict[str, TransferOrder] = {}
        self._waiting: dict[tuple[NodeId, str], NodeDirective] = {}  # until `run` or their order has come
        self._sessions: dict[NodeId, OtaSession] = {}
        self._committing: set[OtaSession] = set()
        self._journal: Journal | None = None
        self._images: ImageStore | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._started_at = clock.now()
        self._armed = _NEVER
        self._rearmed = asyncio.Event()

    async def load(self, journal: Journal, images: ImageStore) -> None:
        """Find again what was journalled: before the radio is opened, so that no frame meets an empty memory."""
        self._journal, self._images = journal, images
        now = self._started_at = self._clock.now()
        for record in await journal.load():
            try:
                state = session_state(record)
            except FrameError as error:
                _LOG.error("Zigbee journal: %s; left out, the node goes on from its own offset", error)
                continue
            self._sessions[state.node] = self._session(state, now, reconciled=False)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Serve until cancelled; `tasks` owns what is spawned."""
        self._tasks = tasks
        try:
            self._apply_waiting()
            while True:
                await _guarded(self._timer())
                await self._clock.sleep_until(self._clock.now() + _COMMIT_RETRY_S)
        finally:
            self._tasks = self._journal = self._images = None

    # -- the daemon's side ---------------------------------------------------------------------------------------

    def put(self, order: TransferOrder) -> None:
        known = self._orders.get(order.transfer)
        if known is not None and known.image != order.image:
            raise ContractError(f"transfer {order.transfer!r}: its image cannot change")
        self._orders[order.transfer] = order
        for session in self._sessions.values():
            if session.transfer == order.transfer:
                session.terms = _terms(order)
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
        answer = answer_stranger(frame, now, self._started_at)
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

    def version_read(self, node: NodeId, version: int | None) -> bool:
        """The node's CurrentFileVersion, if it has one; False when no session cares for the node."""
        session = self._sessions.get(node)
        if session is None:
            return False
        if version is not None:
            session.version_read(version, self._clock.now())
            self._kick(session)
        return True

    def link_up(self) -> None:
        now = self._clock.now()
        for session in self._sessions.values():
            session.link_up(self._endpoint_of(session.node), now)
            self._kick(session)

    def spawn(self, work: Coroutine[Any, Any, object] | Awaitable[object]) -> None:
        """Run as a task of this radio; what it raises is our own mistake, is logged, and ends nothing else."""
        guarded = _guarded(work)
        try:
            if self._tasks is not None:
                self._tasks.create_task(guarded)
                return
        except RuntimeError:
            pass  # the group is shutting down
        guarded.close()
        if isinstance(work, Coroutine):
            work.close()

    # -- sessions ------------------------------------------------------------------------------------------------

    def _apply_waiting(self) -> None:
        if self._tasks is None:
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
                image = self._image(order)
            except (ImageError, FrameError) as error:
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
            session.terms = _terms(order)
        self._kick(session)
        return True

    def _image(self, order: TransferOrder) -> OtaImage:
        """The file's own header decides what nodes are answered. ImageError, FrameError when it is no OTA file."""
        images = self._images
        if images is None:
            raise ImageError("the radio does not run")
        header = parse_ota_header(images.read(order.image.digest, 0, min(MAX_HEADER_BYTES, order.image.size)))
        if header.total_size != order.image.size:
            raise FrameError(f"OTA file: header says {header.total_size} bytes, the file has {order.image.size}")
        if header.version != order.image.version:
            raise FrameError(f"OTA file: header says version {header.version:#x}, not {order.image.version:#x}")
        file = FileId(header.manufacturer, header.image_type, header.version)
        return OtaImage(order.image, file, header.min_hardware, header.max_hardware)

    def _session(self, state: SessionState, now: float, *, reconciled: bool) -> OtaSession:
        digest = state.image.ref.digest

        def read(offset: int, length: int) -> bytes:
            if self._images is None:
                raise ImageError("the radio does not run")
            return self._images.read(digest, offset, length)

        return OtaSession(state, read, self._pacer, self._limits, now, reconciled=reconciled)

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
        ok = await self._transmit(session.node, outgoing.endpoint, outgoing.frame)
        now = self._clock.now()
        if outgoing.purpose is Purpose.BLOCK:
            self._pacer.delivered(ok, now)
        session.delivered(outgoing, ok, now)
        if not ok:
            self._rearm(session)

    # -- time ----------------------------------------------------------------------------------------------------

    async def _timer(self) -> None:
        while True:
            now = self._clock.now()
            self._rearmed.clear()
            self._armed = _NEVER
            for session in list(self._sessions.values()):
                deadline = session.next_deadline()
                if deadline is not None and deadline <= now:
                    session.handle_timeout(now)
                    self._kick(session)
                self._rearm(session)
            self._rearmed.clear()
            await self._sleep(max(self._armed, now + _SHORTEST_TIMER_S))

    async def _sleep(self, until: float) -> None:
        """Until the time, or until an earlier deadline came up."""
        waits: set[asyncio.Task[object]] = {asyncio.create_task(self._rearmed.wait())}
        if until != _NEVER:
            waits.add(asyncio.create_task(self._clock.sleep_until(until)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _rearm(self, session: OtaSession) -> None:
        deadline = session.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._armed = deadline
            self._rearmed.set()


async def _guarded(work: Awaitable[object]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001  # the top of every task of the radio
        _LOG.exception("Zigbee radio: a task failed")


def _terms(order: TransferOrder) -> Terms:
    return Terms(order.priority, order.air_share, order.expires.timestamp())
