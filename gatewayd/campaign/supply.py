"""Payloads that campaigns need: fetched once, the manufacturer's signature checked, and only then said to be ready.

Nothing goes on air from a payload that is not in `ready`. After a restart every payload is checked again.
"""

import asyncio
from collections.abc import Callable, Iterator

import structlog

from gatewayd.cloud.messages import Manufacturers, Payload
from gatewayd.errors import GatewaydError, Refused, StoreError, Unavailable
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.service.wall_clock import WallClock
from gatewayd.trust.image import verify_payload
from gatewayd.trust.release import VerifiedRelease
from radios.errors import ImageError
from radios.radio import Json

_Key = tuple[
    str, str
]  # path of the release, digest of the payload: what was checked for one release says nothing of another

FETCHING = "payload_fetching"
RETRY_MIN_S = 5.0
RETRY_MAX_S = 600.0
_READ_BYTES = 65536

log = structlog.get_logger()


class Supply:
    """`changed` is called when a payload became ready or could not be had."""

    fetcher: Fetcher  # set before the first `require`; it asks `needed` what it may evict

    def __init__(self, cache: PayloadCache, wall: WallClock) -> None:
        self._cache = cache
        self.dated: Callable[[], float] = wall.now  # by which the validity of keys is judged
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._ready: set[_Key] = set()
        self._problems: dict[_Key, tuple[str, str]] = {}
        self._final: set[_Key] = set()
        self._doubted: set[_Key] = set()
        self._judgements = 0
        self.progress: dict[str, tuple[int, int]] = {}  # of running downloads: bytes in the cache, size; by digest
        cache.rotten = self._rotten
        self.needed: frozenset[str] = frozenset()  # digests that campaigns want; anything else may be evicted
        self.changed: Callable[[], None] = lambda: None

    def blocked(self, release: VerifiedRelease, payload: Payload) -> tuple[str, str] | None:
        """None when the payload may go on air for the release; else (code, detail)."""
        key = _key(release, payload)
        if key in self._ready:
            if self._cache.has(payload.sha256, payload):
                return None
            self._ready.discard(key)  # evicted while no campaign wanted it
        return self._problems.get(key, (FETCHING, f"payload {payload.sha256[:12]} is being fetched"))

    def require(
        self, group: asyncio.TaskGroup, release: VerifiedRelease, payload: Payload, manufacturers: Manufacturers
    ) -> None:
        """See to it that the payload becomes ready; returns at once. A refused one is not tried again."""
        key = _key(release, payload)
        if (key in self._ready and key not in self._doubted) or key in self._tasks or key in self._final:
            return
        self._doubted.discard(key)
        task = group.create_task(self._obtain(release, payload, manufacturers), name=f"payload-{payload.sha256[:12]}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def judge_again(self) -> None:
        """Newer metadata may judge payloads otherwise: refused ones are tried again, ready ones checked once more."""
        self._final.clear()
        self._doubted |= self._ready
        self._judgements += 1

    def status(self) -> Json:
        """For operators: by digest, what is being fetched or is wrong."""
        found: dict[str, Json] = {
            digest: {"release": release, "problem": code, "detail": detail}
            for (release, digest), (code, detail) in self._problems.items()
            if (release, digest) not in self._ready
        }
        found |= {digest: {"held": held, "size": size} for digest, (held, size) in self.progress.items()}
        return found

    def _rotten(self, digest: str) -> None:
        """A read met rot: nothing of the payload goes on air before its bad chunks are fetched again."""
        self._ready -= {key for key in self._ready if key[1] == digest}
        self.changed()

    def forbidden(self, release: VerifiedRelease, payload: Payload) -> bool:
        """Whether the payload was refused for the release, not merely missing."""
        return _key(release, payload) in self._final

    async def _obtain(self, release: VerifiedRelease, payload: Payload, manufacturers: Manufacturers) -> None:
        pause = RETRY_MIN_S
        key, digest = _key(release, payload), payload.sha256
        judgement = self._judgements
        may_mend = self._cache.has(digest, payload)
        while True:
            try:
                await self._fetched(release, payload, manufacturers, may_mend=may_mend)
            except Refused as error:
                if judgement == self._judgements:
                    log.error("payload_refused", payload=digest, code=error.code, detail=error.detail)
                    self._problems[key] = (error.code, error.detail)
                    self._final.add(key)
                    self._ready.discard(key)
            except (Unavailable, StoreError, ImageError) as error:
                code = error.code if isinstance(error, GatewaydError) else "unreadable"
                log.warning("payload_unavailable", payload=digest, error=str(error), retry_s=pause)
                self._problems[key] = (f"payload_{code}", str(error))
                self.changed()
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_S)
                if digest in self.needed:
                    continue
                return
            else:
                # Judged by metadata that is not the newest any more (a key may be revoked): the next `require` does it again.
                if judgement == self._judgements:
                    self._problems.pop(key, None)
                    if key not in self._ready:
                        self._ready.add(key)
                        log.info("payload_ready", payload=digest, bytes=payload.size, release=release.path)
            self.changed()
            return

    async def _fetched(
        self, release: VerifiedRelease, payload: Payload, manufacturers: Manufacturers, *, may_mend: bool
    ) -> None:
        """The payload is in the cache and genuine; what rotted there is fetched again, those chunks only."""
        await self._fetch(payload)
        try:
            await asyncio.to_thread(self._check, release, payload, manufacturers)
        except Refused as error:
            if not may_mend or error.code != "tampered":
                raise
            log.error("payload_rotten", payload=payload.sha256, detail=error.detail)
            await asyncio.to_thread(self._cache.reopen, payload)
            await self._fetch(payload)
            await asyncio.to_thread(self._check, release, payload, manufacturers)
        self._cache.guard(payload)

    async def _fetch(self, payload: Payload) -> None:
        def tell(held: int, size: int) -> None:
            self.progress[payload.sha256] = held, size

        try:
            await self.fetcher.fetch(payload, tell)
        finally:
            self.progress.pop(payload.sha256, None)

    def _check(self, release: VerifiedRelease, payload: Payload, manufacturers: Manufacturers) -> None:
        verify_payload(self._chunks(payload), payload, release, manufacturers, self.dated())

    def _chunks(self, payload: Payload) -> Iterator[bytes]:
        for offset in range(0, payload.size, _READ_BYTES):
            yield self._cache.read_raw(payload.sha256, offset, _READ_BYTES)


def _key(release: VerifiedRelease, payload: Payload) -> _Key:
    return release.path, payload.sha256
