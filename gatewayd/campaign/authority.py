"""What this gateway may believe now: the trust view, the verified campaigns and the verified releases.

Everything here came through trust/. It is kept in the store as it was signed, and verified again after a restart, offline
too; the rest of the daemon sees only `VerifiedCampaign` and `VerifiedRelease`.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable

import structlog

from gatewayd.campaign import rows
from gatewayd.campaign.situation import DATES_IN_DOUBT
from gatewayd.cloud.messages import RELEASE_MAX_BYTES, Release, parse
from gatewayd.errors import Refused, StoreError, Unavailable
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.envelope import VerifiedCampaign, reverify_campaign, verify_campaign
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.repository import TrustRepository, TrustView

RETRY_MIN_S = 5.0
UNAVAILABLE_AGAIN_S = 3600.0  # between two lines of the log that say the same
_PASSING = ("release_unavailable", "release_not_stored")

log = structlog.get_logger()


class Authority:
    """`changed` is called when there is something new to believe."""

    def __init__(
        self,
        repository: TrustRepository,
        database: Database,
        wall: WallClock,
        audiences: frozenset[str],
        refresh_s: float,
    ) -> None:
        self._repository = repository
        self._database = database
        self._wall = wall
        self._audiences = audiences
        self._refresh_s = refresh_s
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        self.view_changed: Callable[[], None] = lambda: None
        self.view: TrustView | None = None
        self.problem: tuple[str, str] | None = ("trust_unknown", "the repository has not been read yet")
        self.campaigns: dict[str, VerifiedCampaign] = {}
        self.releases: dict[str, VerifiedRelease] = {}
        self.withdrawn: dict[str, Release] = {}  # verified once, not any more: what they were called, and nothing else
        self.revoked: set[str] = set()  # stored campaigns whose envelope is not by a listed key (any more)
        self._release_problems: dict[str, tuple[str, str]] = {}
        self._logged_problems: dict[str, str] = {}
        self._asked: set[str] = set()  # releases asked for since the last refresh
        self._said_at = 0.0  # Unix seconds, that the repository is not there

    def blocked(self, now: float) -> tuple[str, str] | None:
        """Why nothing new may start at `now`: (code, detail); None when trust is fresh and the clock can be believed.

        Who judges other dates with the answer takes the same `now`: the clock may be stepped between two readings.
        """
        if not self._wall.trusted():
            self._rederive_clock()
        if not self._wall.trusted():
            return "clock_untrusted", self._wall.reason
        if self.view is None:
            return self.problem or ("trust_unknown", "")
        if now > self.view.expires:
            return "trust_expired", "the signed metadata has expired and no newer could be had: " + (
                self.problem[1] if self.problem else ""
            )
        return None

    def dated(self) -> float:
        """By which the validity of keys is judged: now, or the last check with the repository while now is in doubt."""
        now = self._wall.now()
        why = self.blocked(now)
        return self.view.checked_at if self.view is not None and why is not None and why[0] in DATES_IN_DOUBT else now

    def _rederive_clock(self) -> None:
        """Synchronised time against a stored one that contradicts it: the newest signed `issued` decides."""
        issued = [campaign.document.issued.timestamp() for campaign in self.campaigns.values()]
        self._wall.rederive(max(issued, default=0.0))

    def release_problem(self, path: str) -> tuple[str, str]:
        return self._release_problems.get(path, ("release_fetching", f"{path} is being fetched"))

    def release_refused(self, path: str) -> bool:
        """Whether the release was refused (withdrawn, say), not merely out of reach."""
        code = self._release_problems.get(path, ("", ""))[0]
        return code not in ("", *_PASSING)

    async def restore(self) -> None:
        """At start: verify again what is stored. What does not verify is left aside and said so."""
        self.view = await self._repository.restore()
        if self.view is None:
            return
        await self._judge_stored()
        log.info("trust_restored", campaigns=len(self.campaigns), releases=len(self.releases))

    async def _judge_stored(self) -> None:
        """All that is stored, by the view we have now: newer metadata may have withdrawn a release, or revoked a key."""
        if self.view is None:
            return
        campaigns, releases = await self._database.read(lambda db: (rows.campaigns(db), rows.releases(db)))
        for path, body in releases.items():
            try:
                self.releases[path] = await self._repository.reverify_release(path, body)
                self._release_problems.pop(path, None)
                self.withdrawn.pop(path, None)
            except Refused as error:
                self.releases.pop(path, None)
                self._remember(path, body, error.code)
                self._release_failed(path, error.code, error.detail)
        for row in campaigns:
            try:
                verified = reverify_campaign(row.envelope, self.view.campaign_keys, self._audiences, row.topic)
            except Refused as error:
                if self._held_revision(row.id) <= row.revision:
                    self.campaigns.pop(row.id, None)
                    if row.id not in self.revoked:
                        log.error("campaign_revoked", campaign=row.id, code=error.code, detail=error.detail)
                    self.revoked.add(row.id)
            else:
                if self._held_revision(row.id) <= row.revision:  # else: adopted since the rows were read
                    self.adopted(verified)

    def known(self) -> list[Release]:
        """All releases that were ever verified here, to order versions by; only those in `releases` may be delivered."""
        return [*(release.document for release in self.releases.values()), *self.withdrawn.values()]

    def security_version(self, path: str) -> int | None:
        """Of a release that was verified here once, withdrawn or not; None of any other."""
        held = self.releases.get(path)
        document = self.withdrawn.get(path) if held is None else held.document
        return None if document is None else document.security_version

    def _remember(self, path: str, body: bytes, why: str) -> None:
        """A release that is refused now was verified before it was stored; unless the store was tampered with."""
        self.withdrawn.pop(path, None)
        if why != "tampered":
            with contextlib.suppress(Refused):
                self.withdrawn[path] = parse(Release, body, path, RELEASE_MAX_BYTES)

    def _held_revision(self, campaign: str) -> int:
        held = self.campaigns.get(campaign)
        return 0 if held is None else held.document.revision

    def adopted(self, campaign: VerifiedCampaign) -> None:
        """What is stored was verified: act on it from now on."""
        self.campaigns[campaign.document.id] = campaign
        self.revoked.discard(campaign.document.id)

    def verify(self, envelope: bytes, topic: str) -> VerifiedCampaign:
        """Refused when the envelope is not by a key listed for its audience, or not for this gateway."""
        if self.view is None:
            raise Unavailable("no trust metadata yet")
        return verify_campaign(envelope, self.view.campaign_keys, self._audiences, self._wall.now(), topic)

    async def refresh(self) -> None:
        """Ask the repository for newer metadata now; on trouble the old view stays and `problem` says why.

        Newer metadata judge at once what older ones let in: payloads are doubted before anything else may start by them.
        """
        async with self._lock:
            before = self.view
            try:
                self.view = await self._repository.refresh()
                self.problem = None
            except Unavailable as error:
                self._say_unavailable(str(error))
            except Refused as error:
                self.problem = (error.code, error.detail)
                log.error("trust_refused", code=error.code, detail=error.detail)
            except StoreError as error:
                self.problem = ("trust_not_stored", str(error))
                log.error("trust_not_stored", error=str(error))
        if self.view is not None and _versions(self.view) != _versions(before):
            self.view_changed()
            try:
                await self._judge_stored()
            except StoreError as error:  # judged again by what is in the memory at the next refresh
                log.error("store_failed", error=str(error))
                self.view, self.problem = before, ("trust_not_stored", str(error))
                return
            self.changed()

    def _say_unavailable(self, error: str) -> None:
        """Logged when it is news, then once in a while: a site may be offline for weeks."""
        problem, now = ("trust_unavailable", error), self._wall.now()
        if problem != self.problem or not 0 <= now - self._said_at < UNAVAILABLE_AGAIN_S:
            log.warning("trust_unavailable", error=error)
            self._said_at = now
        self.problem = problem

    def require_release(self, group: asyncio.TaskGroup, path: str) -> VerifiedRelease | None:
        """The verified release; None while it is fetched or cannot be had (`release_problem` says why). Returns at once."""
        if path not in self.releases and path not in self._asked and self.view is not None:
            self._asked.add(path)  # once between two refreshes
            group.create_task(self._obtain_release(path), name=f"release-{path}")
        return self.releases.get(path)

    async def _obtain_release(self, path: str) -> None:
        try:
            if not self._repository.lists(path):
                # Here and not within `release`: metadata that list it may also revoke keys that others stand on.
                await self.refresh()
                self._raise_problem()
            release = await self._repository.release(path)

            def keep(db: sqlite3.Connection) -> None:
                rows.put_release(db, path, release.body, self._wall.now())

            await self._database.write(keep)
        except Unavailable as error:
            self._release_failed(path, "release_unavailable", str(error))
            self.soon()
        except StoreError as error:
            self._release_failed(path, "release_not_stored", str(error))
            self.soon()
        except Refused as error:
            self._release_failed(path, error.code, error.detail)
        else:
            self._release_problems.pop(path, None)
            self.releases[path] = release
            self.withdrawn.pop(path, None)
            log.info("release_verified", release=path, version=release.document.version)
        self.changed()

    def _raise_problem(self) -> None:
        if self.problem is None:
            return
        code, detail = self.problem
        if code == "trust_unavailable":
            raise Unavailable(detail)
        if code == "trust_not_stored":
            raise StoreError(detail)
        raise Refused(code, detail)

    def _release_failed(self, path: str, code: str, detail: str) -> None:
        self._release_problems[path] = (code, detail)
        if self._logged_problems.get(path) != code:  # it is asked again at every refresh
            self._logged_problems[path] = code
            log.error("release_refused", release=path, code=code, detail=detail)

    def soon(self) -> None:
        """Refresh before the regular time, though not before the pause after the last one is over."""
        self._wake.set()

    async def run(self) -> None:
        """Refresh every `refresh_s`, sooner while there is trouble or somebody asks, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = RETRY_MIN_S
        while True:
            await self.refresh()
            refreshed_at = loop.time()
            self._asked.clear()
            self.changed()
            early = False
            while True:
                trouble = self.problem is not None or bool(self._release_problems)
                wait = min(pause, self._refresh_s) if trouble or early else self._refresh_s
                self._wake.clear()
                try:
                    async with asyncio.timeout_at(refreshed_at + wait):
                        await self._wake.wait()
                except TimeoutError:
                    break
                early = True
            pause = min(pause * 2, self._refresh_s) if trouble else RETRY_MIN_S


def _versions(view: TrustView | None) -> tuple[object, ...]:
    """What tells one set of metadata from another; the time of the check does not."""
    if view is None:
        return ()
    return view.root_version, view.targets_version, view.snapshot_version, tuple(sorted(view.problems.items()))
