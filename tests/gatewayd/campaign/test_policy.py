"""When a node may be touched: the hour, the link; the battery is in test_planner."""

from datetime import UTC, datetime

import pytest

from gatewayd.campaign.node_update import State
from gatewayd.campaign.policy import good_link, right_hour
from gatewayd.cloud.campaign_policy import Window
from gatewayd.cloud.messages import Policy
from tests.support.documents import node

NIGHT = (Window(start="22:00", end="06:00"),)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 23, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("policy", "state", "local", "code"),
    [
        (Policy(), State.READY, None, None),
        (Policy(quiet_hours=NIGHT), State.PENDING, NOON, None),
        (Policy(quiet_hours=NIGHT), State.PENDING, MIDNIGHT, "quiet_hours"),
        (Policy(quiet_hours=NIGHT), State.TRANSFERRING, MIDNIGHT, "quiet_hours"),
        (Policy(quiet_hours=NIGHT), State.READY, MIDNIGHT, "quiet_hours"),
        (Policy(quiet_hours=NIGHT), State.TRANSFERRING, None, "clock_untrusted"),
        (Policy(install_windows=NIGHT), State.TRANSFERRING, NOON, None),
        (Policy(install_windows=NIGHT), State.TRANSFERRING, None, None),
        (Policy(install_windows=NIGHT), State.READY, NOON, "outside_window"),
        (Policy(install_windows=NIGHT), State.READY, MIDNIGHT, None),
        (Policy(install_windows=NIGHT), State.READY, None, "clock_untrusted"),
        (Policy(install_windows=NIGHT, quiet_hours=NIGHT), State.READY, MIDNIGHT, "quiet_hours"),
    ],
)
def test_the_hour(policy: Policy, state: State, local: datetime | None, code: str | None) -> None:
    why = right_hour(policy, state, local)
    assert (why.code if why else None) == code


LAMP, METER = "zigbee:0000000000000001", "lorawan:0000000000000001"


@pytest.mark.parametrize(
    ("policy", "known", "code"),
    [
        ({}, {}, None),
        ({"minimum_lqi": 80}, {"id": LAMP, "lqi": 80}, None),
        ({"minimum_lqi": 80}, {"id": LAMP, "lqi": 79}, "link_weak"),
        ({"minimum_lqi": 80}, {"id": LAMP}, "link_unknown"),
        ({"minimum_lqi": 80}, {"id": METER}, None),  # LoRaWAN has none
        ({"minimum_snr_db": -10.0}, {"id": METER, "snr_db": -10.5}, "link_weak"),
        ({"minimum_snr_db": -10.0}, {"id": METER, "snr_db": -9.0}, None),
        ({"minimum_snr_db": -10.0}, {"id": LAMP}, None),
        ({"minimum_rssi_dbm": -110.0}, {"id": METER, "rssi_dbm": -111.0}, "link_weak"),
        ({"minimum_rssi_dbm": -110.0}, {"id": LAMP, "rssi_dbm": -80.0}, None),
        ({"minimum_rssi_dbm": -110.0}, {"id": LAMP}, "link_unknown"),
    ],
)
def test_the_link(policy: dict[str, object], known: dict[str, object], code: str | None) -> None:
    why = good_link(node(1, **known), Policy.model_validate(policy))
    assert (why.code if why else None) == code


def test_a_link_that_was_too_weak_has_to_be_better_by_a_margin() -> None:
    policy = Policy(minimum_lqi=80)
    assert good_link(node(1, lqi=85), policy, "link_weak") is not None
    assert good_link(node(1, lqi=85), policy) is None
    assert good_link(node(1, lqi=90), policy, "link_weak") is None
