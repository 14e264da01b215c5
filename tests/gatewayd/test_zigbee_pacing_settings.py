"""How much of the air the operator leaves to updates."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from gatewayd.config_radios import Zigbee
from gatewayd.radio_settings import zigbee_settings
from radios.quiet_hours import QuietHours
from radios.zigbee.air import ShareLimits
from radios.zigbee.pacing import PacingLimits

QUIET = {"start": "22:00", "end": "06:30", "air_share": 0.1}


def zigbee(**keys: object) -> Zigbee:
    return Zigbee.model_validate({"device": "/dev/ttyUSB0", **keys})


def test_without_a_word_the_radios_own_defaults_hold() -> None:
    found = zigbee_settings(zigbee(), Path("/state"))
    assert found.pacing == PacingLimits()
    assert found.page_requests
    assert found.broadcast_notify == 8


def test_shares_quiet_hours_pages_and_broadcasts_reach_the_radio() -> None:
    config = zigbee(
        concurrency=3, air_share=0.5, foreground_share=0.2, quiet_hours=QUIET, page_requests=False, broadcast_notify=0
    )
    found = zigbee_settings(config, Path("/state"), ZoneInfo("Asia/Tokyo"))
    quiet = QuietHours(22 * 60, 6 * 60 + 30, 0.1)
    assert found.pacing.shares == ShareLimits(air_share=0.5, foreground_share=0.2, quiet_hours=quiet)
    assert found.pacing.max_active_nodes == 3
    assert not found.session_limits.page_requests
    assert found.broadcast_notify == 0
    assert found.minute_of_day(0.0) == 9 * 60


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"air_share": 0}, "air_share"),
        ({"air_share": 1.1}, "air_share"),
        ({"foreground_share": 0.0}, "foreground_share"),
        ({"broadcast_notify": -1}, "broadcast_notify"),
        ({"quiet_hours": QUIET | {"start": "24:00"}}, "must be a time of day"),
        ({"quiet_hours": QUIET | {"end": "6:30"}}, "must be a time of day"),
        ({"quiet_hours": QUIET | {"end": 390}}, "must be a time of day"),
        ({"quiet_hours": QUIET | {"end": "22:00"}}, "must differ"),
        ({"quiet_hours": {"start": "22:00", "end": "06:00"}}, "air_share"),
    ],
)
def test_faults_are_named(keys: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        zigbee(**keys)
