"""Attack: files of different moments put together, each of them genuine."""

import pytest

from gatewayd.errors import Refused
from tests.gatewayd.trust.site import Gateways, Publisher, Site, obtained, spec


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases"])
async def test_an_old_file_under_the_name_of_the_new_one(
    gateways: Gateways, publisher: Publisher, site: Site, role: str
) -> None:
    def newest() -> tuple[str, bytes]:
        path = max(site.folder.glob(f"metadata/*.{role}.json"), key=lambda p: int(p.name.split(".")[0]))
        return str(path.relative_to(site.folder)), path.read_bytes()

    _, old = newest()
    publisher.repository.set_campaign_keys([])
    publisher.add(spec("1.3.0", 4))
    name, new = newest()
    assert new != old
    site.lies[name] = old
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code in {"tampered", "too_large"}  # it may be longer than the new one's length


async def test_an_old_release_document_under_the_name_of_a_new_one(
    gateways: Gateways, publisher: Publisher, site: Site
) -> None:
    publisher.add(spec("1.3.0", 4))
    names = {path.name.split(".", 1)[1]: path for path in site.folder.glob("targets/releases/meter/*.json")}
    new = names["1.3.0.json"]
    site.lies[str(new.relative_to(site.folder))] = names["1.2.0.json"].read_bytes()
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), "releases/meter/1.3.0.json")
    assert caught.value.code in {"tampered", "too_large"}
