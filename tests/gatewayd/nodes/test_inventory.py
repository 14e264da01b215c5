"""What observations do to the inventory, and what of it survives."""

import sqlite3
from pathlib import Path

from gatewayd.nodes.inventory import Inventory
from gatewayd.store.database import Database
from radios.radio import NodeId, NodeObservation, Power

LAMP = NodeId("zigbee:00124b0001020304")


async def test_an_observation_adds_what_it_says_and_keeps_the_rest(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await inventory.observe(NodeObservation(LAMP, 10.0, hardware="zigbee:117c-2101", version=1, power=Power.BATTERY))
    await inventory.observe(NodeObservation(LAMP, 20.0, battery_percent=50.0, lqi=200, power=Power.UNKNOWN))
    node = inventory.get(LAMP)
    assert node is not None
    assert (node.version, node.version_at, node.battery_percent, node.battery_at) == (1, 10.0, 50.0, 20.0)
    assert (node.power, node.lqi, node.last_seen) == (Power.BATTERY, 200, 20.0)
    database.close()


async def test_telling_observations_survive_at_once_the_rest_with_the_flush(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    told = []
    inventory.changed = lambda: told.append(1)
    await inventory.observe(NodeObservation(LAMP, 10.0, version=1, sleepy=True, tags={"room": "12"}))
    await inventory.observe(NodeObservation(LAMP, 11.0, lqi=99))
    again = (await Inventory.load(database)).get(LAMP)
    assert again is not None
    assert (again.version, again.sleepy, again.tags, again.lqi) == (1, True, {"room": "12"}, None)
    assert len(told) == 1
    await inventory.flush()
    again = (await Inventory.load(database)).get(LAMP)
    assert again is not None
    assert again.lqi == 99
    database.close()


async def test_the_security_floor_only_rises_and_no_observation_touches_it(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await inventory.observe(NodeObservation(LAMP, 10.0, version=1))
    for floor in (5, 3):

        def work(db: sqlite3.Connection, floor: int = floor) -> None:
            inventory.raise_floor(db, LAMP, floor)

        await database.write(work)
        await inventory.reload_floor(LAMP)
    await inventory.observe(NodeObservation(LAMP, 11.0, version=2))
    await inventory.flush()
    again = (await Inventory.load(database)).get(LAMP)
    assert again is not None
    assert (again.security_version, again.version) == (5, 2)
    database.close()
