"""Downloads of payloads over HTTPS into the cache: resumed, verified while streaming, from the first mirror that works. SHELL.

What arrives is believed chunk by chunk, because each chunk's SHA-256 is in the signed release; so a mirror can waste
time, and the limits here bound how much, but it cannot put a byte into the cache. Not responsible for which payloads are
wanted, nor for the manufacturer's signature on the whole (trust/).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import structlog
from yarl import URL

from gatewayd.backoff import backoff_s
from gatewayd.cloud.messages import Payload
from gatewayd.errors import ConfigError, Refused, Unavailable
from gatewayd.payload import chunks
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.part import Part
from gatewayd.payload.throttle import DownloadLimits, Throttle

log = structlog.get_logger()

Progress = Callable[[int, int], None]
"""Called with the bytes that are verified and in the cache, and the size of the payload."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchSettings:
    header_timeout_s: float = 30.0  # from the request to the response's headers, TCP and TLS included
    low_speed_bytes_s: int = 1024  # slower than this over a whole window: another mirror is tried
    low_speed_window_s: float = 30.0
    redirects_max: int = 5
    chunk_attempts: int = 3  # a chunk that is wrong so often is tampered with
    barren_attempts: int = 6  # requests in a row that brought no chunk, over all mirrors, before giving up for now
    backoff_first_s: float = 1.0
    backoff_max_s: float = 30.0


class _MirrorFault(Exception):
    """This mirror does not do its part; another one, or the same one later, may."""


class _WrongChunk(_MirrorFault):
    """It has delivered bytes that are not the payload's: better ask another one."""


@dataclass(slots=True)
class _Download:
    """One running download and those who wait for it."""

    task: "asyncio.Task[None]"
    waiting: int = 0
    abandoned: bool = False
    progress: list[Progress] = field(default_factory=list)
    last: tuple[int, int] | None = None

    def tell(self, held: int, size: int) -> None:
        self.last = held, size
        for progress in self.progress:
            progress(held, size)


