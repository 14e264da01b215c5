"""Payloads that campaigns need: fetched once, the manufacturer's signature checked, and only then said to be ready.

Two questions, asked apart. Whether the bytes are what the release says, and were signed by the key that it names, is found out
by reading the whole file: once, and again only when the release says something else. Whether that key counts is asked of the
newest metadata at every look, so that a revoked key counts for nothing from the moment it is known, and metadata that change
nothing for a payload cost nothing. Nothing goes on air from a payload for which `blocked` says why. After a restart every
payload is read again.
"""

import asyncio
from collections.abc import Callable, Iterator

import structlog

from gatewayd.campaign.payloads import is_transfer_of
from gatewayd.cloud.messages import Manufacturers, Payload
from gatewayd.errors import GatewaydError, Refused, StoreError, Unavailable
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.service.wall_clock import WallClock
from gatewayd.trust.image import verify_payload, verify_signer
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
    """`changed` is called when a payload became ready or could not be had; `manufacturers` are those of the newest metadata."""

    fetcher: Fetcher  # set before the first `require`; it asks `needed` what it may evict

    def __init__(self, cache: PayloadCache, wall: WallClock, manufacturers: Callable[[], Manufacturers]) -> None:
        self._cache = cache
        self.dated: Callable[[], float] = wall.now  # by which the validity of keys is judged
        self._manufacturers = manufacturers
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._genuine: dict[_Key, tuple[VerifiedRelease, Payload]] = {}  # read whole and found to be what these say
        self._refused: dict[_Key, tuple[str, str]] = {}
        self._again: set[_Key] = set()  # refused by older metadata: tried again, and refused until then
        self._problems: dict[_Key, tuple[str, str]] = {}  # that pass
        self._logged: dict[_Key, str] = {}
        self._judgements = 0
        self.progress: dict[str, tuple[int, int]] = {}  # of running downloads: bytes in the cache, size; by digest
        cache.rotten = self._rotten
        self._needed: frozenset[str] | None = None
        self._cleaned: frozenset[str] | None = None  # what was needed when no part of anything else was left
        self.changed: Callable[[], None] = lambda: None

    def blocked(self, release: VerifiedRelease, payload: Payload) -> tuple[str, str] | None:
        """None when the payload may go on air for the release; else (code, detail)."""
        key = _key(release, payload)
        if (why := self._refusal(release, payload)) is not None:
            return why
        being = "fetched"
        if key in self._genuine:
            if not self._cache.has(payload.sha256, payload):
                del self._genuine[key]  # evicted while no campaign wanted it
            elif self.doubted(release, payload):
                being = "checked again"
            else:
                return None
        return self._problems.get(key, (FETCHING, f"payload {payload.sha256[:12]} is being {being}"))

    def forbidden(self, release: VerifiedRelease, payload: Payload) -> bool:
        """Whether the payload is refused for the release, not merely missing."""
        return self._refusal(release, payload) is not None

    def doubted(self, release: VerifiedRelease, payload: Payload) -> bool:
        """Whether it was ready for a release that says something else by now: not a byte before it is checked again."""
        known = self._genuine.get(_key(release, payload))
        return known is not None and known[0].body != release.body

    def require(self, group: asyncio.TaskGroup, release: VerifiedRelease, payload: Payload) -> None:
        """See to it that the payload becomes ready; returns at once. A refused one waits for newer metadata."""
        key = _key(release, payload)
        if key in self._tasks or (key in self._refused and key not in self._again):
            return
        if key in self._genuine and not self.doubted(release, payload):
            return
        self._again.discard(key)
        if self._needed is not None:
            self._needed |= {payload.sha256}  # until the next `keep`
        task = group.create_task(self._obtain(release, payload), name=f"payload-{payload.sha256[:12]}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def judge_again(self) -> None:
        """Newer metadata may take what older ones refused: it is tried again, and stays refused until then."""
        self._again |= self._refused.keys()
        self._judgements += 1

    @property
    def needed(self) -> frozenset[str] | None:
        """Digests that may not be evicted; None until all campaigns were looked at once: nothing may."""
        return None if self._needed is None else self._needed | self._being_fetched()

    async def keep(self, wanted: frozenset[str], transfers: frozenset[str], *, complete: bool) -> None:
        """What the campaigns want, after a look at all of them; anything else may be evicted. StoreError.

        The file of a transfer that a node is in stays too, whether or not anybody may say any more what it is: the node is
        part-way, and its release may be listed again. `complete`: no campaign is unknown, so parts of anything else can go.
        """
        nameless = [t for t in transfers if not any(is_transfer_of(t, digest) for digest in wanted)]
        if nameless:
            held = await asyncio.to_thread(self._cache.digests)
            wanted |= {digest for digest in held if any(is_transfer_of(t, digest) for t in nameless)}
        self._needed = wanted
        needed = wanted | self._being_fetched()
        if complete:
            if self._cleaned is None or self._cleaned - needed:
                await asyncio.to_thread(self._cache.clean, needed)
            self._cleaned = needed

    def status(self) -> Json:
        """For operators: by digest, what is being fetched or is wrong."""
        wrong = {**self._problems, **self._refused}
        for key, (release, payload) in self._genuine.items():
            wrong.pop(key, None)
            if (why := self._refusal(release, payload)) is not None:
                wrong[key] = why
        found: dict[str, Json] = {
            digest: {"release": release, "problem": code, "detail": detail}
            for (release, digest), (code, detail) in wrong.items()
        }
        found |= {digest: {"held": held, "size": size} for digest, (held, size) in self.progress.items()}
        return found

    def _refusal(self, release: VerifiedRelease, payload: Payload) -> tuple[str, str] | None:
        key = _key(release, payload)
        if (why := self._refused.get(key)) is not None or key not in self._genuine:
            return why
        try:
            verify_signer(payload, release, self._manufacturers(), self.dated())
        except Refused as error:
            self._log_refused(key, error)
            return error.code, error.detail
        self._logged.pop(key, None)
        return None

    def _log_refused(self, key: _Key, error: Refused) -> None:
        if self._logged.get(key) != error.code:
            self._logged[key] = error.code
            log.error("payload_refused", payload=key[1], release=key[0], code=error.code, detail=error.detail)

    def _being_fetched(self) -> set[str]:
        return {digest for _, digest in self._tasks}

    def _rotten(self, digest: str) -> None:
        """A read met rot: nothing of the payload goes on air before its bad chunks are fetched again."""
        for key in [key for key in self._genuine if key[1] == digest]:
            del self._genuine[key]
        self.changed()

    async def _obtain(self, release: VerifiedRelease, payload: Payload) -> None:
        pause = RETRY_MIN_S
        key, digest = _key(release, payload), payload.sha256
        judgement = self._judgements
        may_mend = self._cache.has(digest, payload)
        while True:
            try:
                await self._fetched(release, payload, may_mend=may_mend)
            except Refused as error:
                # By metadata that are not the newest any more (a key may be listed by now): the next `require` does it again.
                if judgement == self._judgements:
                    self._log_refused(key, error)
                    self._refused[key] = (error.code, error.detail)
                    self._genuine.pop(key, None)
            except (Unavailable, StoreError, ImageError) as error:
                code = error.code if isinstance(error, GatewaydError) else "unreadable"
                log.warning("payload_unavailable", payload=digest, error=str(error), retry_s=pause)
                self._problems[key] = (f"payload_{code}", str(error))
                self.changed()
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_S)
                if self._needed is None or digest in self._needed:
                    continue
                return
            else:
                self._problems.pop(key, None)
                self._refused.pop(key, None)
                self._genuine[key] = release, payload
                log.info("payload_ready", payload=digest, bytes=payload.size, release=release.path)
            self.changed()
            return

    async def _fetched(self, release: VerifiedRelease, payload: Payload, *, may_mend: bool) -> None:
        """The payload is in the cache and genuine; what rotted there is fetched again, those chunks only."""
        await self._fetch(payload)
        try:
            await self._check(release, payload)
        except Refused as error:
            if not may_mend or error.code != "tampered":
                raise
            log.error("payload_rotten", payload=payload.sha256, detail=error.detail)
            await asyncio.to_thread(self._cache.reopen, payload)
            await self._fetch(payload)
            await self._check(release, payload)
        self._cache.guard(payload)

    async def _fetch(self, payload: Payload) -> None:
        def tell(held: int, size: int) -> None:
            self.progress[payload.sha256] = held, size

        try:
            await self.fetcher.fetch(payload, tell)
        finally:
            self.progress.pop(payload.sha256, None)

    async def _check(self, release: VerifiedRelease, payload: Payload) -> None:
        chunks, manufacturers, now = self._chunks(payload), self._manufacturers(), self.dated()
        await asyncio.to_thread(verify_payload, chunks, payload, release, manufacturers, now)

    def _chunks(self, payload: Payload) -> Iterator[bytes]:
        for offset in range(0, payload.size, _READ_BYTES):
            yield self._cache.read_raw(payload.sha256, offset, _READ_BYTES)


def _key(release: VerifiedRelease, payload: Payload) -> _Key:
    return release.path, payload.sha256
