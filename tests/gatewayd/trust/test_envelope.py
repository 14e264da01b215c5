"""Campaign envelopes: who signed, for whom, where it came from, when."""

import base64
import json
from datetime import timedelta
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Campaign, CampaignKey, CampaignKeys
from gatewayd.errors import Bug, Refused
from gatewayd.publisher.campaigns import digest_of, sign_campaign
from gatewayd.publisher.keys import campaign_key
from gatewayd.trust.envelope import PAYLOAD_TYPE, VerifiedCampaign, reverify_campaign, verify_campaign
from tests.support.documents import START, START_S, campaign

AUDIENCES = frozenset({"gateway:gw-1", "fleet:north"})
TOPIC = "ota/v1/gateways/gw-1/campaigns/lamps"
DAY_S = 86400.0


def signer(name: str = "ours") -> CryptoSigner:
    return _made(name)


@lru_cache
def _made(name: str) -> CryptoSigner:
    return CryptoSigner.generate_ecdsa()


def keys(*audiences: str) -> CampaignKeys:
    return CampaignKeys(keys=(campaign_key(signer(), audiences or ("gateway:gw-1",)),))


def refusal(raw: bytes, listed: CampaignKeys | None = None, now: float = START_S, topic: str | None = TOPIC) -> str:
    with pytest.raises(Refused) as caught:
        verify_campaign(raw, listed or keys(), AUDIENCES, now, topic)
    return caught.value.code


def envelope(payload: bytes, kind: str = PAYLOAD_TYPE, name: str = "ours") -> bytes:
    made = Envelope(payload, kind, {})
    made.sign(signer(name))
    return json.dumps(made.to_dict()).encode()


def test_a_good_one() -> None:
    document = campaign()
    raw = sign_campaign(document, signer())
    verified = verify_campaign(raw, keys(), AUDIENCES, START_S, TOPIC)
    assert verified.document == document
    assert verified.envelope == raw
    assert verified.keyid == signer().public_key.keyid
    assert verified.digest == digest_of(raw)
    assert not verified.expired(START_S)


@pytest.mark.parametrize("audiences", [("gateway:*",), ("fleet:north", "gateway:gw-1")])
def test_wildcards_and_lists_of_audiences(audiences: tuple[str, ...]) -> None:
    raw = sign_campaign(campaign(), signer())
    assert verify_campaign(raw, keys(*audiences), AUDIENCES, START_S, TOPIC)


def test_an_rsa_key_signs_as_well() -> None:
    rsa = CryptoSigner.generate_rsa(size=3072)
    listed = CampaignKeys(keys=(campaign_key(rsa, ["gateway:*"]),))
    assert verify_campaign(sign_campaign(campaign(), rsa), listed, AUDIENCES, START_S, TOPIC)


def test_a_short_rsa_key_is_not_taken() -> None:
    rsa = CryptoSigner.generate_rsa(size=2048)
    listed = CampaignKeys(keys=(campaign_key(rsa, ["gateway:*"]),))
    assert refusal(sign_campaign(campaign(), rsa), listed) == "bad_document"


def test_a_key_that_is_not_listed() -> None:
    assert refusal(sign_campaign(campaign(), signer("stranger"))) == "unknown_key"
    assert refusal(sign_campaign(campaign(), signer()), CampaignKeys(keys=())) == "unknown_key"


def test_a_stranger_under_the_id_of_a_listed_key() -> None:
    forged = json.loads(sign_campaign(campaign(), signer("stranger")))
    forged["signatures"][0]["keyid"] = signer().public_key.keyid
    assert refusal(json.dumps(forged).encode()) == "bad_signature"


def test_a_listed_key_under_the_id_of_another() -> None:
    other = signer("stranger").public_key
    listed = CampaignKeys(
        keys=(CampaignKey(keyid=signer().public_key.keyid, public=other.keyval["public"], audiences=("gateway:*",)),)
    )
    assert refusal(sign_campaign(campaign(), signer()), listed) == "bad_document"


