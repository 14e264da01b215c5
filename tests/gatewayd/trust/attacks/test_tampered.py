"""Attack: bytes changed on the way or on the disk of the mirror."""

import pytest

from gatewayd.errors import Refused
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, Site, obtained


def newest(site: Site, pattern: str) -> str:
    return sorted(str(path.relative_to(site.folder)) for path in site.folder.glob(pattern))[-1]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "releases"])
async def test_a_changed_byte_in_metadata(gateways: Gateways, site: Site, role: str) -> None:
    name = "metadata/timestamp.json" if role == "timestamp" else newest(site, f"metadata/*.{role}.json")
    body = (site.folder / name).read_bytes()
    changed = body.replace(b'"spec_version":"1.0.31"', b'"spec_version":"1.0.30"', 1)
    assert changed != body
    site.lies[name] = changed
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code in {"tampered", "bad_signature"}


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"null", b'{"signed": {}, "signatures": []}', b"\xff\xfe\x00"])
@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
async def test_junk_in_the_place_of_metadata(gateways: Gateways, site: Site, role: str, junk: bytes) -> None:
    name = "metadata/timestamp.json" if role == "timestamp" else newest(site, f"metadata/*.{role}.json")
    site.lies[name] = junk
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code in {"bad_document", "tampered"}


async def test_a_changed_byte_in_a_release(gateways: Gateways, site: Site) -> None:
    name = newest(site, "targets/releases/meter/*.1.2.0.json")
    site.lies[name] = (site.folder / name).read_bytes().replace(b'"sequence":3', b'"sequence":4')
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), RELEASE)
    assert caught.value.code == "tampered"


async def test_a_changed_byte_in_the_campaign_keys(gateways: Gateways, site: Site, publisher: Publisher) -> None:
    trust = gateways.start()
    before = await trust.refresh()
    publisher.repository.set_campaign_keys([])
    for path in site.folder.glob("targets/trust/*.campaign-keys.json"):
        site.lies[str(path.relative_to(site.folder))] = path.read_bytes()[:-1] + b" "
    with pytest.raises(Refused) as caught:
        await trust.refresh()
    assert caught.value.code == "tampered"
    assert trust.view == before  # what was trusted still is


async def test_a_redirect_to_another_document(gateways: Gateways, site: Site) -> None:
    name = newest(site, "targets/releases/meter/*.1.2.0.json")
    site.lies[name] = f"to {site.url}metadata/timestamp.json"
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), RELEASE)
    assert caught.value.code in {"tampered", "too_large"}
