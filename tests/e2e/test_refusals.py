"""What must not happen: every attack on a campaign is refused with a clear error in log and report, no block goes on
air, and afterwards the daemon does its work as if nothing had been. One daemon process for all of it."""

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Desired
from gatewayd.demo.cloud_side import DAY_S
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.keys import KeyFolder, Role, make_key
from tests.support.rig import LAMPS, Rig, lamp_firmware

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]


async def refused(rig: Rig, campaign: str, code: str) -> None:
    """The report and the log say so, and no image block went out."""
    await rig.until(lambda: rig.told(campaign, "refused", code))
    assert rig.told(campaign, "refused", code)[-1].detail
    assert any(line["code"] == code and campaign in str(line["topic"]) for line in rig.log("campaign_refused"))
    assert rig.blocks_received() == 0


async def waits(rig: Rig, campaign: str, code: str) -> None:
    """The campaign is known, does nothing, and says why."""
    await rig.until(lambda: rig.told(campaign, "waiting", code))
    assert rig.blocks_received() == 0


async def test_truncated_json(rig: Rig) -> None:
    raw = rig.signed(rig.campaign("truncated"))
    await rig.publish("truncated", raw[: len(raw) // 2])
    await refused(rig, "truncated", "bad_document")


async def test_an_altered_campaign(rig: Rig) -> None:
    raw = json.loads(rig.signed(rig.campaign("altered")))
    payload = raw["payload"]
    raw["payload"] = payload[:40] + ("B" if payload[40] == "A" else "A") + payload[41:]
    await rig.publish("altered", json.dumps(raw).encode())
    await refused(rig, "altered", "bad_signature")


async def test_an_unlisted_key(rig: Rig, tmp_path: Path) -> None:
    make_key(tmp_path / "campaign.pem")
    raw = sign_campaign(rig.campaign("unlisted"), KeyFolder(tmp_path).signer(Role.CAMPAIGN))
    await rig.publish("unlisted", raw)
    await refused(rig, "unlisted", "unknown_key")


async def test_a_campaign_for_somebody_else(rig: Rig) -> None:
    await rig.publish("foreign", rig.signed(rig.campaign("foreign", audience="gateway:another")))
    await refused(rig, "foreign", "wrong_audience")


async def test_a_campaign_on_the_topic_of_another(rig: Rig) -> None:
    await rig.publish("moved", rig.signed(rig.campaign("original")))
    await refused(rig, "moved", "wrong_audience")


async def test_an_expired_campaign(rig: Rig) -> None:
    document = rig.campaign("late")
    past = document.model_copy(
        update={"issued": document.issued - timedelta(days=20), "expires": document.issued - timedelta(days=10)}
    )
    await rig.publish("late", rig.signed(past))
    await refused(rig, "late", "expired")


async def test_a_replayed_campaign_and_one_with_other_bytes(rig: Rig) -> None:
    first = rig.campaign("replayed", desired=Desired.PAUSED, revision=1)
    await rig.issue(first.model_copy(update={"revision": 2}))
    await rig.until(lambda: rig.told("replayed", "paused"))
    await rig.issue(first)
    await refused(rig, "replayed", "replayed")
    await rig.issue(first.model_copy(update={"revision": 2, "desired": Desired.RUNNING}))
    await refused(rig, "replayed", "conflict")


async def test_an_unknown_release(rig: Rig) -> None:
    await rig.issue(rig.campaign("unreleased", release="releases/lamp/9.9.9.json"))
    await waits(rig, "unreleased", "unknown_release")


async def test_a_tampered_payload(rig: Rig) -> None:
    release = rig.world.cloud.add_release(lamp_firmware("2.1.0"))
    file = rig.world.cloud.repository.path / release.payloads[0].path
    good = file.read_bytes()
    file.write_bytes(good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
    await rig.issue(rig.campaign("tampered", release="releases/lamp/2.1.0.json"))
    await waits(rig, "tampered", "tampered")
    assert rig.log("payload_refused")[-1]["code"] == "tampered"


async def test_a_manufacturers_key_that_is_revoked(rig: Rig) -> None:
    cloud = rig.world.cloud
    cloud.add_release(lamp_firmware("2.2.0"))
    keys = cloud.repository.manufacturers().keys
    cloud.repository.set_manufacturers([key.model_copy(update={"revoked": True}) for key in keys])
    try:
        version = json.loads((cloud.repository.path / "metadata" / "timestamp.json").read_bytes())["signed"]["version"]
        await rig.until(lambda: rig.log("trust_refreshed")[-1]["timestamp_version"] >= version)
        document = rig.campaign("revoked", release="releases/lamp/2.2.0.json")
        await rig.issue(document)
        await waits(rig, "revoked", "key_revoked")
        await rig.cancel(document)
        await rig.until(lambda: rig.told("revoked", "cancelled"))
    finally:
        cloud.repository.set_manufacturers(keys)


async def test_an_image_larger_than_the_quota(rig: Rig) -> None:
    rig.world.cloud.add_release(lamp_firmware("2.3.0", size=1_200_000))
    await rig.issue(rig.campaign("huge", release="releases/lamp/2.3.0.json"))
    await waits(rig, "huge", "too_large")


async def test_rolled_back_metadata(rig: Rig) -> None:
    metadata = rig.world.cloud.repository.path / "metadata"
    old = (metadata / "timestamp.json").read_bytes()
    rig.world.cloud.repository.refresh()
    seen = len(rig.log("trust_refreshed"))
    await rig.until(lambda: len(rig.log("trust_refreshed")) > seen + 1)
    current = (metadata / "timestamp.json").read_bytes()
    (metadata / "timestamp.json").write_bytes(old)
    try:
        await rig.until(lambda: [line for line in rig.log("trust_refused") if line["code"] == "rolled_back"])
    finally:
        (metadata / "timestamp.json").write_bytes(current)
    assert rig.blocks_received() == 0


async def test_after_all_that_a_good_campaign_updates_every_lamp(rig: Rig) -> None:
    for name in ("replayed", "unreleased", "tampered", "revoked", "huge"):
        release = rig.reports(name)
        assert release, name
    await rig.issue(rig.campaign("good"))
    await rig.until(lambda: rig.updated("good") == {n.id for n in LAMPS})
    sequences = [r.at for r in rig.reports("good") if r.state == "updated"]
    assert len(sequences) == len(LAMPS)
    assert time.time() - DAY_S < sequences[0].timestamp() < time.time() + 60
