"""Attack: old metadata, each file of it well signed."""

import time

import pytest

from gatewayd.errors import Refused
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet
from tests.gatewayd.trust.site import Gateways, Publisher, Site, obtained, spec


async def test_an_older_timestamp(gateways: Gateways, publisher: Publisher, site: Site) -> None:
    old = (site.folder / "metadata/timestamp.json").read_bytes()
    publisher.repository.refresh()
    trust = gateways.start()
    await trust.refresh()
    site.lies["metadata/timestamp.json"] = old
    for gateway in (trust, gateways.start()):  # after a restart too
        with pytest.raises(Refused) as caught:
            await gateway.refresh()
        assert caught.value.code == "rolled_back"


@pytest.mark.parametrize("damage", ["truncate", "delete"])
async def test_an_older_timestamp_after_a_power_cut_tore_our_copy(
    gateways: Gateways, publisher: Publisher, site: Site, damage: str
) -> None:
    old = (site.folder / "metadata/timestamp.json").read_bytes()
    publisher.repository.refresh()
    await gateways.start().refresh()
    copy = gateways.folder / "gw" / "metadata" / "timestamp.json"
    if damage == "truncate":
        copy.write_bytes(b"")
    else:
        copy.unlink()
    site.lies["metadata/timestamp.json"] = old
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code == "rolled_back"


async def test_an_older_targets_with_stolen_snapshot_and_timestamp_keys(
    gateways: Gateways, publisher: Publisher
) -> None:
    folder = publisher.repository.path / "metadata"
    old = MetadataSet.load(folder, publisher.keys, DEFAULT_LIFETIMES, time.time())
    listed = old.snapshot.signed.meta["targets.json"]
    publisher.repository.set_campaign_keys([])
    trust = gateways.start()
    await trust.refresh()
    current = MetadataSet.load(folder, publisher.keys, DEFAULT_LIFETIMES, time.time())
    current.snapshot.signed.meta["targets.json"] = listed
    current.commit(set())
    with pytest.raises(Refused) as caught:
        await trust.refresh()
    assert caught.value.code == "rolled_back"
    assert trust.view is not None
    assert trust.view.campaign_keys.keys == ()


async def test_older_releases_with_stolen_snapshot_and_timestamp_keys(gateways: Gateways, publisher: Publisher) -> None:
    folder = publisher.repository.path / "metadata"
    old = MetadataSet.load(folder, publisher.keys, DEFAULT_LIFETIMES, time.time())
    listed = old.snapshot.signed.meta["releases.json"]
    publisher.repository.withdraw_release(spec().path)
    trust = gateways.start()
    await trust.refresh()
    current = MetadataSet.load(folder, publisher.keys, DEFAULT_LIFETIMES, time.time())
    current.snapshot.signed.meta["releases.json"] = listed
    current.commit(set())
    with pytest.raises(Refused):
        await trust.refresh()
    with pytest.raises(Refused):
        await obtained(trust, spec().path)
