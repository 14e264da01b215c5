"""The most restrictive of the cloud's desired state, the operator's hold and the gate wins: all combinations."""

from dataclasses import replace

import pytest

from gatewayd.campaign.node_update import Input
from gatewayd.cloud.messages import Desired, Gate, Rollout, Tier
from radios.radio import Want
from tests.gatewayd.campaign.test_planner import Site
from tests.support.documents import campaign, node

RUNNING, PAUSED, CANCELLED = Desired.RUNNING, Desired.PAUSED, Desired.CANCELLED
FREE, HELD = False, True
OPEN, CLOSED, BREACH = "open", "closed", "breach"

# Campaign, then what is wanted of a node under way, of one that is ready, of one that installs, of one in the next tier.
STOPPED = ("hold", "hold", "install", "")
ENDED = ("drop", "drop", "install", "")
TABLE = {
    (RUNNING, FREE, OPEN): ("running", "deliver", "install", "install", "deliver"),
    (RUNNING, FREE, CLOSED): ("running", "deliver", "install", "install", ""),
    (RUNNING, FREE, BREACH): ("breached", *STOPPED),
    (RUNNING, HELD, OPEN): ("held", *STOPPED),
    (RUNNING, HELD, CLOSED): ("held", *STOPPED),
    (RUNNING, HELD, BREACH): ("breached", *STOPPED),
    (PAUSED, FREE, OPEN): ("paused", *STOPPED),
    (PAUSED, FREE, CLOSED): ("paused", *STOPPED),
    (PAUSED, FREE, BREACH): ("breached", *STOPPED),
    (PAUSED, HELD, OPEN): ("paused", *STOPPED),
    (PAUSED, HELD, CLOSED): ("paused", *STOPPED),
    (PAUSED, HELD, BREACH): ("breached", *STOPPED),
    (CANCELLED, FREE, OPEN): ("cancelled", *ENDED),
    (CANCELLED, FREE, CLOSED): ("cancelled", *ENDED),
    (CANCELLED, FREE, BREACH): ("cancelled", *ENDED),
    (CANCELLED, HELD, OPEN): ("cancelled", *ENDED),
    (CANCELLED, HELD, CLOSED): ("cancelled", *ENDED),
    (CANCELLED, HELD, BREACH): ("cancelled", *ENDED),
}


def rollout(minimum: int, failures: float) -> Rollout:
    first = Tier(name="first", nodes=tuple(node(n).id for n in range(1, 6)))
    gate = Gate(minimum_executed=minimum, success_ratio=0.5, failure_ratio=failures)
    return Rollout(tiers=(first, Tier(name="all", percent=100.0)), gate=gate)


def under_way() -> Site:
    """Node 1 updated, 2 failed for good, 3 under way, 4 ready, 5 installing, 6 in the next tier."""
    site = Site(campaign(rollout=rollout(5, 1.0)), *(node(n) for n in range(1, 7)))
    site.step()
    site.finish(1)
    site.fact(2, Input.FAIL)
    site.updates[site.of(2).node] = replace(site.of(2), code="invalid_image")
    site.fact(3, Input.DATA)
    for number in (4, 5):
        site.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(5, Input.INSTALL)
    site.step()
    return site


def test_the_table_is_whole() -> None:
    assert TABLE.keys() == {(d, h, g) for d in Desired for h in (FREE, HELD) for g in (OPEN, CLOSED, BREACH)}


@pytest.mark.parametrize(("said", "expected"), TABLE.items(), ids=str)
def test_the_most_restrictive_wins(said: tuple[Desired, bool, str], expected: tuple[str, ...]) -> None:
    desired, hold, gate = said
    site = under_way()
    rules = {OPEN: rollout(2, 0.5), CLOSED: rollout(5, 0.5), BREACH: rollout(2, 0.4)}
    site.revise(desired=desired, rollout=rules[gate])
    site.row = replace(site.row, hold=hold)
    for _ in range(3):
        site.step()
    assert (site.row.state, *(str(site.of(number).want) for number in (3, 4, 5, 6))) == expected
    assert site.row.open_tiers == (2 if said == (RUNNING, FREE, OPEN) else 1)


@pytest.mark.parametrize("said", [said for said in TABLE if said[0] is not CANCELLED], ids=str)
def test_what_was_stopped_goes_on_once_nobody_stops_it(said: tuple[Desired, bool, str]) -> None:
    desired, hold, gate = said
    site = under_way()
    rules = {OPEN: rollout(2, 0.5), CLOSED: rollout(5, 0.5), BREACH: rollout(2, 0.4)}
    site.revise(desired=desired, rollout=rules[gate])
    site.row = replace(site.row, hold=hold)
    site.step()
    site.revise(desired=RUNNING, rollout=rules[OPEN])
    site.row = replace(site.row, hold=False)
    for _ in range(3):
        site.step()
    wants = [str(site.of(number).want) for number in (3, 4, 5, 6)]
    assert (site.row.state, wants) == ("running", [Want.DELIVER, Want.INSTALL, Want.INSTALL, Want.DELIVER])


@pytest.mark.parametrize("by", ["operator", "cloud"])
def test_no_tier_opens_in_the_round_that_somebody_stops_the_campaign(by: str) -> None:
    site = Site(campaign(rollout=rollout(2, 0.5)), *(node(n) for n in range(1, 7)))
    site.step()
    site.finish(1)
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(2, Input.INSTALL, Input.NEW_VERSION)
    site.step(61)  # proven: the gate will open in the next round
    assert (site.row.state, site.row.open_tiers) == ("running", 1)
    if by == "operator":
        site.row = replace(site.row, hold=True)
    else:
        site.document = campaign(rollout=rollout(2, 0.5), desired=PAUSED)
    site.step()
    site.step()
    assert (site.row.open_tiers, site.row.gate, site.of(6).want) == (1, "open", "")
