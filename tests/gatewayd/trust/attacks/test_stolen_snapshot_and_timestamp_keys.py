"""Attack: whoever holds the online keys, snapshot's and timestamp's, says which versions are the newest.

He can choose among what targets and releases have signed: nothing older than what the gateway has seen, nothing past its date,
nothing of his own.
"""

import time
from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile

from gatewayd.errors import Refused
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import KeyFolder, Role, campaign_key, generate_all
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet
from radios.radio import Want
from tests.gatewayd.campaign.conftest import Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, obtained, spec

DAY_S = 86400.0


def held(publisher: Publisher, now: float | None = None) -> MetadataSet:
    folder = publisher.repository.path / "metadata"
    return MetadataSet.load(folder, publisher.keys, DEFAULT_LIFETIMES, now or time.time())


def vouch_again(publisher: Publisher, old: MetadataSet, *names: str) -> None:
    """A new snapshot and timestamp that name old versions; `commit(set())` needs the two stolen keys and no other."""
    current = held(publisher)
    for name in names:
        current.snapshot.signed.meta[name] = old.snapshot.signed.meta[name]
    current.commit(set())


async def test_he_cannot_go_back_to_an_older_targets(gateways: Gateways, publisher: Publisher) -> None:
    old = held(publisher)
    publisher.repository.set_campaign_keys([])
    trust = gateways.start()
    await trust.refresh()
    vouch_again(publisher, old, "targets.json")
    with pytest.raises(Refused) as caught:
        await trust.refresh()
    assert caught.value.code == "rolled_back"
    assert trust.view is not None
    assert trust.view.campaign_keys.keys == ()


async def test_he_cannot_go_back_to_older_releases(gateways: Gateways, publisher: Publisher) -> None:
    old = held(publisher)
    publisher.repository.withdraw_release(spec().path)
    trust = gateways.start()
    await trust.refresh()
    vouch_again(publisher, old, "releases.json")
    with pytest.raises(Refused):
        await trust.refresh()
    with pytest.raises(Refused):
        await obtained(trust, spec().path)


@pytest.mark.parametrize(
    "names",
    [("targets.json",), ("releases.json",), ("targets.json", "releases.json")],
    ids=lambda names: "+".join(names),
)
async def test_a_revoked_campaign_and_a_withdrawn_release_stay_so(
    gateway: Gateway, publisher: Publisher, names: tuple[str, ...]
) -> None:
    """Mixed in every way: what a node was doing in their name goes on being held."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    old = held(publisher)
    publisher.repository.set_campaign_keys([])
    publisher.repository.withdraw_release(RELEASE)
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    vouch_again(publisher, old, *names)
    await gateway.authority.refresh()
    assert gateway.authority.problem is not None
    assert gateway.authority.problem[0] == "rolled_back"
    assert gateway.authority.campaigns == {}
    assert gateway.authority.releases == {}
    assert gateway.radio.wants() == [Want.DELIVER, Want.HOLD]


async def test_he_cannot_withhold_for_longer_than_the_date_of_targets(gateway: Gateway, publisher: Publisher) -> None:
    """He renews snapshot and timestamp for ever, and keeps a revocation from us: until targets end, and no day longer."""
    await gateway.stop()
    for days, blocked in ((60, None), (91, "trust_expired")):
        held(publisher, time.time() + days * DAY_S).commit(set())
        gateway.times.passed_s = days * DAY_S
        await gateway.start(refresh=False)
        await gateway.authority.refresh()
        why = gateway.authority.blocked(gateway.wall.now())
        assert (None if why is None else why[0]) == blocked
        if blocked is None:
            await gateway.stop()
    await gateway.issue(gateway.document())
    await gateway.until_code("trust_expired")
    assert gateway.radio.orders == []
    assert gateway.radio.told == []


async def test_he_cannot_add_keys_that_order_a_rollout(gateway: Gateway, publisher: Publisher, tmp_path: Path) -> None:
    """Targets that list his campaign key, sealed with what he has."""
    his = generate_all(tmp_path / "his")
    listed = publisher.repository.campaign_keys().keys
    publisher.repository.set_campaign_keys([*listed, campaign_key(his.signer(Role.CAMPAIGN), ["gateway:*"])])
    for thief in (Role.SNAPSHOT, Role.TIMESTAMP):
        reseal_targets(publisher, thief)
        await gateway.authority.refresh()
        assert gateway.authority.problem is not None
        assert gateway.authority.problem[0] == "bad_signature"
    await order_by(gateway, his)
    assert await refusals(gateway) == [("meters", "unknown_key")]
    await nothing_on_air(gateway)


async def test_he_cannot_add_a_role_of_his_own(gateway: Gateway, publisher: Publisher) -> None:
    """A role that targets do not delegate to is in the snapshot for nothing."""
    current = held(publisher)
    current.releases.signed.targets["releases/meter/6.6.6.json"] = current.releases.signed.targets[RELEASE]
    current.releases.signatures.clear()
    current.releases.sign(publisher.keys.signer(Role.SNAPSHOT))
    data = current.releases.to_bytes()
    write_file(publisher.repository.path / "metadata" / "1.more.json", data)
    current.snapshot.signed.meta["more.json"] = MetaFile.from_data(1, data, ["sha256"])
    current.commit(set())
    await gateway.authority.refresh()
    await gateway.issue(gateway.document(release="releases/meter/6.6.6.json"))
    await gateway.until_code("unknown_release")
    await nothing_on_air(gateway)


def reseal_targets(publisher: Publisher, thief: Role) -> None:
    current = held(publisher)
    current.targets.signatures.clear()
    current.targets.sign(publisher.keys.signer(thief))
    data = current.targets.to_bytes()
    write_file(publisher.repository.path / "metadata" / f"{current.targets.signed.version}.targets.json", data)
    current.snapshot.signed.meta["targets.json"] = MetaFile.from_data(current.targets.signed.version, data, ["sha256"])
    current.commit(set())


async def order_by(gateway: Gateway, keys: KeyFolder) -> None:
    order = gateway.document()
    topic = f"ota/v1/gateways/gw-1/campaigns/{order.id}"
    await gateway.campaign(topic, sign_campaign(order, keys.signer(Role.CAMPAIGN)))
