"""Fixtures of staged changes."""

import time
from pathlib import Path

import pytest

from gatewayd.publisher.keys import Role, campaign_key
from gatewayd.publisher.staging import Staged
from tests.gatewayd.publisher.ceremony import Ceremony
from tests.gatewayd.trust.site import HARDWARE, YEAR_S


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return Ceremony(tmp_path)


@pytest.fixture
def ready(ceremony: Ceremony) -> Ceremony:
    """With a repository that is served and trusts a manufacturer and a campaign key."""
    ceremony.init()
    host = ceremony.at("host")
    maker = ceremony.keys["host"].manufacturer()
    for change in (
        lambda: host.allow_manufacturer(maker.manufacturer("ACME", [HARDWARE], 0, time.time() + YEAR_S)),
        lambda: host.allow_campaign_key(campaign_key(ceremony.keys["host"].signer(Role.CAMPAIGN), ["gateway:*"])),
    ):
        with pytest.raises(Staged):
            change()
    ceremony.signed_by("ada", "cyd")
    (ceremony.folder / "image.bin").write_bytes(bytes(range(256)) * 700)
    return ceremony
