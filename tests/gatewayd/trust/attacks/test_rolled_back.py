"""Attack: old metadata, each file of it well signed."""

import pytest

from gatewayd.errors import Refused
from tests.gatewayd.trust.site import Gateways, Publisher, Site


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
