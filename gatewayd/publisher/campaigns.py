"""Building, signing, issuing and changing campaigns.

The broker's retained envelope is the record of what a campaign is now; a change is the next revision of it. It is trusted
only when one of our own keys has signed it, since the broker may hold anything.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import aiomqtt
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import (  # type: ignore[attr-defined] # public names, but not in its __all__
    Signer,
    SSlibKey,
)

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Campaign, Desired
from gatewayd.errors import ConfigError, Refused
from gatewayd.publisher.broker import BrokerSettings, connected, publish_retained, retained
from gatewayd.trust.envelope import PAYLOAD_TYPE, reverify_campaign

DEFAULT_LIFETIME_S = 7 * 86400.0


def new_campaign(
    campaign: str,
    release: str,
    audience: str,
    now: float,
    *,
    lifetime_s: float = DEFAULT_LIFETIME_S,
    selection: messages.Selection | None = None,
    rollout: messages.Rollout | None = None,
    policy: messages.Policy | None = None,
) -> Campaign:
    """Revision 1, running. ConfigError names every field that is out of range."""
    values = {
        "id": campaign,
        "audience": audience,
        "revision": 1,
        "issued": messages.utc(int(now)),
        "expires": messages.utc(int(now + lifetime_s)),
        "desired": Desired.RUNNING,
        "release": release,
        "selection": selection or messages.Selection(),
        "rollout": rollout or messages.Rollout(),
        "policy": policy or messages.Policy(),
    }
    return validated(Campaign, values, f"campaign {values['id']}")


def revise(
    held: Campaign,
    now: float,
    *,
    desired: Desired | None = None,
    open_tiers: int | None = None,
    lifetime_s: float | None = None,
    retry: messages.Retry | None = None,
) -> Campaign:
    """The next revision; what an earlier one asked to `retry` is carried on, and not asked again. An expiry that is past is moved on by the campaign's own lifetime, or by `lifetime_s`.

    ConfigError for a cancelled campaign, which stays so, and for more tiers than there are.
    """
    if held.desired is Desired.CANCELLED:
        raise ConfigError(f"campaign {held.id} is cancelled, for good; start another one")
    if open_tiers is not None and not 1 <= open_tiers <= len(held.rollout.tiers):
        raise ConfigError(f"campaign {held.id} has {len(held.rollout.tiers)} tiers, {open_tiers} cannot be open")
    expires = held.expires.timestamp()
    if lifetime_s is not None:
        expires = now + lifetime_s
    elif expires <= now:
        expires = now + (held.expires - held.issued).total_seconds()
    asked, by = (retry, held.revision + 1) if retry else (held.retry, held.revision)
    if asked is not None and asked.revision is None:
        asked = asked.model_copy(update={"revision": by})
    rollout = held.rollout if open_tiers is None else held.rollout.model_copy(update={"open_tiers": open_tiers})
    values = {name: getattr(held, name) for name in Campaign.model_fields}
    values |= {
        "revision": held.revision + 1,
        "issued": messages.utc(int(now)),
        "expires": messages.utc(int(expires)),
        "desired": desired or held.desired,
        "rollout": rollout,
        "retry": asked,
    }
    return validated(Campaign, values, f"campaign {values['id']}")


def sign_campaign(document: Campaign, signer: Signer) -> bytes:
    """The envelope as it goes on the wire. Refused("too_large") above what a gateway takes."""
    envelope = Envelope(messages.dump(document), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    raw = json.dumps(envelope.to_dict(), separators=(",", ":")).encode()
    if len(raw) > messages.DOCUMENT_MAX_BYTES:
        raise Refused("too_large", f"campaign {document.id}: {len(raw)} bytes, at most {messages.DOCUMENT_MAX_BYTES}")
    return raw


async def issue(broker: BrokerSettings, document: Campaign, signer: Signer) -> bytes:
    """Sign and publish (retained), and see that the broker holds it; returns the envelope. Unavailable."""
    raw = sign_campaign(document, signer)
    topic = messages.campaign_topic(document.audience, document.id)
    async with connected(broker) as client:
        await publish_retained(broker, client, topic, raw)
    return raw


async def start(broker: BrokerSettings, document: Campaign, signer: Signer) -> Campaign:
    """Issue a new campaign. ConfigError when the broker holds one of this id already."""
    if (held := await current(broker, document.audience, document.id, signer)) is not None:
        raise ConfigError(
            f"campaign {held.id} exists: revision {held.revision}, {held.desired}; change it, or name another"
        )
    await issue(broker, document, signer)
    return document


async def current(broker: BrokerSettings, audience: str, campaign: str, signer: Signer) -> Campaign | None:
    """The campaign that the broker holds; None when there is none. Refused when our key has not signed it."""
    async with connected(broker) as client:
        return await _held(broker, client, audience, campaign, signer)


async def change(
    broker: BrokerSettings,
    audience: str,
    campaign: str,
    signer: Signer,
    now: float,
    *,
    desired: Desired | None = None,
    open_tiers: int | None = None,
    lifetime_s: float | None = None,
) -> Campaign:
    """Issue the next revision of what the broker holds; see `revise`. ConfigError when there is no such campaign."""
    return await _changed(
        broker,
        audience,
        campaign,
        signer,
        lambda held: revise(held, now, desired=desired, open_tiers=open_tiers, lifetime_s=lifetime_s),
    )


async def retry(
    broker: BrokerSettings, audience: str, campaign: str, signer: Signer, now: float, wanted: messages.Retry
) -> Campaign:
    """Have nodes tried anew that have failed, rolled back, or been moved by other hands; see `change`."""
    return await _changed(broker, audience, campaign, signer, lambda held: revise(held, now, retry=wanted))


async def advance(broker: BrokerSettings, audience: str, campaign: str, signer: Signer, now: float) -> Campaign:
    """Open one more tier; see `change`."""
    return await _changed(
        broker,
        audience,
        campaign,
        signer,
        lambda held: revise(held, now, open_tiers=held.rollout.open_tiers + 1),
    )


def digest_of(raw: bytes) -> str:
    """SHA-256 of what an envelope signs, as gateways report it."""
    return hashlib.sha256(Envelope.from_dict(json.loads(raw)).payload).hexdigest()


def validated(kind: type[messages.D], values: dict[str, object], what: str) -> messages.D:
    """The document, or ConfigError with every field that is out of range."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or what}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{what}: {faults}") from error


