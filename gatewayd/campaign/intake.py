"""Campaign envelopes from the cloud: verified, compared with what is stored, adopted or refused with a report.

A refused envelope changes nothing and stops nothing. One that cannot be judged yet (no trust metadata, a clock that cannot
be believed) is kept in memory; it is retained by the broker, so nothing is lost with this process. The same refused
bytes come again with every connection: they are reported once.
"""

import hashlib
import sqlite3
from typing import TypeVar

import structlog

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.reports import campaign_report, refusal_report
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import DATES_IN_DOUBT
from gatewayd.cloud.outbox import Outbox, append
from gatewayd.errors import Refused, Unavailable
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.store.witness import Witness, check_revision, touch
from gatewayd.trust.envelope import VerifiedCampaign

WAITING_MAX = 64  # envelopes of up to 64 kB in memory; the broker keeps the rest
NAME_MAX = 64  # of a campaign
_REMEMBERED_MAX = 256

K = TypeVar("K")

log = structlog.get_logger()


class Intake:
    """One per daemon; `take` is the MQTT link's handler."""

    def __init__(
        self,
        authority: Authority,
        database: Database,
        outbox: Outbox,
        wall: WallClock,
        witness: Witness | None = None,
    ) -> None:
        self._witness = witness
        self._authority = authority
        self._database = database
        self._outbox = outbox
        self._wall = wall
        self._waiting: dict[str, bytes] = {}
        self._unknown_key: dict[str, bytes] = {}  # judged again when other keys are listed
        self._undated: dict[str, bytes] = {}  # whose dates are judged once there is a date that can be believed
        self._refreshed_for: dict[bytes, None] = {}
        self._told: dict[tuple[str, bytes, str], None] = {}  # refusals that were reported

    async def take(self, topic: str, raw: bytes) -> bool:
        """Whether something was adopted. Never raises for what the document says; Unavailable, StoreError: ask again."""
        if not raw:
            return False  # an emptied topic changes nothing; only a signed `cancelled` cancels
        self._unknown_key.pop(topic, None)
        self._undated.pop(topic, None)
        if not self._can_judge():
            if topic not in self._waiting and len(self._waiting) >= WAITING_MAX:
                raise Unavailable(f"{topic}: {WAITING_MAX} campaigns wait to be judged")
            self._waiting[topic] = raw
            self._authority.soon()
            return False
        self._waiting.pop(topic, None)  # an older one
        try:
            verified = await self._verified(topic, raw)
            return await self._adopt(topic, verified)
        except Refused as error:
            if error.code == "expired" and self._dates_in_doubt():
                if len(self._undated) >= WAITING_MAX:
                    raise Unavailable(
                        f"{topic}: {WAITING_MAX} campaigns wait for a date that can be believed"
                    ) from error
                log.warning("campaign_not_dated", topic=topic, detail=error.detail)
                self._undated[topic] = raw
                self._authority.soon()
                return False
            if error.code == "unknown_key" and len(self._unknown_key) < WAITING_MAX:
                self._unknown_key[topic] = raw
            await self._refuse(topic, raw, error)
            return False

    async def retry(self) -> bool:
        """Judge again what could not be judged before."""
        if self._undated and not self._dates_in_doubt():
            waiting, self._undated = self._undated, {}
            self._waiting = {**waiting, **self._waiting}
        adopted = False
        while self._waiting and self._can_judge():
            topic, raw = next(iter(self._waiting.items()))
            try:
                adopted |= await self.take(topic, raw)
            except BaseException:
                self._waiting.setdefault(topic, raw)
                raise
        return adopted

    def judge_again(self) -> None:
        """Other keys may be listed now: what was by an unknown one waits for the next `retry`."""
        waiting, self._unknown_key = self._unknown_key, {}
        for topic, raw in waiting.items():
            self._waiting.setdefault(topic, raw)

    def _can_judge(self) -> bool:
        why = self._authority.blocked(self._wall.now())  # which may derive the clock again
        return self._authority.view is not None and (why is None or why[0] != "clock_untrusted")

    def _dates_in_doubt(self) -> bool:
        """A leap into the future makes metadata and campaigns look old together; a cancel is taken all the same."""
        why = self._authority.blocked(self._wall.now())
        return why is not None and why[0] in DATES_IN_DOUBT

    async def _verified(self, topic: str, raw: bytes) -> VerifiedCampaign:
        try:
            return self._authority.verify(raw, topic)
        except Refused as error:
            # The key may be newer than our metadata: look once, for each envelope.
            digest = hashlib.sha256(raw).digest()
            if error.code != "unknown_key" or digest in self._refreshed_for:
                raise
            _remember(self._refreshed_for, digest)
            await self._authority.refresh()
            return self._authority.verify(raw, topic)

    async def _adopt(self, topic: str, verified: VerifiedCampaign) -> bool:
        document = verified.document
        now = self._wall.now()

        def transaction(db: sqlite3.Connection) -> bool:
            check_revision(db, document.id, document.revision, verified.digest)
            known = rows.campaign(db, document.id)
            if known is not None and not _is_news(known, verified):
                return False
            if known is None and verified.expired(now):
                raise Refused("expired", f"campaign {document.id} expired at {document.expires.isoformat()}")
            row = CampaignRow(
                id=document.id,
                topic=topic,
                audience=document.audience,
                revision=document.revision,
                digest=verified.digest,
                envelope=verified.envelope,
                release=document.release,
                state=CampaignState.WAITING,
                code="",
                detail="",
                hold=known.hold if known else False,
                open_tiers=known.open_tiers if known else 1,
                gate=known.gate if known else "",
                adopted_at=known.adopted_at if known else now,
                updated_at=now,
            )
            rows.put_campaign(db, row)
            touch(db)
            append(db, [campaign_report(row, now)])
            return True

        async with self._authority.storing:
            adopted = await self._database.write(transaction)
            if adopted:
                if self._witness is not None:
                    await self._witness.write()
                log.info("campaign_adopted", campaign=document.id, revision=document.revision, desired=document.desired)
            held = self._authority.campaigns.get(document.id)
            # Not held although it is stored: its key was not listed until now, or the daemon was interrupted after the write.
            if adopted or held is None or held.document.revision < document.revision:
                self._authority.adopted(verified)
        if adopted:
            self._outbox.notify()
        return adopted

    async def _refuse(self, topic: str, raw: bytes, error: Refused) -> None:
        told = (topic, hashlib.sha256(raw).digest(), error.code)
        if told in self._told:
            return
        campaign = topic.rpartition("/")[2][:NAME_MAX]  # a topic may be longer than a report
        log.error("campaign_refused", topic=topic, code=error.code, detail=error.detail)
        report = refusal_report(campaign, error.code, error.detail, self._wall.now())
        await self._database.write(lambda db: append(db, [report]))
        _remember(self._told, told)
        self._outbox.notify()


def _remember(memory: dict[K, None], key: K) -> None:
    memory[key] = None
    if len(memory) > _REMEMBERED_MAX:
        del memory[next(iter(memory))]


def _is_news(known: CampaignRow, verified: VerifiedCampaign) -> bool:
    """True for a higher revision, False for the one we hold; Refused for anything else."""
    document = verified.document
    if document.revision < known.revision:
        raise Refused("replayed", f"campaign {known.id}: revision {document.revision} after {known.revision}")
    if document.revision == known.revision:
        if verified.digest != known.digest:
            raise Refused("conflict", f"campaign {known.id}: revision {known.revision} comes with other bytes")
        return False
    if (document.release, document.audience) != (known.release, known.audience):
        raise Refused("conflict", f"campaign {known.id}: a revision changes neither the release nor the audience")
    if known.state is CampaignState.CANCELLED:
        raise Refused("conflict", f"campaign {known.id} was cancelled, for good")
    return True
