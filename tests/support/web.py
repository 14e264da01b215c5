"""A static web server with Range, If-Range and ETag in a thread of its own: HTTPS by an `Authority`, or plain HTTP.

    with StaticServer(folder, authority) as server: ... server.url, server.requests, server.bytes_sent

It serves what is in the folder at the moment of the request, so that a test may change a file behind a running download.
"""

import asyncio
import hashlib
import re
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from gatewayd.demo.authority import Authority

PIECE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """What a client has asked for."""

    method: str
    path: str  # as sent, with the leading slash
    range: str | None  # the Range header
    if_range: str | None


class StaticServer:
    """Serves `folder` at `url` (no trailing slash). `requests` and `bytes_sent` are kept for the test to look at."""

    def __init__(self, folder: Path, authority: Authority | None = None, *, clients: bool = False) -> None:
        """`clients`: only those with a client certificate of the authority are served."""
        self.folder = folder
        self._clients = clients
        self.requests: list[Request] = []
        self.bytes_sent = 0  # of bodies
        self.url = ""
        self.port = 0
        self._authority = authority
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="static-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10) or not self.port:
            raise RuntimeError("the static server does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def fetched(self, suffix: str) -> int:
        """How many requests asked for a path that ends so."""
        return sum(request.path.endswith(suffix) for request in self.requests)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        try:
            await runner.setup()
            context = self._authority.server_context("web") if self._authority else None
            if context is not None and self._authority is not None and self._clients:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._authority.ca)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            self.port = runner.addresses[0][1]
            self.url = f"{'https' if context else 'http'}://localhost:{self.port}"
            self._ready.set()
            await self._ended.wait()
        finally:
            self._ready.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = Request(request.method, request.raw_path, request.headers.get("Range"), request.headers.get("If-Range"))
        self.requests.append(asked)
        file = (self.folder / request.match_info["path"]).resolve()
        if not file.is_relative_to(self.folder.resolve()) or not file.is_file():
            return web.Response(status=404, text="no such file\n")
        body = file.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        start, stop, status = 0, len(body), 200
        if asked.range is not None and asked.if_range in (None, etag):
            start, stop = _span(asked.range, len(body))
            if start >= stop:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        headers["Content-Length"] = str(stop - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            for at in range(start, stop, PIECE_BYTES):
                piece = body[at : min(at + PIECE_BYTES, stop)]
                await response.write(piece)
                self.bytes_sent += len(piece)
        await response.write_eof()
        return response


def _span(header: str, size: int) -> tuple[int, int]:
    """Start and stop of one byte range; an empty span when it cannot be satisfied."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if match is None or match.groups() == ("", ""):
        return 0, 0
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