class Fetcher:
    """Fetches payloads into the cache, each once however many ask. Base URLs are tried in their order.

    With `needed` (digests that campaigns need) it evicts others to make room; without, or while it gives None, it does not.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        cache: PayloadCache,
        base_urls: Sequence[str],
        settings: FetchSettings | None = None,
        *,
        needed: Callable[[], frozenset[str] | None] | None = None,
        throttle: Throttle | None = None,
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not base_urls:
            raise ConfigError("payload base URLs: none given")
        self._bases = [_base(text) for text in base_urls]
        self._session = session
        self._cache = cache
        self._settings = settings or FetchSettings()
        self._needed = needed
        self._throttle = throttle or Throttle(DownloadLimits(), lambda: 0)
        self._rng = rng
        self._sleep = sleep
        self._running: dict[str, _Download] = {}

    async def fetch(self, payload: Payload, progress: Progress | None = None) -> None:
        """Return when the whole, verified file is in the cache; at once when it is there already.

        Refused: tampered (naming the chunk), too_large. Unavailable: no mirror serves it now. StoreError: no room.
        What was fetched is kept in every case, and the next call, of this or a later process, goes on from it.
        """
        while (download := self._running.get(payload.sha256)) is not None and download.abandoned:
            await asyncio.wait({download.task})
        if download is None:
            if self._cache.has(payload.sha256, payload):
                return
            download = self._start(payload)
        if progress is not None:
            download.progress.append(progress)
            if download.last is not None:
                progress(*download.last)
        download.waiting += 1
        try:
            await asyncio.shield(download.task)
        finally:
            download.waiting -= 1
            if progress is not None:
                download.progress.remove(progress)
            if not download.waiting and not download.task.done():
                download.abandoned = True  # the last one who wanted it has gone
                download.task.cancel()
                await asyncio.wait({download.task})

    def _start(self, payload: Payload) -> _Download:
        async def run() -> None:
            try:
                await self._download(payload, download)
            finally:
                del self._running[payload.sha256]

        task = asyncio.create_task(run(), name=f"fetch-{payload.sha256[:8]}")
        download = self._running[payload.sha256] = _Download(task)
        return download

    async def _download(self, payload: Payload, download: _Download) -> None:
        if self._needed is not None and (needed := self._needed()) is not None:
            kept = needed | frozenset(self._running)
            await asyncio.to_thread(self._cache.evict, kept, payload.size, payload.sha256)
        part = await self._open_part(payload)
        try:
            download.tell(part.held_bytes, payload.size)
            await self._fill(part, download)
            await asyncio.to_thread(self._cache.commit, part)
        finally:
            part.close()

    async def _open_part(self, payload: Payload) -> Part:
        opening = asyncio.ensure_future(asyncio.to_thread(self._cache.open_part, payload))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # the thread goes on, and what it opens must be closed
            opening.add_done_callback(lambda done: done.result().close() if done.exception() is None else None)
            raise

    async def _fill(self, part: Part, download: _Download) -> None:
        """Until no chunk is missing: ask for the first missing range, and change the mirror when one fails."""
        mirror = barren = 0
        wrong: dict[int, int] = {}  # chunk -> how often it came wrong
        while not part.whole:
            while pause_s := self._throttle.closed_s():
                await self._sleep(pause_s)
            before = len(part.have)
            base = self._bases[mirror % len(self._bases)]
            url = base / part.payload.path
            reason = "an answer that holds no whole chunk"
            liar = False
            try:
                await self._request(part, url, download, wrong)
            except (_MirrorFault, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                reason = str(error) or type(error).__name__
                liar = isinstance(error, _WrongChunk)
            else:
                if len(part.have) > before or self._throttle.closed:
                    barren = 0
                    continue
            if len(part.have) > before:
                barren = 0  # a cut connection that brought something is no reason to go elsewhere
                mirror += liar
            else:
                barren += 1
                mirror += 1
            log.warning("download interrupted", code="unavailable", url=str(url), error=reason, barren=barren)
            if barren >= self._settings.barren_attempts:
                raise Unavailable(f"payload {part.payload.sha256}: {barren} attempts in vain, the last: {reason}")
            if barren:
                await self._sleep(
                    backoff_s(barren - 1, self._settings.backoff_first_s, self._settings.backoff_max_s, self._rng)
                )

    async def _request(self, part: Part, url: URL, download: _Download, wrong: dict[int, int]) -> None:
        """One request for the first missing range, read to its end."""
        start, stop = part.missing()[0]
        size = part.payload.size
        headers = {"Accept-Encoding": "identity"}
        if (start, stop) != (0, size):
            headers["Range"] = f"bytes={start}-{stop - 1}"
            if (tag := await asyncio.to_thread(part.etag, str(url))) is not None:
                headers["If-Range"] = tag
        response = await self._open(url, headers)
        try:
            start, stop = _check_answer(response, start, stop, size, ranged="Range" in headers)
            await asyncio.to_thread(part.remember_etag, str(url), _strong_etag(response))
            await self._stream(response, part, start, stop, download, wrong)
        finally:
            response.close()  # whatever it still wants to send is not wanted

    async def _open(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The response that is no redirect."""
        timeout = aiohttp.ClientTimeout(total=None)  # the limits are ours: here for the headers, then for the speed
        async with asyncio.timeout(self._settings.header_timeout_s):
            for _ in range(self._settings.redirects_max + 1):
                response = await self._session.get(url, headers=headers, allow_redirects=False, timeout=timeout)
                if response.status not in _REDIRECTS:
                    return response
                location = response.headers.get("Location", "")
                response.close()
                url = _redirected(url, location)
        raise _MirrorFault(f"more than {self._settings.redirects_max} redirects")

    async def _stream(
        self,
        response: aiohttp.ClientResponse,
        part: Part,
        start: int,
        stop: int,
        download: _Download,
        wrong: dict[int, int],
    ) -> None:
        loop = asyncio.get_running_loop()
        window_s = self._settings.low_speed_window_s
        cutter = chunks.ChunkStream(part.payload, start)
        left = stop - start
        window_end, in_window = loop.time() + window_s, 0
        while left > 0:
            # Not more than the chunk in hand, so that memory and what a liar can make us read stay bounded.
            broken: Exception | None = None
            data: bytes | None = None
            try:
                async with asyncio.timeout_at(window_end):
                    data = await response.content.read(self._throttle.piece(min(left, max(1, cutter.wanted))))
            except TimeoutError:
                pass  # the window's end, judged below
            except (aiohttp.ClientError, OSError) as error:
                broken, data = error, _salvage(response.content)[:left]
            if data is not None:
                left -= len(data)
                in_window += len(data)
                for chunk in cutter.feed(data):
                    await self._keep(part, chunk, download, wrong)
                if broken is not None:
                    raise broken
                if not data:
                    raise _MirrorFault(f"the connection was cut {left} bytes before the end")
                if self._throttle.closed:
                    return  # what is missing is asked for when downloads are allowed again
                if pause_s := self._throttle.take(len(data), loop.time()):
                    await self._sleep(pause_s)
                    window_end += pause_s  # it is not the mirror that is slow
            if loop.time() >= window_end:
                if in_window < self._settings.low_speed_bytes_s * window_s and left > 0:
                    raise _MirrorFault(f"too slow: {in_window} bytes in {window_s:g} s")
                window_end, in_window = loop.time() + window_s, 0

    async def _keep(self, part: Part, chunk: chunks.Chunk, download: _Download, wrong: dict[int, int]) -> None:
        if chunk.index in part.have:
            return  # a server without ranges sends from the beginning
        if await asyncio.to_thread(part.put, chunk):
            download.tell(part.held_bytes, part.payload.size)
            return
        wrong[chunk.index] = wrong.get(chunk.index, 0) + 1
        what = f"chunk {chunk.index} (bytes {chunk.offset} to {chunk.offset + len(chunk.data)})"
        if wrong[chunk.index] >= self._settings.chunk_attempts:
            raise Refused(
                "tampered",
                f"payload {part.payload.sha256}: {what} does not match its SHA-256, {wrong[chunk.index]} times",
            )
        raise _WrongChunk(f"{what} does not match its SHA-256")


