"""Campaigns as signed envelopes (DSSE) and who may sign for whom. PURE.

A campaign is verified when a key that the signed metadata lists for its audience has signed exactly these bytes, and it
is meant for this gateway, under the topic it came on, now. Revisions (replay, conflict) are for who keeps campaigns.
"""

import hashlib
from dataclasses import InitVar, dataclass
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, StringConstraints
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.seal import SEAL, check_seal

PAYLOAD_TYPE = "application/vnd.gatewayd.campaign+json"
CLOCK_SKEW_S = 300.0  # an `issued` this far ahead of our clock is still taken
RSA_MINIMUM_BITS = 3072


@dataclass(frozen=True, slots=True)
class VerifiedCampaign:
    """A campaign whose signature, audience and topic are right. Only trust/ can make one."""

    document: messages.Campaign
    envelope: bytes  # as received: keep it, and verify it again after a restart
    digest: str  # SHA-256 of the signed payload: the same revision with another digest is a conflict
    keyid: str  # who signed
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        check_seal(seal, "VerifiedCampaign")

    def expired(self, now: float) -> bool:
        """After this no new transfer starts."""
        return now >= self.document.expires.timestamp()


def verify_campaign(
    raw: bytes, keys: messages.CampaignKeys, audiences: frozenset[str], now: float, topic: str | None
) -> VerifiedCampaign:
    """The campaign in an envelope that has just arrived.

    `audiences` are the gateway's own ("gateway:<id>", "fleet:<id>"...); `topic` is where it came from, None when by hand.
    Refused: too_large, bad_document, unknown_key, bad_signature, wrong_audience, expired, not_yet_valid.
    """
    campaign = reverify_campaign(raw, keys, audiences, topic)
    document = campaign.document
    if campaign.expired(now):
        raise Refused("expired", f"campaign {document.id} revision {document.revision}: since {document.expires}")
    if document.issued.timestamp() > now + CLOCK_SKEW_S:
        raise Refused("not_yet_valid", f"campaign {document.id}: issued {document.issued}, it is {messages.utc(now)}")
    return campaign


def reverify_campaign(
    raw: bytes, keys: messages.CampaignKeys, audiences: frozenset[str], topic: str | None
) -> VerifiedCampaign:
    """As `verify_campaign`, but without its dates: for what was accepted earlier. Ask `expired(now)` before new work."""
    outer = messages.parse(_Envelope, raw, "campaign envelope")
    if outer.payloadType != PAYLOAD_TYPE:
        raise Refused("bad_document", f"campaign envelope: payloadType is {outer.payloadType!r}, not {PAYLOAD_TYPE!r}")
    try:
        envelope = Envelope.from_dict(outer.model_dump(mode="json"))
    except ValueError as error:
        raise Refused("bad_document", f"campaign envelope: {error}") from None
    signers = _signers(envelope, keys)
    # The payload is read only now: nothing that is not signed by a listed key reaches a parser of ours.
    document = messages.parse(messages.Campaign, envelope.payload, "campaign")
    what = f"campaign {document.id} revision {document.revision}"
    entitled = [key for key in signers if _covers(key.audiences, document.audience)]
    if not entitled:
        raise Refused("wrong_audience", f"{what}: key {signers[0].keyid} may not sign for {document.audience}")
    if document.audience not in audiences:
        raise Refused("wrong_audience", f"{what}: is for {document.audience}, not for this gateway")
    if topic is not None and topic != (meant := messages.campaign_topic(document.audience, document.id)):
        raise Refused("wrong_audience", f"{what}: came on {topic}, belongs on {meant}")
    digest = hashlib.sha256(envelope.payload).hexdigest()
    return VerifiedCampaign(document, raw, digest, entitled[0].keyid, SEAL)


def load_campaign_key(key: messages.CampaignKey) -> SSlibKey:
    """The key as securesystemslib uses it. Refused("bad_document") when it is none that we take, or has another id."""
    try:
        public = load_pem_public_key(key.public.encode())
        loaded = SSlibKey.from_crypto(public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("bad_document", f"campaign key {key.keyid}: {error}") from None
    strong = (isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1)) or (
        isinstance(public, RSAPublicKey) and public.key_size >= RSA_MINIMUM_BITS
    )
    if not strong:
        raise Refused(
            "bad_document", f"campaign key {key.keyid}: neither ECDSA P-256 nor RSA of {RSA_MINIMUM_BITS} bits"
        )
    if loaded.keyid != key.keyid:
        raise Refused("bad_document", f"campaign key {key.keyid}: its id is {loaded.keyid}")
    return loaded


def _signers(envelope: Envelope, keys: messages.CampaignKeys) -> list[messages.CampaignKey]:
    """The listed keys with a good signature on the envelope, at least one."""
    listed = [key for key in keys.keys if key.keyid in envelope.signatures]
    if not listed:
        raise Refused("unknown_key", f"campaign envelope: no listed key among {', '.join(envelope.signatures)}")
    good = []
    for key in listed:
        try:
            envelope.verify([load_campaign_key(key)], 1)
        except UnverifiedSignatureError:
            continue
        good.append(key)
    if not good:
        raise Refused("bad_signature", f"campaign envelope: not signed by {', '.join(key.keyid for key in listed)}")
    return good


def _covers(patterns: tuple[str, ...], audience: str) -> bool:
    return audience in patterns or f"{audience.partition(':')[0]}:*" in patterns


class _Signature(messages.Document):
    keyid: messages.Digest
    sig: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/_-]+={0,2}$", max_length=2048)]


class _Envelope(messages.Document):
    payload: Annotated[str, StringConstraints(min_length=1)]
    payloadType: str
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=8)]
