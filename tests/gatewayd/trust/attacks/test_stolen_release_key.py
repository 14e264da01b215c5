"""Attack: whoever holds the releases key (and those of snapshot and timestamp, which publish it) lists what he likes.

What he lists still needs the manufacturer's signature before a byte goes on air, and a campaign before anybody is touched.
"""

import hashlib
import json
import time
from pathlib import Path

import pytest

from gatewayd.campaign.node_update import State
from gatewayd.cloud import messages
from gatewayd.cloud.messages import Manufacturers, Release
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.firmware import FirmwareFile, describe
from gatewayd.publisher.keys import FileImageSigner, Role, campaign_key, generate_all
from gatewayd.trust.repository import CAMPAIGN_KEYS, MANUFACTURERS
from tests.gatewayd.campaign.conftest import AUDIENCE, Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals
from tests.gatewayd.trust.site import HARDWARE, YEAR_S, Publisher, list_in_releases

EVIL = bytes(reversed(range(256))) * 500
PATH = "releases/meter/6.6.6.json"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    image = tmp_path / "evil.bin"
    image.write_bytes(EVIL)
    return image


def forged(publisher: Publisher, evil: Path, signer: FileImageSigner, **changes: object) -> Release:
    """A release of the thief's image, newer than all, signed by his own means."""
    payload = describe(FirmwareFile(evil, signer))
    (publisher.repository.path / payload.path).write_bytes(EVIL)
    genuine = publisher.repository.releases()[0]
    values = {
        "version": "6.6.6",
        "sequence": 666,
        "security_version": 9,
        "node_version": 0x06060606,
        "payloads": (payload,),
    }
    return genuine.model_copy(update=values | changes)


async def ordered(gateway: Gateway, publisher: Publisher, release: Release) -> None:
    """Listed by the thief; and the cloud, deceived, orders it with a good key."""
    list_in_releases(publisher, PATH, messages.dump(release))
    await gateway.authority.refresh()
    gateway.release = PATH
    await gateway.issue(gateway.document())


async def test_firmware_with_a_signature_of_his_own(
    gateway: Gateway, publisher: Publisher, evil: Path, tmp_path: Path
) -> None:
    his = generate_all(tmp_path / "his").manufacturer()
    await ordered(gateway, publisher, forged(publisher, evil, his))
    await gateway.until_code("unknown_manufacturer")
    await nothing_on_air(gateway)


async def test_firmware_under_the_name_of_the_manufacturers_key(
    gateway: Gateway, publisher: Publisher, evil: Path, tmp_path: Path
) -> None:
    """His signature, said to be by the key that is listed; and the genuine image's signature on his image."""
    release = forged(publisher, evil, generate_all(tmp_path / "his").manufacturer())
    genuine = publisher.repository.releases()[0].payloads[0].signature
    (payload,) = release.payloads
    claimed = payload.signature.model_copy(update={"keyid": genuine.keyid})
    for number, signature in enumerate((claimed, genuine)):
        path = f"releases/meter/6.6.{number}.json"
        signed = payload.model_copy(update={"signature": signature})
        made = release.model_copy(update={"version": f"6.6.{number}", "payloads": (signed,)})
        list_in_releases(publisher, path, messages.dump(made))
        await gateway.authority.refresh()
        await gateway.issue(gateway.document(f"evil-{number}", release=path))
        await gateway.until_code("bad_signature", f"evil-{number}")
    await nothing_on_air(gateway)


async def test_firmware_without_a_signature_is_no_release(gateway: Gateway, publisher: Publisher, evil: Path) -> None:
    document = json.loads(messages.dump(forged(publisher, evil, publisher.manufacturer)))
    del document["payloads"][0]["signature"]
    list_in_releases(publisher, PATH, json.dumps(document).encode())
    await gateway.authority.refresh()
    gateway.release = PATH
    await gateway.issue(gateway.document())
    await gateway.until_code("bad_document")
    assert "signature: Field required" in (await gateway.row()).detail
    await nothing_on_air(gateway)


async def test_firmware_signed_by_the_manufacturer_of_another_hardware(
    gateway: Gateway, publisher: Publisher, evil: Path, tmp_path: Path
) -> None:
    lamps = generate_all(tmp_path / "lamps").manufacturer()
    now = time.time()
    entries = publisher.repository.manufacturers().keys
    entry = lamps.manufacturer("Lamps & Sons", ["zigbee:117c-2101"], now - YEAR_S, now + YEAR_S)
    publisher.repository.set_manufacturers(Manufacturers(keys=(*entries, entry)).keys)
    await ordered(gateway, publisher, forged(publisher, evil, lamps))
    await gateway.until_code("wrong_hardware")
    await nothing_on_air(gateway)


async def test_old_firmware_of_the_manufacturer_under_a_new_name_stays_below_the_fleets_floor(
    gateway: Gateway, publisher: Publisher
) -> None:
    """All that he can do without the manufacturer: list genuine firmware again, with the security version that it has."""
    publisher.repository.set_floor(HARDWARE, 3)
    old = publisher.repository.releases()[0].model_copy(update={"version": "6.6.6", "sequence": 666})
    await ordered(gateway, publisher, old)
    await gateway.until_update(State.SKIPPED, "below_floor")
    await nothing_on_air(gateway)


async def test_he_cannot_start_a_rollout(gateway: Gateway, publisher: Publisher, evil: Path) -> None:
    """Even with a release that is right in everything: nobody has ordered it, and his key signs no campaign."""
    list_in_releases(publisher, PATH, messages.dump(forged(publisher, evil, publisher.manufacturer)))
    await gateway.authority.refresh()
    await nothing_on_air(gateway)
    order = gateway.document(release=PATH)
    topic = messages.campaign_topic(AUDIENCE, order.id)
    await gateway.campaign(topic, sign_campaign(order, publisher.keys.signer(Role.RELEASES)))
    assert await refusals(gateway) == [("meters", "unknown_key")]
    digest = hashlib.sha256(EVIL).hexdigest()
    assert not gateway.cache.has(digest), "what nobody orders is not even fetched"
    assert gateway.radio.told == []


async def test_he_cannot_list_keys(gateway: Gateway, publisher: Publisher, evil: Path, tmp_path: Path) -> None:
    """His own documents under the paths of the two that say whose signatures count: the offline role's are taken."""
    his = generate_all(tmp_path / "his")
    now = time.time()
    release = forged(publisher, evil, his.manufacturer())
    entry = his.manufacturer().manufacturer("Thief", [HARDWARE], now - YEAR_S, now + YEAR_S)
    listed = messages.CampaignKeys(keys=(campaign_key(his.signer(Role.CAMPAIGN), ["gateway:*"]),))
    list_in_releases(publisher, CAMPAIGN_KEYS, messages.dump(listed))
    list_in_releases(publisher, MANUFACTURERS, messages.dump(Manufacturers(keys=(entry,))))
    await ordered(gateway, publisher, release)
    await gateway.until_code("unknown_manufacturer")
    order = gateway.document("his-own")
    topic = messages.campaign_topic(AUDIENCE, order.id)
    await gateway.campaign(topic, sign_campaign(order, his.signer(Role.CAMPAIGN)))
    assert await refusals(gateway) == [("his-own", "unknown_key")]
    await nothing_on_air(gateway)
