"""The status endpoint over HTTP: routes, arguments, errors; on loopback or a UNIX socket only.

What is answered is made in api.py and metrics.py, who may ask is checked in guards.py. A failing request never reaches
the rest of the daemon.
"""

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from gatewayd.config_values import Listen
from gatewayd.errors import StoreError
from gatewayd.status import metrics
from gatewayd.status.api import LIMIT_DEFAULT, LIMIT_MOST, LiveView, NodeFilter, StatusApi, jsonable
from gatewayd.status.guards import HEADERS, check_host, check_operator
from gatewayd.status.token import operator_token
from gatewayd.store.database import Database
from radios.errors import RadioError
from radios.radio import Json, NodeCommand, parse_node_id

BODY_MAX_BYTES = 16 * 1024
RESTORE_MAX_BYTES = 1024 * 1024  # a whole backup of a network
COMMAND_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 1.0
KEEPALIVE_S = 15.0
OFFSET_MOST = 10_000_000

# What a radio would answer holds the network's keys; `gatewayd backup` is for that, not an endpoint.
REFUSED_COMMANDS = frozenset({"backup"})

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/openapi.json": ("openapi.json", "application/json"),
}

log = structlog.get_logger()

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StatusServer:
    """`start()` binds and serves, `close()` ends within a second. The operator's token is in `state_dir`."""

    def __init__(self, listen: Listen, database: Database, live: LiveView, state_dir: Path) -> None:
        self._listen = listen
        self._api = StatusApi(database, live)
        self._state_dir = state_dir
        self._token = ""
        self._runner: web.AppRunner | None = None
        self._port = listen.port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8470/`, or `unix:/path`; with the port that was bound."""
        if self._listen.path is not None:
            return str(self._listen)
        return f"http://{Listen(self._listen.host, self._port)}/"

    async def start(self) -> None:
        """StoreError when the address cannot be bound or the token cannot be written."""
        self._token = operator_token(self._state_dir)
        # An access log line per poll of a page would drown everything else.
        runner = web.AppRunner(
            self._application(),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=CLOSE_TIMEOUT_S,
            keepalive_timeout=KEEPALIVE_S,
        )
        await runner.setup()
        self._runner = runner
        try:
            await self._site(runner).start()
            if self._listen.path is not None:
                self._listen.path.chmod(0o660)
        except OSError as error:
            await self.close()
            raise StoreError(f"status endpoint {self._listen}: {error}") from error
        if self._listen.path is None:
            self._port = runner.addresses[0][1]
        log.info("status_endpoint", url=self.url)

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        bound = bool(runner.addresses)
        await runner.cleanup()
        if bound and self._listen.path is not None:
            self._listen.path.unlink(missing_ok=True)

    def _site(self, runner: web.AppRunner) -> web.BaseSite:
        if self._listen.path is not None:
            self._listen.path.parent.mkdir(parents=True, exist_ok=True)
            return web.UnixSite(runner, os.fspath(self._listen.path))
        return web.TCPSite(runner, self._listen.host, self._listen.port)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_MAX_BYTES)
        folder = resources.files("gatewayd.status") / "page"
        for path, (name, content_type) in _FILES.items():
            application.router.add_get(path, _file((folder / name).read_bytes(), content_type))
        api = "/api/v1"
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get(f"{api}/gateway", self._gateway),
                web.get(f"{api}/campaigns", self._campaigns),
                web.get(f"{api}/campaigns/{{campaign}}", self._campaign),
                web.post(f"{api}/campaigns/{{campaign}}/{{action:hold|resume}}", self._hold_or_resume),
                web.get(f"{api}/nodes", self._nodes),
                web.get(f"{api}/nodes/{{node}}", self._node),
                web.post(f"{api}/radios/{{kind}}/commands", self._command),
                web.post(f"{api}/radios/{{kind}}/restore", self._restore),
                web.post(f"{api}/radios/{{kind}}/backup", self._back_up),
            ]
        )
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if self._listen.path is None:
                check_host(request)
            if request.method not in {"GET", "HEAD"}:
                check_operator(request, self._token)
            response = await handler(request)
        except web.HTTPException as error:
            response = _error(error.status, error.reason.lower().replace(" ", "_"), error.text or error.reason)
            for name in ("Allow", "WWW-Authenticate"):
                if name in error.headers:
                    response.headers[name] = error.headers[name]
        except _BadRequest as error:
            response = _error(400, "bad_request", str(error))
        except StoreError as error:
            log.warning("status_store", path=request.path, error=str(error))
            response = _error(503, error.code, "the store cannot be read or written now")
        response.headers.update(HEADERS)
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        try:
            reasons = await self._api.not_ready()
        except StoreError:
            reasons = ["the store cannot be read"]
        return _json({"ready": not reasons, "reasons": list(reasons)}, 503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await metrics.render(self._api), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _gateway(self, request: web.Request) -> web.Response:
        _only(request)
        return _json(await self._api.gateway())

    async def _campaigns(self, request: web.Request) -> web.Response:
        _only(request)
        return _json(await self._api.campaigns())

    async def _campaign(self, request: web.Request) -> web.Response:
        _only(request)
        name = request.match_info["campaign"]
        return _json(_found(await self._api.campaign(name), f"no campaign {name}"))

    async def _nodes(self, request: web.Request) -> web.Response:
        _only(request, "limit", "offset", "radio", "state", "campaign", "search")
        query = request.query
        return _json(
            await self._api.nodes(
                NodeFilter(
                    limit=_number(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MOST),
                    offset=_number(query, "offset", 0, 0, OFFSET_MOST),
                    **{name: query.get(name, "") for name in ("radio", "state", "campaign", "search")},
                )
            )
        )

    async def _node(self, request: web.Request) -> web.Response:
        _only(request)
        name = request.match_info["node"]
        return _json(_found(await self._api.node(name), f"no node {name}"))

    async def _hold_or_resume(self, request: web.Request) -> web.Response:
        await _body(request, _Nothing)
        name, action = request.match_info["campaign"], request.match_info["action"]
        live = self._api.live
        known = await (live.hold(name) if action == "hold" else live.resume(name))
        if not known:
            raise web.HTTPNotFound(text=f"no campaign {name}")
        log.info("operator", action=action, campaign=name)
        return _json(_found(await self._api.campaign(name), f"no campaign {name}"))

    async def _command(self, request: web.Request) -> web.Response:
        body = await _body(request, _Command)
        return await self._radio_command(request.match_info["kind"], body)

    async def _restore(self, request: web.Request) -> web.Response:
        body = await _body(request.clone(client_max_size=RESTORE_MAX_BYTES), _Restore)
        return await self._radio_command(request.match_info["kind"], _Command(name="restore", arguments=body.arguments))

    async def _back_up(self, request: web.Request) -> web.Response:
        await _body(request, _Nothing)
        kind = request.match_info["kind"]
        if kind not in self._api.live.radios():
            raise web.HTTPNotFound(text=f"no radio {kind}")
        log.info("operator", action="backup", radio=kind)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return _json({"file": await self._api.live.back_up(kind)})
        except RadioError as error:
            return _error(502, "radio", str(error))
        except TimeoutError:
            return _error(504, "timeout", f"the radio did not answer within {COMMAND_TIMEOUT_S:.0f} s")

    async def _radio_command(self, kind: str, body: "_Command") -> web.Response:
        if kind not in self._api.live.radios():
            raise web.HTTPNotFound(text=f"no radio {kind}")
        if body.name in REFUSED_COMMANDS:
            raise web.HTTPForbidden(text=f"{body.name} is not answered here: its answer holds secrets")
        try:
            node = None if body.node is None else parse_node_id(body.node)
        except ValueError as error:
            raise _BadRequest(f"node: {error}") from None
        # As they are: an argument may be a secret, which is for the radio alone. None of them is logged.
        arguments = {key: _as_json(value) for key, value in body.arguments.items()}
        log.info("operator", action=body.name, radio=kind, node=node)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                result = await self._api.live.command(kind, NodeCommand(body.name, node, arguments))
        except RadioError as error:
            return _error(502, "radio", str(error))
        except TimeoutError:
            return _error(504, "timeout", f"the radio did not answer within {COMMAND_TIMEOUT_S:.0f} s")
        answer = {"ok": result.ok, "detail": result.detail, "value": jsonable(result.value)}
        return _json(answer, 200 if result.ok else 409)


class _BadRequest(Exception):
    """The request cannot be understood; the text says where."""


class _Nothing(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Command(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z_]{1,64}$")
    node: str | None = None
    arguments: dict[str, JsonValue] = {}


class _Restore(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    arguments: dict[str, JsonValue]


async def _body(request: web.Request, kind: type[B]) -> B:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the body must be application/json")
    try:
        return kind.model_validate_json(await request.read() or b"{}")
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:10]]
        raise _BadRequest("; ".join(faults)) from None


def _as_json(value: JsonValue) -> Json:
    """The same value for the contract's type; no number is NaN or infinite: JSON text has none, but pydantic's reader has."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


def _only(request: web.Request, *names: str) -> None:
    for name in request.query:
        if name not in names:
            raise _BadRequest(f"{name}: is no known argument")
        if len(request.query.getall(name)) > 1:
            raise _BadRequest(f"{name}: is given more than once")


def _number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise _BadRequest(f"{name}: must be a number from {least} to {most}")
    return int(text)


def _found(value: T | None, otherwise: str) -> T:
    if value is None:
        raise web.HTTPNotFound(text=otherwise)
    return value


def _json(value: object, status: int = 200) -> web.Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")


def _error(status: int, code: str, detail: str) -> web.Response:
    return _json({"error": {"code": code, "detail": detail}}, status)


def _file(content: bytes, content_type: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, headers={"Content-Type": content_type})

    return handler
