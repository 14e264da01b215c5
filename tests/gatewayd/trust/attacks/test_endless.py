"""Attack: data without end, or more than the gateway wants."""

import time

import pytest

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import Role
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet, target_file
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, Site, obtained


@pytest.mark.parametrize("name", ["metadata/2.root.json", "metadata/timestamp.json"])
async def test_endless_metadata(gateways: Gateways, site: Site, name: str) -> None:
    site.lies[name] = "endless"
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code == "too_large"
    assert name.rpartition("/")[2] in caught.value.detail


@pytest.mark.parametrize(
    "pattern", ["metadata/*.snapshot.json", "targets/trust/*.json", "targets/releases/meter/*.json"]
)
async def test_more_than_the_metadata_above_says(gateways: Gateways, site: Site, pattern: str) -> None:
    for path in site.folder.glob(pattern):
        site.lies[str(path.relative_to(site.folder))] = "endless"
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), RELEASE)
    assert caught.value.code == "too_large"


async def test_a_signed_release_above_the_limit_is_not_fetched(
    gateways: Gateways, publisher: Publisher, site: Site
) -> None:
    folder = publisher.repository.path
    current = MetadataSet.load(folder / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    huge = bytes(messages.RELEASE_MAX_BYTES + 1)
    target = target_file("releases/huge/1.0.0.json", huge)
    current.releases.signed.targets["releases/huge/1.0.0.json"] = target
    write_file(folder / "targets" / target.get_prefixed_paths()[0], huge)
    current.commit({Role.RELEASES})
    trust = gateways.start()
    await trust.refresh()
    site.asked.clear()
    with pytest.raises(Refused) as caught:
        await obtained(trust, "releases/huge/1.0.0.json")
    assert caught.value.code == "too_large"
    assert site.asked == []
