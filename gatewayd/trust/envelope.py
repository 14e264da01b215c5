"""Campaigns and commands as signed envelopes (DSSE) and who may sign for whom. PURE.

One is verified when a key that the signed metadata lists for its audience has signed exactly these bytes as what they are
(the payload type is signed too, so a campaign never passes as a command), and it is meant for this gateway, under the topic
it came on, now. Replay and conflict are for who keeps campaigns and commands.
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
COMMAND_PAYLOAD_TYPE = "application/vnd.gatewayd.command+json"
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


@dataclass(frozen=True, slots=True)
class VerifiedCommand:
    """A command whose signature, audience and topic are right. Only trust/ can make one."""

    document: messages.Command
    digest: str  # SHA-256 of the signed payload
    keyid: str  # who signed
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        check_seal(seal, "VerifiedCommand")

    def check_time(self, now: float) -> None:
        """Refused: expired, not_yet_valid."""
        document = self.document
        if now >= document.expires.timestamp():
            raise Refused("expired", f"command {document.id}: since {document.expires}")
        if document.issued.timestamp() > now + CLOCK_SKEW_S:
            raise Refused(
                "not_yet_valid", f"command {document.id}: issued {document.issued}, it is {messages.utc(now)}"
            )


def verify_command(raw: bytes, keys: messages.CampaignKeys, audience: str, topic: str) -> VerifiedCommand:
    """The command in an envelope; its dates are to be asked next (`check_time`).

    `audience` is the gateway's own, "gateway:<id>"; `topic` is where it came from. The keys are those of campaigns. Refused:
    too_large, bad_document, unknown_key, bad_signature, wrong_audience.
    """
    payload, signers = _opened(raw, keys, COMMAND_PAYLOAD_TYPE, "command envelope")
    document = messages.parse(messages.Command, payload, "command")
    what = f"command {document.id}"
    entitled = _entitled(signers, document.audience, what)
    if document.audience != audience:
        raise Refused("wrong_audience", f"{what}: is for {document.audience}, not for this gateway")
    if topic != (meant := messages.gateway_topic(audience.partition(":")[2], "commands")):
        raise Refused("wrong_audience", f"{what}: came on {topic}, belongs on {meant}")
    return VerifiedCommand(document, hashlib.sha256(payload).hexdigest(), entitled.keyid, SEAL)


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
    payload, signers = _opened(raw, keys, PAYLOAD_TYPE, "campaign envelope")
    document = messages.parse(messages.Campaign, payload, "campaign")
    what = f"campaign {document.id} revision {document.revision}"
    entitled = _entitled(signers, document.audience, what)
    if document.audience not in audiences:
        raise Refused("wrong_audience", f"{what}: is for {document.audience}, not for this gateway")
    if topic is not None and topic != (meant := messages.campaign_topic(document.audience, document.id)):
        raise Refused("wrong_audience", f"{what}: came on {topic}, belongs on {meant}")
    return VerifiedCampaign(document, raw, hashlib.sha256(payload).hexdigest(), entitled.keyid, SEAL)


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


def _opened(
    raw: bytes, keys: messages.CampaignKeys, payload_type: str, what: str
) -> tuple[bytes, list[messages.CampaignKey]]:
    """What is signed as `payload_type`, and the listed keys that have signed it, at least one.

    The payload comes out only with them: nothing that is not signed by a listed key reaches a parser of ours.
    """
    outer = messages.parse(_Envelope, raw, what)
    if outer.payloadType != payload_type:
        raise Refused("bad_document", f"{what}: payloadType is {outer.payloadType!r}, not {payload_type!r}")
    try:
        envelope = Envelope.from_dict(outer.model_dump(mode="json"))
    except ValueError as error:
        raise Refused("bad_document", f"{what}: {error}") from None
    return envelope.payload, _signers(envelope, keys, what)


def _signers(envelope: Envelope, keys: messages.CampaignKeys, what: str) -> list[messages.CampaignKey]:
    """The listed keys with a good signature on the envelope, at least one."""
    listed = [key for key in keys.keys if key.keyid in envelope.signatures]
    if not listed:
        raise Refused("unknown_key", f"{what}: no listed key among {', '.join(envelope.signatures)}")
    good = []
    for key in listed:
        try:
            envelope.verify([load_campaign_key(key)], 1)
        except UnverifiedSignatureError:
            continue
        good.append(key)
    if not good:
        raise Refused("bad_signature", f"{what}: not signed by {', '.join(key.keyid for key in listed)}")
    return good


def _entitled(signers: list[messages.CampaignKey], audience: str, what: str) -> messages.CampaignKey:
    """The first that may sign for the audience."""
    for key in signers:
        if _covers(key.audiences, audience):
            return key
    raise Refused("wrong_audience", f"{what}: key {signers[0].keyid} may not sign for {audience}")


def _covers(patterns: tuple[str, ...], audience: str) -> bool:
    return audience in patterns or f"{audience.partition(':')[0]}:*" in patterns


class _Signature(messages.Document):
    keyid: messages.Digest
    sig: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/_-]+={0,2}$", max_length=2048)]


class _Envelope(messages.Document):
    payload: Annotated[str, StringConstraints(min_length=1)]
    payloadType: str
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=8)]
