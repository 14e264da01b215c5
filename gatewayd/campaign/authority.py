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
from gatewayd.cloud.messages import RELEASE_MAX_BYTES, Campaign, Manufacturers, Release, parse
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
        self.storing = asyncio.Lock()  # held from a write of what is to be believed until it is, and while all is read
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
        self._unjudged = False  # what is stored has not been read since the view came
        self._said_at = 0.0  # Unix seconds, that the repository is not there

    def manufacturers(self) -> Manufacturers:
        """Whose keys and which floors count now; nobody's before there is a view."""
        return Manufacturers(keys=()) if self.view is None else self.view.manufacturers

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

    def _judge_held(self) -> None:
        """What is believed, by the view we have now: newer metadata may have withdrawn a release, or revoked a key.

        Without the store, and without giving up the loop: there is no moment in which the old belief stands beside the new view.
        """
        for path, release in list(self.releases.items()):
            self._judge_release(path, release.body)
        for campaign in list(self.campaigns.values()):
            self.adopted(campaign)

    async def _judge_stored(self) -> None:
        """All that is stored: what older metadata did not vouch for may count by now."""
        async with self.storing:
            stored, releases = await self._database.read(lambda db: (rows.campaigns(db), rows.releases(db)))
            for path, body in releases.items():
                self._judge_release(path, body)
            for row in stored:
                self._judge_campaign(row.id, row.envelope, row.topic)

    def _judge_release(self, path: str, body: bytes) -> None:
        try:
            self.releases[path] = self._repository.reverify_release(path, body)
            self._release_problems.pop(path, None)
            self.withdrawn.pop(path, None)
        except Refused as error:
            self.releases.pop(path, None)
            self._remember(path, body, error.code)
            self._release_failed(path, error.code, error.detail)

    def _judge_campaign(self, campaign: str, envelope: bytes, topic: str | None) -> None:
        if self.view is None:
            return
        try:
            verified = reverify_campaign(envelope, self.view.campaign_keys, self._audiences, topic)
        except Refused as error:
            self.campaigns.pop(campaign, None)
            if campaign not in self.revoked:
                log.error("campaign_revoked", campaign=campaign, code=error.code, detail=error.detail)
            self.revoked.add(campaign)
        else:
            self.campaigns[campaign] = verified
            self.revoked.discard(campaign)

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

    def adopted(self, campaign: VerifiedCampaign) -> None:
        """It is stored: act on it from now on, if it still verifies. Newer metadata may have come while it was written."""
        self._judge_campaign(campaign.document.id, campaign.envelope, None)

    def believes(self, document: Campaign, release: VerifiedRelease) -> bool:
        """Whether both still count: newer metadata may have come since they were looked up."""
        campaign, known = self.campaigns.get(document.id), self.releases.get(release.path)
        return (
            campaign is not None and campaign.document == document and known is not None and known.body == release.body
        )

    def verify(self, envelope: bytes, topic: str) -> VerifiedCampaign:
        """Refused when the envelope is not by a key listed for its audience, or not for this gateway."""
        if self.view is None:
            raise Unavailable("no trust metadata yet")
        return verify_campaign(envelope, self.view.campaign_keys, self._audiences, self._wall.now(), topic)

    async def refresh(self) -> None:
        """Ask the repository for newer metadata now; on trouble the old view stays and `problem` says why.

        Newer metadata judge at once what older ones let in, before anything else may start by it.
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
        if self.view is None or (_versions(self.view) == _versions(before) and not self._unjudged):
            return
        self._judge_held()
        self._asked.clear()  # what was refused may be listed by now
        self.view_changed()
        self._unjudged = True  # until it is done: we may be interrupted
        try:
            await self._judge_stored()
            self._unjudged = False
        except StoreError as error:  # what is believed has been judged; what is only stored is, at the next refresh
            log.error("store_failed", error=str(error))
            self.problem = ("trust_not_stored", str(error))
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

            async with self.storing:
                await self._database.write(keep)
                # Again, because newer metadata may have come while it was written.
                release = self._repository.reverify_release(path, release.body)
                self.releases[path] = release
                self.withdrawn.pop(path, None)
                self._release_problems.pop(path, None)
        except Unavailable as error:
            self._release_failed(path, "release_unavailable", str(error))
            self.soon()
        except StoreError as error:
            self._release_failed(path, "release_not_stored", str(error))
            self.soon()
        except Refused as error:
            self._release_failed(path, error.code, error.detail)
        else:
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