def _salvage(content: aiohttp.StreamReader) -> bytes:
    """What had arrived when the connection broke, and waits in the buffer: aiohttp hands out the error instead of it."""
    content.set_exception(None)  # type: ignore[arg-type] # stored as it is, and None is what was there before
    return content.read_nowait()


def _base(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise ConfigError(f"payload base URL {text!r}: {error}") from None
    if not url.host or not _allowed(url):
        raise ConfigError(f"payload base URL {text!r}: must be https, or http on loopback")
    return url


def _allowed(url: URL) -> bool:
    return url.scheme == "https" or (url.scheme == "http" and url.host in LOOPBACK)


def _redirected(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location))
    except ValueError:
        raise _MirrorFault(f"redirected to something that is no URL: {location[:200]!r}") from None
    if not location or not _allowed(target) or (url.scheme == "https" and target.scheme != "https"):
        raise _MirrorFault(f"redirected to {location[:200]!r}, which is not https")
    return target


def _check_answer(
    response: aiohttp.ClientResponse, start: int, stop: int, size: int, *, ranged: bool
) -> tuple[int, int]:
    """The byte range that the body will be; _MirrorFault when it cannot be the file that we want."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _MirrorFault("the body is encoded, which was not asked for")
    length = response.content_length
    if response.status == 206 and ranged:
        header = response.headers.get("Content-Range", "")
        said = chunks.parse_content_range(header)
        if said is None or said.start != start or said.stop > stop or said.size not in (None, size):
            raise _MirrorFault(f"asked for bytes {start} to {stop} of {size}, got Content-Range {header[:100]!r}")
        if length is not None and length != said.stop - said.start:
            raise _MirrorFault(f"Content-Length {length} contradicts Content-Range {header[:100]!r}")
        return said.start, said.stop
    if response.status == 200:  # no ranges here, or the file has changed since: from the beginning
        if length is not None and length != size:
            raise _MirrorFault(f"the file has {length} bytes, not {size}")
        return 0, size
    raise _MirrorFault(f"status {response.status}")


def _strong_etag(response: aiohttp.ClientResponse) -> str | None:
    """A weak tag promises nothing about bytes, so it is of no use in If-Range."""
    tag = response.headers.get("ETag", "")
    return tag if len(tag) <= 200 and tag.startswith('"') and tag.endswith('"') and tag.isascii() else None
