"""Attack: the repository is held at a moment in the past."""

import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from gatewayd.errors import Refused
from gatewayd.trust.bundle import metadata_file
from tests.gatewayd.trust.site import RELEASE, Gateways, Site, make_publisher, obtained, spec

DAY_S = 86400.0


def ago(days: float) -> Callable[[], float]:
    return lambda: time.time() - days * DAY_S


@pytest.mark.parametrize("days", [2, 8, 91, 366])
async def test_metadata_past_its_date(tmp_path: Path, site: Site, session: aiohttp.ClientSession, days: float) -> None:
    """2 days: the timestamp; 8: the snapshot too; 91: targets; 366: root."""
    frozen = make_publisher(tmp_path / "frozen", ago(days))
    site.folder = frozen.repository.path
    trust = Gateways(site, frozen, session, tmp_path / "gateways").start()
    with pytest.raises(Refused) as caught:
        await trust.refresh()
    assert caught.value.code == "expired"
    trust.close()


async def test_the_same_metadata_again_past_its_date(gateways: Gateways) -> None:
    """Our own clock has moved on, the repository has not; python-tuf's is the system's and sees nothing."""
    await gateways.start().refresh()
    later = gateways.start(now=lambda: time.time() + 2 * DAY_S)
    with pytest.raises(Refused) as caught:
        await later.refresh()
    assert caught.value.code == "expired"


async def test_no_release_is_taken_from_expired_metadata(gateways: Gateways) -> None:
    await gateways.start().refresh()
    later = gateways.start(now=lambda: time.time() + 2 * DAY_S)
    assert (await later.restore()) is not None
    with pytest.raises(Refused) as caught:
        await obtained(later, RELEASE)
    assert caught.value.code == "expired"


async def test_a_gateway_that_was_off_for_long_recovers(
    tmp_path: Path, site: Site, session: aiohttp.ClientSession
) -> None:
    clock = [time.time() - 100 * DAY_S]
    publisher = make_publisher(tmp_path / "p", lambda: clock[0])
    publisher.add(spec())
    site.folder = publisher.repository.path
    gateways = Gateways(site, publisher, session, tmp_path / "gateways")
    trust = gateways.start(now=lambda: clock[0])
    with pytest.raises(Refused):  # python-tuf goes by the system's clock
        await trust.refresh()
    clock[0] = time.time()
    publisher.repository.refresh()
    assert (await obtained(trust, RELEASE)).document.name == "meter"
    trust.close()


async def test_expired_releases_refuse_new_ones_and_let_running_ones_finish(
    tmp_path: Path, site: Site, session: aiohttp.ClientSession
) -> None:
    clock = [time.time() - 91 * DAY_S]
    publisher = make_publisher(tmp_path / "p", lambda: clock[0])
    publisher.add(spec())
    clock[0] = time.time()
    (publisher.keys.folder / "releases.pem").rename(tmp_path / "releases.pem")
    refreshed = publisher.repository.refresh()
    assert any("releases expired" in warning for warning in refreshed.warnings)
    site.folder = publisher.repository.path
    gateways = Gateways(site, publisher, session, tmp_path / "gateways")
    (body,) = [path.read_bytes() for path in site.folder.glob("targets/releases/meter/*.json")]

    new = gateways.start("new")
    assert "expired" in (await new.refresh()).problems["releases"]
    with pytest.raises(Refused) as caught:
        await obtained(new, RELEASE)
    assert caught.value.code == "expired"

    held = metadata_file(gateways.folder / "old" / "metadata", "releases")  # from when it was in date
    held.parent.mkdir(parents=True)
    held.write_bytes((site.folder / "metadata" / "2.releases.json").read_bytes())
    await gateways.start("old").refresh()
    old = gateways.start("old")
    await old.restore()
    assert old.reverify_release(RELEASE, body).expired(time.time())
    with pytest.raises(Refused) as caught:
        await obtained(old, RELEASE)
    assert caught.value.code == "expired"
    for trust in gateways.made:
        trust.close()
