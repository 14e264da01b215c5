"""A signed cancel in mid-transfer, through the daemon, to nodes of both radios: all of it ends, and nothing is left behind."""

import asyncio
import hashlib
import sqlite3
from pathlib import Path

import pytest

from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Selection
from gatewayd.demo import scenario
from gatewayd.demo.world import World
from tests.support.rig import LAMPS, METERS, Rig, lamp_firmware, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.timeout(700)]

METER_RELEASE = "releases/meter/1.3.0.json"
NODES = {node.id: node for node in (*LAMPS, *METERS)}


async def test_a_cancel_in_mid_transfer_ends_it_on_both_radios(tmp_path: Path) -> None:
    lamps, meters = lamp_firmware(size=24_000), meter_firmware(size=9_000)
    # Slower than elsewhere: in the time that a cancel takes, on a machine that is busy, no meter gets to the end.
    options = lamp_options(lorawan_nodes=METERS, firmware=(lamps, meters), lorawan_scale=60.0)
    async with World(tmp_path, options) as world:
        rig = Rig(world)
        of_lamps, of_meters = rig.campaign("lamps"), rig.campaign("meters", release=METER_RELEASE)
        of_meters = of_meters.model_copy(update={"selection": Selection(nodes=tuple(meter.id for meter in METERS))})
        for document in (of_lamps, of_meters):
            await rig.issue(document)
            await rig.until(lambda name=document.id: in_mid_transfer(rig, name), 120.0)
            await rig.cancel(document)
        assert held_by_nodes(rig) > 0
        await rig.until(lambda: rig.told("lamps", "cancelled") and rig.told("meters", "cancelled"))
        await rig.until(lambda: states(world) == {State.CANCELLED}, 60.0)

        # Nothing of it is left: no session, no group, no wish, and nobody gets a block any more.
        # A meter that heard neither deletion lets go when its class C session times out: 2^13 s at the most here, at 60 times.
        await rig.until(lambda: idle(rig), 300.0)
        await rig.until(lambda: wants(world) == {""})
        await world.site.snapshot()
        received = held_by_nodes(rig)
        await asyncio.sleep(1.0)  # 4 s of the lamps and a minute of the meters, in which something could come
        await world.site.snapshot()
        assert held_by_nodes(rig) == received
        for node in NODES.values():
            old = scenario.ZIGBEE_OLD if node in LAMPS else scenario.LORAWAN_OLD
            assert world.site.nodes[node.id]["version"] == old
        assert rig.told("lamps", "updated") + rig.told("meters", "updated") == []

        await rig.issue(rig.campaign("lamps-again"))
        again = of_meters.model_copy(update={"id": "meters-again"})
        await rig.issue(again)
        await rig.until(lambda: rig.updated("lamps-again") == {lamp.id for lamp in LAMPS}, 120.0)
        await rig.until(lambda: rig.updated("meters-again") == {meter.id for meter in METERS}, 180.0)
        await world.daemon.stop()
        await world.site.finish()
        for node in NODES.values():
            image = lamps.image if node in LAMPS else meters.image
            assert world.site.flash[node.id] == hashlib.sha256(image).hexdigest()


def in_mid_transfer(rig: Rig, campaign: str) -> bool:
    """Nodes have received parts of their image, as they say themselves, and none is known to hold all of it.

    The store may not say so yet: a short transfer can be over before its progress is written for the first time.
    """
    received = rig.blocks_received() if campaign == "lamps" else fragments(rig)
    found = query(rig.world, f"SELECT confirmed, size FROM node_update WHERE campaign = '{campaign}'")
    return received > 0 and all(confirmed < size for confirmed, size in found)


def states(world: World) -> set[str]:
    return {state for (state,) in query(world, "SELECT state FROM node_update WHERE campaign IN ('lamps', 'meters')")}


def wants(world: World) -> set[str]:
    return {want for (want,) in query(world, "SELECT want FROM node_update")}


def idle(rig: Rig) -> bool:
    """No node has a download, a fragmentation session or a multicast group."""
    return all(rig.world.site.nodes[name]["state"] == "idle" for name in NODES)


def held_by_nodes(rig: Rig) -> float:
    """Bytes and fragments that nodes have received, ever."""
    return float(rig.blocks_received()) + fragments(rig)


def fragments(rig: Rig) -> float:
    """That meters have received, ever."""
    total = 0.0
    for meter in METERS:
        counters = rig.world.site.nodes[meter.id]["counters"]
        assert isinstance(counters, dict)
        total += counters["fragments_received"]
    return total


def query(world: World, sql: str) -> list[tuple[object, ...]]:
    path = world.folder / "state" / "gatewayd.db"
    if not path.exists():
        return []  # the daemon is still starting
    database = sqlite3.connect(path)
    try:
        if database.execute("PRAGMA user_version").fetchone() == (0,):
            return []  # the file is there, its tables are not yet
        return database.execute(sql).fetchall()
    finally:
        database.close()
