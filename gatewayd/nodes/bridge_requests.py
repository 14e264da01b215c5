"""Takes requests to nodes from the broker, lets the radio do what is allowed, and answers each. SHELL.

Not responsible for the connection (bridge.py), nor for what the arguments mean (the radio). A request is a document of
bounded size, done once although QoS 1 may bring it twice, within its deadline, and few at a time per node and in all.
Nothing here can carry firmware, let nodes join or send them away: such names are none of a request's.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

import structlog

from gatewayd.cloud import messages
from gatewayd.cloud.failures import text_of
from gatewayd.errors import Refused
from gatewayd.nodes.bridge_messages import REQUEST_MAX_BYTES, NodeRequest, NodeResponse, id_of
from radios.radio import NODE_READS, NODE_WRITES, CommandResult, Json, NodeCommand, NodeId, Radio

Allowed = Literal["none", "read", "all"]

IN_FLIGHT_MOST = 16
PER_NODE_MOST = 4
REMEMBERED_MOST = 256
REMEMBERED_S = 600.0
REMEMBERED_MAX_BYTES = 2**20
DETAIL_MOST = 2000

log = structlog.get_logger()


class RequestDesk:
    """`answer` takes each response document. `run` owns the work and must run for requests to be done."""

    def __init__(self, radios: Mapping[str, Radio], allowed: Allowed, answer: Callable[[bytes], None]) -> None:
        self._radios = radios
        self._names = {"none": frozenset[str](), "read": NODE_READS, "all": NODE_READS | NODE_WRITES}[allowed]
        self._allowed = allowed
        self._answer = answer
        self._group: asyncio.TaskGroup | None = None
        self._in_flight: dict[str, str] = {}  # id -> whom it is for
        self._answers: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # id -> when, document
        self._remembered_bytes = 0
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled; requests that are under way then end unanswered, as their askers' deadlines tell them."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def take(self, raw: bytes, *, retained: bool = False) -> None:
        """A message on the topic of requests. Never raises."""
        if not raw:
            return  # a cleared topic
        try:
            request = messages.parse(NodeRequest, raw, "request", REQUEST_MAX_BYTES)
        except Refused as error:
            self._refuse(id_of(raw) if len(raw) <= REQUEST_MAX_BYTES else "", error.code, error.detail)
            return
        self._forget_old()
        if request.id in self._answers:
            self.outcomes["repeated"] += 1
            self._answer(self._answers[request.id][1])
        elif request.id in self._in_flight:
            self.outcomes["repeated"] += 1
        elif (refusal := self._refusal(request, retained=retained)) is not None:
            self._refuse(request.id, *refusal)
        elif self._group is None:
            self._refuse(request.id, "busy", "the gateway is stopping")
        else:
            self._in_flight[request.id] = request.target
            self._group.create_task(self._do(request), name="bridge-request")

    def _refusal(self, request: NodeRequest, *, retained: bool) -> tuple[str, str] | None:
        if retained:
            return "retained", "a retained request would be done again at every connection"
        if request.name not in self._names:
            return "forbidden", f"{request.name}: this gateway takes {self._allowed} requests ([bridge] requests)"
        if request.radio not in self._radios:
            return "unknown_radio", f"{request.target}: this gateway has no such radio with requests"
        if len(self._in_flight) >= IN_FLIGHT_MOST:
            return "busy", f"{len(self._in_flight)} requests are under way"
        same = sum(target == request.target for target in self._in_flight.values())
        return ("busy", f"{same} requests to {request.target} are under way") if same >= PER_NODE_MOST else None

    async def _do(self, request: NodeRequest) -> None:
        radio = self._radios[request.radio]
        node = None if request.node is None else NodeId(request.node)
        group = {} if request.group is None else {"group": request.group}
        command = NodeCommand(request.name, node, {**request.arguments, **group})
        try:
            try:
                async with asyncio.timeout(request.timeout_s):
                    result = await radio.manage(command)
                code = "" if result.ok else "failed"
            except TimeoutError:
                code, result = "timeout", CommandResult(False, f"no result within {request.timeout_s:g} s")
            except Exception as error:  # one request must not end the bridge
                log.error("node_request_failed", code="bug", target=request.target, name=request.name, exc_info=error)
                code, result = "failed", CommandResult(False, text_of(error))
        finally:
            del self._in_flight[request.id]
        document = self._document(request.id, code, result)
        self._answers[request.id] = (time.monotonic(), document)
        self._remembered_bytes += len(document)
        self._forget_old()
        self._tell(code, document)
        # Not above debug: a program that polls would fill the disk with it.
        log.debug("node_request", target=request.target, name=request.name, id=request.id, outcome=code or "ok")

    def _refuse(self, request: str, code: str, detail: str) -> None:
        log.info("node_request_refused", id=request, code=code, detail=detail[:DETAIL_MOST])
        self._tell(code, self._document(request, code, CommandResult(False, detail)))

    def _tell(self, code: str, document: bytes) -> None:
        self.outcomes[code or "ok"] += 1
        self._answer(document)

    def _document(self, request: str, code: str, result: CommandResult) -> bytes:
        try:
            document = _dump(request, code, result.detail, result.value)
        except ValueError as error:  # text with half a surrogate, as a node may send it
            return _dump(request, code or "failed", f"the answer cannot be written: {type(error).__name__}", None)
        if len(document) > messages.DOCUMENT_MAX_BYTES:
            return _dump(request, "too_large", f"the answer has {len(document)} bytes", None)
        return document

    def _forget_old(self) -> None:
        before = time.monotonic() - REMEMBERED_S
        while self._answers and (
            len(self._answers) > REMEMBERED_MOST
            or self._remembered_bytes > REMEMBERED_MAX_BYTES
            or next(iter(self._answers.values()))[0] < before
        ):
            _, (_, document) = self._answers.popitem(last=False)
            self._remembered_bytes -= len(document)


def _dump(request: str, code: str, detail: str, value: Json) -> bytes:
    at = messages.utc(time.time())
    text = detail[:DETAIL_MOST].encode("utf-8", "replace").decode()
    response = NodeResponse.model_validate(
        {"id": request, "ok": not code, "at": at, "code": code, "detail": text, "value": value}
    )
    return messages.dump(response)
