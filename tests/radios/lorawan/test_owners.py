"""Several daemons beside one network server: whose a device is, and what happens to a session that lost it."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from radios.errors import LinkError
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.inventory import Node
from radios.lorawan.journal_codec import Known
from radios.lorawan.network_server import Device, DeviceClass
from radios.lorawan.owners import Owners
from radios.lorawan.settings import LorawanSettings
from radios.radio import Fact, NodeDirective, Want
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import new_image, spec

TAG = "gatewayd"
CHIRPSTACK = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")


class Tags:
    """One device's, on a network server that can be away. `together`: reads that must have begun before any of them ends."""

    def __init__(self, together=1):
        self.now = {}
        self.written = []
        self.down = False
        self._barrier = asyncio.Barrier(together) if together > 1 else None

    async def tags(self, _dev_eui):
        if self.down:
            raise LinkError("away")
        found = dict(self.now)
        if self._barrier is not None and not self.written:
            await self._barrier.wait()
        return found

    async def set_tag(self, _dev_eui, name, value):
        self.now[name] = value
        self.written.append(value)


class Daemon:
    """Its inventory is as old as its start."""

    def __init__(self, name, network, **changes):
        settings = replace(LorawanSettings(chirpstack=CHIRPSTACK, owner=name), **changes)
        device = Device("01" * 8, "n", DeviceClass.A, "EU868", (1, 0), 300.0, tags=dict(network.now))
        self.node = Node(device, Known(device.dev_eui))
        self._owners = Owners(settings, network)

    async def ours(self, now):
        return await self._owners.ours(self.node, now)

    async def may_ask(self, now):
        return await self._owners.may_ask(self.node, ("ours",), now)


async def test_an_owner_that_is_found_is_adopted_though_the_inventory_is_older():
    network = Tags()
    first, second = Daemon("gw-a", network), Daemon("gw-b", network)
    assert not await first.ours(10.0)
    assert await first.ours(41.0)
    assert not await second.ours(100.0)
    assert not await second.ours(131.0)
    assert await first.ours(140.0)
    assert network.written == ["gw-a"]
    assert second.node.device.tags == {TAG: "gw-a"}


async def test_of_two_that_read_no_owner_at_once_one_has_it():
    network = Tags(together=2)
    daemons = [Daemon("gw-a", network), Daemon("gw-b", network)]
    assert await asyncio.gather(*(daemon.ours(0.0) for daemon in daemons)) == [False, False]
    assert len(network.written) == 2
    assert [await daemon.ours(29.0) for daemon in daemons] == [False, False]  # not settled
    told = [await daemon.ours(31.0) for daemon in daemons]
    assert told == [network.now[TAG] == "gw-a", network.now[TAG] == "gw-b"]


async def test_a_claim_waits_for_the_network_server():
    network = Tags()
    daemon = Daemon("gw-a", network)
    network.down = True
    assert not await daemon.ours(0.0)
    network.down = False
    assert not await daemon.ours(40.0)  # the claim begins now
    network.down = True
    assert not await daemon.ours(80.0)
    network.down = False
    assert await daemon.ours(81.0)


async def test_a_device_that_must_have_an_owner_is_not_claimed_when_its_tag_went():
    network = Tags()
    network.now[TAG] = "gw-a"
    daemon = Daemon("gw-a", network, owner_required=True)
    assert await daemon.ours(0.0)
    network.now.clear()
    assert not await daemon.ours(1.0)
    assert network.written == []


class Elsewhere(Tags):
    async def set_tag(self, _dev_eui, name, value):
        raise LinkError("not permitted")


async def test_a_node_is_claimed_before_it_is_asked_what_it_is():
    network = Tags()
    first, second = Daemon("gw-a", network), Daemon("gw-b", network)
    assert [await first.may_ask(now) for now in (0.0, 29.0, 31.0, 32.0)] == [False, False, True, True]
    assert [await second.may_ask(now) for now in (33.0, 64.0, 100.0)] == [False, False, False]
    assert network.written == ["gw-a"]
    nobody = Daemon("", network)
    assert await nobody.may_ask(0.0)  # where daemons have no names, nothing is claimed
    assert not await Daemon("gw-a", Tags(), owner_required=True).may_ask(0.0)


async def test_a_node_that_only_others_hear_is_not_claimed():
    network = Tags()
    daemon = Daemon("gw-a", network)
    daemon.node.known.snr_db["theirs"] = 5.0
    assert not await daemon.may_ask(0.0)
    assert network.written == []
    daemon.node.known.snr_db["ours"] = -5.0
    assert not await daemon.may_ask(1.0)
    assert await daemon.may_ask(40.0)
    other = Daemon("gw-a", Tags())
    other.node.device = replace(other.node.device, region="US915")
    assert not await other.may_ask(0.0)
    assert not await other.may_ask(40.0)


async def test_a_claim_that_is_refused_is_not_tried_with_every_uplink():
    network = Elsewhere()
    daemon = Daemon("gw-a", network)
    tries = []
    network.tags = lambda dev_eui: tries.append(dev_eui) or Tags.tags(network, dev_eui)
    for tenth in range(300):
        assert not await daemon.may_ask(tenth / 10)
    assert len(tries) == 3


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 90.0)), min_size=1, max_size=25), st.booleans())
def test_never_two_owners(asks, tagged):
    async def all_of_them():
        network = Tags()
        if tagged:
            network.now[TAG] = "gw-1"
        daemons = [Daemon(f"gw-{n}", network) for n in range(3)]
        now, owners = 0.0, set()
        for which, wait in asks:
            now += wait
            if await daemons[which].ours(now):
                owners.add(which)
        assert len(owners) <= 1

    asyncio.run(all_of_them())


async def test_a_session_gives_up_a_node_that_became_anothers_and_takes_it_back():
    kept, lost = spec(1, tags={TAG: "gw-a"}), spec(2, tags={TAG: "gw-a"})
    image = new_image()
    async with site([kept, lost], image, owner="gw-a") as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(s), 1, Want.INSTALL) for s in (kept, lost)])
        await journal.until(Fact.PREPARING, node_id(kept), node_id(lost))
        network.device_tags[lost.dev_eui][TAG] = "gw-b"
        while ("owner", node_id(lost)) not in {(e.code, e.node) for e in journal.events if e.fact is Fact.STALLED}:
            await asyncio.sleep(0.01)
        node = network.simulated.nodes[lost.dev_eui]
        set_up = node.fragment_counters.sessions_set_up
        await journal.until(Fact.RUNNING, node_id(kept))
        assert node.fragment_counters.sessions_set_up == set_up
        assert node.version == 1
        assert not [key for _, key in journal.records if key.endswith(f"/{lost.dev_eui}") and "known" not in key]
        network.device_tags[lost.dev_eui][TAG] = "gw-a"
        await journal.until(Fact.RUNNING, node_id(lost))
        assert node.running_image == image


async def test_a_node_that_runs_its_image_is_let_go_without_a_word():
    given_away = spec(1, tags={TAG: "gw-a"})
    image = new_image()
    async with site([given_away], image, owner="gw-a") as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(given_away), 1, Want.INSTALL)])
        await journal.until(Fact.RUNNING, node_id(given_away))
        network.device_tags[given_away.dev_eui][TAG] = "gw-b"
        while radio.status()["cohorts"]:
            await asyncio.sleep(0.01)
        network.device_tags[given_away.dev_eui][TAG] = "gw-a"
        await asyncio.sleep(0.2)  # several polls of the devices
        assert radio.status()["cohorts"] == []
        assert Fact.STALLED not in journal.facts(node_id(given_away))
