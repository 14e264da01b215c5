"""Payloads, and a web server that lies, stalls and cuts."""

import asyncio
import contextlib
import hashlib
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gatewayd.cloud.messages import ManufacturerSignature, Payload, SignatureScheme

CHUNK = 4096


def payload_of(body: bytes, chunk_size: int = CHUNK) -> Payload:
    digest = hashlib.sha256(body).hexdigest()
    return Payload(
        size=len(body),
        sha256=digest,
        chunk_size=chunk_size,
        chunks=tuple(hashlib.sha256(body[i : i + chunk_size]).hexdigest() for i in range(0, len(body), chunk_size)),
        path=f"payloads/{digest}",
        signature=ManufacturerSignature(scheme=SignatureScheme.ECDSA_P256_SHA256, keyid="0" * 64, value="AAAA"),
    )


BODY = random.Random(7).randbytes(20 * CHUNK + 1000)


@dataclass
class Request:
    path: str
    headers: dict[str, str]

    @property
    def span(self) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


@dataclass
class Answer:
    """What goes over the wire for one request; None as header removes it."""

    status: int
    headers: dict[str, str | None]
    body: bytes
    cut_after: int | None = None  # bytes of the body, then the connection is reset
    stall_after: int | None = None  # bytes of the body, then nothing more comes and the connection stays
    pause_s: float = 0.0  # after each byte
    drip_s: float = 0.0  # after each byte of the headers
    hang: bool = False  # send nothing at all


Fault = Callable[[int, Request, Answer], Awaitable[None] | None]


@dataclass
class HostileServer:
    """Serves `body` properly, until `fault(number of request, request, answer)` changes an answer."""

    body: bytes = BODY
    etag: str | None = '"one"'
    fault: Fault | None = None
    requests: list[Request] = field(default_factory=list)
    sent: int = 0  # bytes of bodies
    url: str = ""
    serving: set["asyncio.Task[None]"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            await self._answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self.serving.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        request = Request(first.split()[1], headers)
        self.requests.append(request)
        answer = self._proper(request)
        if self.fault is not None:
            waiting = self.fault(len(self.requests) - 1, request, answer)
            if waiting is not None:
                await waiting
        if answer.hang:
            await reader.read()
            return
        lines = [f"{name}: {value}" for name, value in answer.headers.items() if value is not None]
        head = "\r\n".join([f"HTTP/1.1 {answer.status} X", *lines, "Connection: close", "", ""]).encode()
        for byte in head if answer.drip_s else ():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(answer.drip_s)
        writer.write(b"" if answer.drip_s else head)
        if answer.pause_s:
            for byte in answer.body:
                writer.write(bytes([byte]))
                await writer.drain()
                self.sent += 1
                await asyncio.sleep(answer.pause_s)
            return
        stop = answer.cut_after if answer.stall_after is None else answer.stall_after
        body = answer.body[:stop]
        writer.write(body)
        await writer.drain()
        self.sent += len(body)
        if answer.stall_after is not None:
            await reader.read()  # until the client goes

    def _proper(self, request: Request) -> Answer:
        size = len(self.body)
        span = request.span
        if span is not None and request.headers.get("if-range", self.etag) == self.etag:
            start, stop = span
            body, status = self.body[start:stop], 206
            extra: dict[str, str | None] = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{size}"}
        else:
            body, status, extra = self.body, 200, {}
        return Answer(status, {"Content-Length": str(len(body)), "ETag": self.etag, **extra}, body)


@contextlib.asynccontextmanager
async def serving(server: HostileServer, tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        for task in list(server.serving):
            task.cancel()
        while server.serving:
            await asyncio.sleep(0.01)


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with serving(HostileServer()) as server:
        yield server
