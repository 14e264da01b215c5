"""What the file says of the site, for the tiers and hours of campaigns."""

from pathlib import Path

import pytest

from tests.gatewayd.test_config import MINIMAL, faults, read

__all__ = ["folder"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_text('{"signed": {"_type": "root"}}')
    return tmp_path


def with_site(text: str) -> str:
    return MINIMAL.replace('id = "gw-1"', f'id = "gw-1"\n{text}')


def test_region_and_tags(folder: Path) -> None:
    gateway = read(folder, with_site('region = "north"\ntags = { site = "plant-3", floor = "2" }')).gateway
    assert (gateway.region, gateway.tags) == ("north", {"site": "plant-3", "floor": "2"})
    plain = read(folder, MINIMAL).gateway
    assert (plain.region, plain.tags, plain.timezone) == ("", {}, "UTC")


@pytest.mark.parametrize(
    ("text", "key"), [('region = "North!"', "region"), ("tags = { site = 3 }", "tags"), ('tags = "x"', "tags")]
)
def test_faults_are_named(folder: Path, text: str, key: str) -> None:
    assert any(key in fault for fault in faults(folder, with_site(text)))
