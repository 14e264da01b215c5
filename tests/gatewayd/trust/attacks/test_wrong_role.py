"""Attack: a role speaks about what is not its own, or a document about what its path does not say."""

import pytest

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.repository import MANUFACTURERS
from tests.gatewayd.trust.site import HARDWARE, Gateways, Publisher, list_in_releases, obtained, spec


async def test_the_releases_role_cannot_name_manufacturers(gateways: Gateways, publisher: Publisher) -> None:
    list_in_releases(publisher, MANUFACTURERS, messages.dump(messages.Manufacturers(keys=())))
    assert (await gateways.start().refresh()).manufacturers.keys


async def test_the_releases_role_cannot_speak_outside_its_paths(gateways: Gateways, publisher: Publisher) -> None:
    list_in_releases(publisher, "elsewhere/meter/1.2.0.json", b"{}")
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), "elsewhere/meter/1.2.0.json")
    assert caught.value.code == "unknown_release"


@pytest.mark.parametrize("path", ["releases/meter/9.0.0.json", "releases/other/1.2.0.json"])
async def test_a_release_under_the_path_of_another(gateways: Gateways, publisher: Publisher, path: str) -> None:
    document = publisher.repository.releases()[0]
    list_in_releases(publisher, path, messages.dump(document))
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), path)
    assert caught.value.code == "bad_document"
    assert "releases/meter/1.2.0.json" in caught.value.detail


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "extra": true}', bytes(1000), b"\xff"]
)
async def test_a_signed_release_that_is_none(gateways: Gateways, publisher: Publisher, body: bytes) -> None:
    list_in_releases(publisher, "releases/junk/1.0.0.json", body)
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), "releases/junk/1.0.0.json")
    assert caught.value.code == "bad_document"


async def test_a_payload_under_the_name_of_another(gateways: Gateways, publisher: Publisher) -> None:
    document = publisher.repository.releases()[0]
    payload = document.payloads[0].model_copy(update={"path": f"payloads/{'0' * 64}"})
    moved = document.model_copy(update={"version": "1.2.1", "payloads": (payload,)})
    list_in_releases(publisher, "releases/meter/1.2.1.json", messages.dump(moved))
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), "releases/meter/1.2.1.json")
    assert caught.value.code == "bad_document"


async def test_a_release_without_a_full_image(gateways: Gateways, publisher: Publisher) -> None:
    document = publisher.repository.releases()[0]
    full = document.payloads[0]
    delta = full.model_copy(update={"kind": "delta", "base_sha256": "1" * 64, "image_sha256": full.sha256})
    bare = document.model_copy(update={"version": "1.2.1", "payloads": (delta,)})
    list_in_releases(publisher, "releases/meter/1.2.1.json", messages.dump(bare))
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), "releases/meter/1.2.1.json")
    assert caught.value.code == "bad_document"


async def test_hardware_is_the_releases_not_the_paths(gateways: Gateways, publisher: Publisher) -> None:
    publisher.add(spec("1.3.0", 4))
    assert (await obtained(gateways.start(), "releases/meter/1.3.0.json")).document.hardware == (HARDWARE,)
