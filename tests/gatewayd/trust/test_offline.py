"""A restart without a network: what is held is verified again, and nothing else is believed."""

import json
import time
from pathlib import Path

import pytest

from gatewayd.errors import Refused, StoreError, Unavailable
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, Site, make_publisher, obtained

DAY_S = 86400.0


def cut(site: Site) -> None:
    site.folder = Path("/nonexistent")


async def test_everything_is_there_again(gateways: Gateways, site: Site) -> None:
    first = gateways.start()
    view, release = await first.refresh(), await obtained(first, RELEASE)
    cut(site)
    second = gateways.start()
    assert await second.restore() == view
    again = second.reverify_release(RELEASE, release.body)
    assert again.document == release.document
    assert again.expires == release.expires


async def test_expired_metadata_is_told_as_such(gateways: Gateways, site: Site) -> None:
    first = gateways.start()
    release = await obtained(first, RELEASE)
    cut(site)
    later = time.time() + 2 * DAY_S
    second = gateways.start(now=lambda: later)
    view = await second.restore()
    assert view is not None
    assert not view.fresh
    assert view.expired(later)
    assert second.reverify_release(RELEASE, release.body).document.name == "meter"  # what runs may finish


async def test_a_release_changed_in_our_own_store_is_refused(gateways: Gateways) -> None:
    first = gateways.start()
    release = await obtained(first, RELEASE)
    second = gateways.start()
    await second.restore()
    with pytest.raises(Refused) as caught:
        second.reverify_release(RELEASE, release.body.replace(b'"sequence":3', b'"sequence":9'))
    assert caught.value.code == "tampered"


async def test_a_withdrawn_release_is_refused(gateways: Gateways, publisher: Publisher) -> None:
    trust = gateways.start()
    release = await obtained(trust, RELEASE)
    publisher.repository.withdraw_release(RELEASE)
    await trust.refresh()
    second = gateways.start()
    await second.restore()
    for gateway in (trust, second):
        with pytest.raises(Refused) as caught:
            gateway.reverify_release(RELEASE, release.body)
        assert caught.value.code == "unknown_release"


async def test_nothing_is_verified_against_nothing(gateways: Gateways) -> None:
    with pytest.raises(Unavailable):
        gateways.start().reverify_release(RELEASE, b"{}")


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets"])
async def test_a_changed_bundle_is_not_believed(gateways: Gateways, part: str) -> None:
    await gateways.start().refresh()
    path = gateways.folder / "gw" / "trusted.json"
    bundle = json.loads(path.read_bytes())
    changed = bundle[part].replace('"expires":"20', '"expires":"21')
    assert changed != bundle[part]
    bundle[part] = changed
    path.write_text(json.dumps(bundle))
    assert await gateways.start().restore() is None


async def test_changed_documents_are_not_believed(gateways: Gateways) -> None:
    await gateways.start().refresh()
    path = gateways.folder / "gw" / "trusted.json"
    changed = path.read_text().replace("fleet:north", "fleet:south")
    assert changed != path.read_text()
    path.write_text(changed)
    assert await gateways.start().restore() is None


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"format": 1}', "\x00" * 100])
async def test_a_torn_bundle_is_made_again_by_the_next_check(gateways: Gateways, junk: str) -> None:
    await gateways.start().refresh()
    (gateways.folder / "gw" / "trusted.json").write_text(junk)
    trust = gateways.start()
    assert await trust.restore() is None
    assert (await trust.refresh()).fresh
    assert await gateways.start().restore() is not None


async def test_another_bootstrap_root_ends_the_old_trust(gateways: Gateways, tmp_path: Path) -> None:
    await gateways.start().refresh()
    gateways.publisher = make_publisher(tmp_path / "stranger")
    assert await gateways.start().restore() is None


async def test_a_check_that_fails_half_way_keeps_the_last_complete_set(
    gateways: Gateways, publisher: Publisher, site: Site
) -> None:
    first = gateways.start()
    view, release = await first.refresh(), await obtained(first, RELEASE)
    publisher.repository.set_campaign_keys([])
    for path in site.folder.glob("targets/trust/*.json"):
        site.lies[str(path.relative_to(site.folder))] = 500
    with pytest.raises(Unavailable):
        await first.refresh()
    second = gateways.start()
    assert await second.restore() == view
    assert second.reverify_release(RELEASE, release.body).path == RELEASE
    site.lies.clear()
    assert (await second.refresh()).campaign_keys.keys == ()


async def test_what_a_killed_check_was_writing_is_swept_away(gateways: Gateways) -> None:
    folder = gateways.folder / "gw" / "metadata"
    folder.mkdir(parents=True)
    (folder / "tmpx3_f9a0z").write_bytes(b"half a file")  # as python-tuf leaves it between writing and renaming
    await gateways.start().refresh()
    assert sorted(path.name for path in folder.glob("[!r]*")) == ["snapshot.json", "targets.json", "timestamp.json"]


async def test_a_disk_that_fails_is_said_so(gateways: Gateways) -> None:
    folder = gateways.folder / "gw"
    folder.mkdir(parents=True)
    (folder / "trusted.json").mkdir()
    (folder / "metadata").write_bytes(b"in the way")
    with pytest.raises(StoreError):
        await gateways.start().restore()
    with pytest.raises(StoreError):
        await gateways.start().refresh()