async def _changed(
    broker: BrokerSettings, audience: str, campaign: str, signer: Signer, revised: Callable[[Campaign], Campaign]
) -> Campaign:
    async with connected(broker) as client:
        held = await _held(broker, client, audience, campaign, signer)
        if held is None:
            raise ConfigError(f"the broker holds no campaign {campaign} for {audience}")
        document = revised(held)
        raw = sign_campaign(document, signer)
        await publish_retained(broker, client, messages.campaign_topic(audience, campaign), raw)
    return document


async def _held(
    broker: BrokerSettings, client: aiomqtt.Client, audience: str, campaign: str, signer: Signer
) -> Campaign | None:
    topic = messages.campaign_topic(audience, campaign)
    raw = await retained(client, topic, broker.retained_wait_s)
    if not raw:
        return None
    return reverify_campaign(raw, _own_keys([signer], audience), frozenset({audience}), topic).document


def _own_keys(signers: Sequence[Signer], audience: str) -> messages.CampaignKeys:
    entries = []
    for signer in signers:
        public = signer.public_key
        if not isinstance(public, SSlibKey):
            raise ConfigError(f"campaign key {public.keyid} is of a kind that gateways do not take")
        entries.append(messages.CampaignKey(keyid=public.keyid, public=public.keyval["public"], audiences=(audience,)))
    return messages.CampaignKeys(keys=tuple(entries))