@pytest.mark.parametrize("change", [{"revision": 2}, {"desired": "cancelled"}, {"release": "releases/x/1.0.0.json"}])
def test_an_altered_campaign(change: dict[str, object]) -> None:
    forged = json.loads(sign_campaign(campaign(), signer()))
    document = json.loads(base64.b64decode(forged["payload"])) | change
    forged["payload"] = base64.b64encode(json.dumps(document).encode()).decode()
    assert refusal(json.dumps(forged).encode()) == "bad_signature"


def test_another_kind_of_payload_signed_by_the_same_key() -> None:
    assert refusal(envelope(messages.dump(campaign()), "application/vnd.in-toto+json")) == "bad_document"
    renamed = json.loads(envelope(messages.dump(campaign()), "application/vnd.in-toto+json"))
    renamed["payloadType"] = PAYLOAD_TYPE
    assert refusal(json.dumps(renamed).encode()) == "bad_signature"


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"format": 1}', b"\xff", b"[" * 40_000])
def test_signed_junk(payload: bytes) -> None:
    assert refusal(envelope(payload)) == "bad_document"


def test_an_unknown_field_in_a_signed_campaign() -> None:
    document = json.loads(messages.dump(campaign())) | {"surprise": 1}
    assert refusal(envelope(json.dumps(document).encode())) == "bad_document"


def test_two_signatures_of_which_one_is_entitled() -> None:
    document = campaign()
    both = Envelope(messages.dump(document), PAYLOAD_TYPE, {})
    both.sign(signer("stranger"))
    both.sign(signer())
    listed = CampaignKeys(
        keys=(campaign_key(signer("stranger"), ["fleet:x"]), campaign_key(signer(), ["gateway:gw-1"]))
    )
    raw = json.dumps(both.to_dict()).encode()
    assert verify_campaign(raw, listed, AUDIENCES, START_S, TOPIC).keyid == signer().public_key.keyid


def test_dates() -> None:
    raw = sign_campaign(campaign(), signer())
    assert refusal(raw, now=START_S + 10 * DAY_S) == "expired"
    assert refusal(raw, now=START_S - 400) == "not_yet_valid"
    assert verify_campaign(raw, keys(), AUDIENCES, START_S - 200, TOPIC)  # clocks differ a little


def test_after_a_restart_dates_are_told_not_judged() -> None:
    raw = sign_campaign(campaign(), signer())
    kept = reverify_campaign(raw, keys(), AUDIENCES, TOPIC)
    assert kept.expired(START_S + 10 * DAY_S)
    assert not kept.expired(0.0)
    with pytest.raises(Refused):
        reverify_campaign(raw, CampaignKeys(keys=()), AUDIENCES, TOPIC)  # a key revoked since


def test_more_than_thirty_days() -> None:
    document = json.loads(messages.dump(campaign()))
    document["expires"] = (START + timedelta(days=31)).isoformat()
    assert refusal(envelope(json.dumps(document).encode())) == "bad_document"


def test_too_large() -> None:
    assert refusal(b" " * (messages.DOCUMENT_MAX_BYTES + 1)) == "too_large"


def test_a_campaign_for_1000_nodes_fits() -> None:
    nodes = [f"zigbee:{number:016x}" for number in range(1000)]
    document = Campaign.model_validate_json(
        json.dumps(json.loads(messages.dump(campaign())) | {"selection": {"nodes": nodes}})
    )
    raw = sign_campaign(document, signer())
    assert len(verify_campaign(raw, keys(), AUDIENCES, START_S, TOPIC).document.selection.nodes or ()) == 1000


def test_verified_campaigns_are_made_by_trust_only() -> None:
    with pytest.raises(Bug):
        VerifiedCampaign(campaign(), b"", "", "", None)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(raw: bytes) -> None:
    assert refusal(raw) in {"bad_document", "too_large"}


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_changes_nothing(at: int, flip: int) -> None:
    raw = bytearray(GOOD)
    raw[at % len(raw)] ^= flip
    try:
        verified = verify_campaign(bytes(raw), keys(), AUDIENCES, START_S, TOPIC)
    except Refused:
        return
    assert verified.document == campaign()  # white space, or another spelling of the same base64


GOOD = sign_campaign(campaign(), signer())
