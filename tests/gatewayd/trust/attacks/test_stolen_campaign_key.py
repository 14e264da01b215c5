"""Attack: whoever holds a campaign key signs what he likes, and signs it well. He can order only what others vouch for."""

import json
import time

import pytest
from securesystemslib.dsse import Envelope

from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Desired, Selection, campaign_topic, dump, utc
from gatewayd.publisher.keys import Role
from gatewayd.trust.envelope import PAYLOAD_TYPE
from radios.radio import NodeObservation, Power, Want
from tests.gatewayd.campaign.conftest import AUDIENCE, METER, Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals
from tests.gatewayd.trust.site import HARDWARE, Publisher

TOPIC = campaign_topic(AUDIENCE, "meters")
DAY_S = 86400.0


async def thief_signs(gateway: Gateway, publisher: Publisher, **changes: object) -> None:
    """He needs none of our publisher's tools, which would refuse to make some of these."""
    document = json.loads(dump(gateway.document())) | changes
    envelope = Envelope(json.dumps(document).encode(), PAYLOAD_TYPE, {})
    envelope.sign(publisher.keys.signer(Role.CAMPAIGN))
    await gateway.campaign(TOPIC, json.dumps(envelope.to_dict()).encode())


async def test_a_release_that_nobody_lists(gateway: Gateway, publisher: Publisher) -> None:
    """Even when he serves it where releases are."""
    mine = publisher.repository.releases()[0].model_copy(update={"version": "6.6.6", "sequence": 666})
    (publisher.repository.path / "targets/releases/meter/6.6.6.json").write_bytes(dump(mine))
    await thief_signs(gateway, publisher, release="releases/meter/6.6.6.json")
    await gateway.until_code("unknown_release")
    await nothing_on_air(gateway)


@pytest.mark.parametrize(
    "path", ["trust/manufacturers.json", "releases/meter/../../evil/1.json", "https://evil.example/x"]
)
async def test_what_is_no_release_at_all(gateway: Gateway, publisher: Publisher, path: str) -> None:
    await thief_signs(gateway, publisher, release=path)
    assert await refusals(gateway) == [("meters", "bad_document")]
    await nothing_on_air(gateway)


async def test_a_release_below_the_fleets_floor(gateway: Gateway, publisher: Publisher) -> None:
    """The known hole that he would like to have back is listed still; the floor has risen since."""
    publisher.repository.set_floor(HARDWARE, 3)
    await gateway.authority.refresh()
    await thief_signs(gateway, publisher)
    await gateway.until_update(State.SKIPPED, "below_floor")
    await nothing_on_air(gateway)


async def test_a_release_below_what_the_node_has_proven(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.database.write(lambda db: gateway.inventory.raise_floor(db, METER, 3))
    gateway.inventory.floor_raised(METER, 3)
    await thief_signs(gateway, publisher)
    await gateway.until_update(State.SKIPPED, "downgrade")
    await nothing_on_air(gateway)


async def test_a_release_older_than_what_the_node_runs(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.inventory.observe(NodeObservation(METER, time.time(), version=0x02000000))
    await thief_signs(gateway, publisher)
    await gateway.until_update(State.SKIPPED, "newer")
    await nothing_on_air(gateway)


async def test_a_release_for_another_hardware_although_the_node_is_named(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.inventory.observe(
        NodeObservation(METER, time.time(), hardware="lorawan:00000008", version=1, power=Power.MAINS, joined=True)
    )
    await thief_signs(gateway, publisher, selection=json.loads(dump(Selection(nodes=(METER,)))))
    await gateway.until_update(State.SKIPPED, "wrong_hardware")
    await nothing_on_air(gateway)


async def test_an_older_revision(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.issue(gateway.document(revision=7, desired=Desired.PAUSED))
    await gateway.until_state("paused")
    await thief_signs(gateway, publisher, revision=6)
    assert await refusals(gateway) == [("meters", "replayed")]
    await nothing_on_air(gateway)


@pytest.mark.parametrize("days", [30.01, 31, 3650])
async def test_a_longer_life_than_thirty_days(gateway: Gateway, publisher: Publisher, days: float) -> None:
    """An order that outlives its thief's discovery by long."""
    now = time.time()
    issued, expires = utc(now).isoformat(), utc(now + days * DAY_S).isoformat()
    await thief_signs(gateway, publisher, issued=issued, expires=expires)
    assert await refusals(gateway) == [("meters", "bad_document")]
    await nothing_on_air(gateway)


async def test_he_cannot_lift_the_operators_hold(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.issue(gateway.document(desired=Desired.PAUSED))
    await gateway.until_state("paused")
    assert await gateway.coordinator.hold("meters", True)
    await thief_signs(gateway, publisher, revision=2)
    await gateway.until_state("held")
    await nothing_on_air(gateway)


async def test_what_he_started_stops_when_his_key_is_taken_from_the_list(
    gateway: Gateway, publisher: Publisher
) -> None:
    """With everything else in order he can start a rollout of a listed release: that is what the key is for."""
    await thief_signs(gateway, publisher)
    await gateway.until_told(Want.DELIVER)
    publisher.repository.set_campaign_keys([])
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    await thief_signs(gateway, publisher, revision=2)
    assert await refusals(gateway) == [("meters", "unknown_key")]
    assert gateway.radio.wants() == [Want.DELIVER, Want.HOLD]
