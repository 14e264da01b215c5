"""Metadata and trust documents over HTTP: small files, capped while they stream. SHELL.

`download` runs in the daemon's event loop; `LoopFetcher` lends it to python-tuf, which works in a thread. Failures are
python-tuf's download errors; `unavailable_or_refused` says whose fault they are. Firmware is fetched by payload/.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator

import aiohttp
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from gatewayd.errors import GatewaydError, Refused, Unavailable

MAX_REDIRECTS = 3
READ_BYTES = 64 * 1024
HARD_CAP_BYTES = 8 * 2**20


async def download(session: aiohttp.ClientSession, url: str, max_bytes: int, timeout: aiohttp.ClientTimeout) -> bytes:
    """The whole body. DownloadHTTPError unless 200, DownloadLengthMismatchError above `max_bytes`, DownloadError."""
    try:
        async with session.get(
            url,
            timeout=timeout,
            max_redirects=MAX_REDIRECTS,
            auto_decompress=False,  # a small compressed body must not become a big one
            headers={"Accept-Encoding": "identity", "Cache-Control": "no-cache"},
        ) as response:
            secure = url.lower().startswith("https:")
            if secure and any(hop.url.scheme != "https" for hop in (*response.history, response)):
                raise DownloadError(f"{url}: redirected away from https")
            if response.status != 200:
                raise DownloadHTTPError(f"{url}: HTTP {response.status}", response.status)
            body = bytearray()
            async for piece in response.content.iter_chunked(READ_BYTES):
                body += piece
                if len(body) > max_bytes:
                    raise DownloadLengthMismatchError(f"{url}: more than the {max_bytes} bytes it may have")
            return bytes(body)
    except TimeoutError as error:
        raise DownloadError(f"{url}: timed out") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DownloadError(f"{url}: {str(error) or type(error).__name__}") from error


def unavailable_or_refused(error: DownloadError) -> GatewaydError:
    """Endless data is refused; anything else may pass."""
    if isinstance(error, DownloadLengthMismatchError):
        return Refused("too_large", str(error))
    return Unavailable(str(error))


class LoopFetcher(FetcherInterface):
    """Lets python-tuf, in its thread, download through the session of the event loop."""

    def __init__(
        self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._loop = loop
        self._lock = threading.Lock()
        self._running: concurrent.futures.Future[bytes] | None = None
        self._stopped = False

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """As `download`; called in the worker thread."""
        with self._lock:
            if self._stopped:
                raise DownloadError(f"{url}: stopped")
            coroutine = download(self._session, url, min(max_length, HARD_CAP_BYTES), self._timeout)
            self._running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return self._running.result()
        except concurrent.futures.CancelledError as error:
            raise DownloadError(f"{url}: stopped") from error

    def stop(self) -> None:
        """End the running download and refuse further ones; called in the event loop's thread."""
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.cancel()

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, HARD_CAP_BYTES)
