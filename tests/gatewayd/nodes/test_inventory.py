"""What observations do to the inventory, and what of it survives."""

import asyncio
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


async def test_what_only_its_radio_knows_is_kept_and_who_was_never_heard_was_never_seen(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    details = {"class": "C", "margin_db": 10, "packages": {"3": 2}, "refused": None}
    await inventory.observe(NodeObservation(LAMP, 10.0, joined=True, details=details, alive=False))
    again = (await Inventory.load(database)).get(LAMP)
    assert again is not None
    assert (again.details, again.first_seen, again.last_seen) == (details, 10.0, 0.0)
    await inventory.observe(NodeObservation(LAMP, 20.0))
    await inventory.observe(NodeObservation(LAMP, 30.0, details={"class": "A"}, alive=False))
    node = inventory.get(LAMP)
    assert node is not None
    assert (node.details, node.last_seen) == ({"class": "A"}, 20.0)
    database.close()


async def test_who_left_has_not_come_back_because_a_table_still_remembers_it(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    for seen, joined in (
        (NodeObservation(LAMP, 10.0, joined=True, alive=False), True),  # nobody knows of a leave
        (NodeObservation(LAMP, 20.0, joined=False), False),
        (NodeObservation(LAMP, 30.0, joined=True, alive=False), False),
        (NodeObservation(LAMP, 40.0, joined=True), True),
    ):
        await inventory.observe(seen)
        node = inventory.get(LAMP)
        assert node is not None
        assert node.joined is joined
    database.close()


async def test_the_security_floor_only_rises_and_no_observation_touches_it(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await inventory.observe(NodeObservation(LAMP, 10.0, version=1))
    for floor in (5, 3):

        def work(db: sqlite3.Connection, floor: int = floor) -> None:
            inventory.raise_floor(db, LAMP, floor)

        await database.write(work)
        inventory.floor_raised(LAMP, floor)
    await inventory.observe(NodeObservation(LAMP, 11.0, version=2))
    await inventory.flush()
    again = (await Inventory.load(database)).get(LAMP)
    assert again is not None
    assert (again.security_version, again.version) == (5, 2)
    database.close()


async def test_a_chattering_node_is_written_at_most_once_in_a_while_and_not_lost(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    told = []
    inventory.changed = lambda: told.append(1)
    for percent in range(100, 50, -1):
        await inventory.observe(NodeObservation(LAMP, 10.0, battery_percent=float(percent)))
    assert len(told) == 50
    stored = (await Inventory.load(database)).get(LAMP)
    assert stored is not None
    assert stored.battery_percent is not None
    assert stored.battery_percent > 51  # the memory is ahead
    running = asyncio.create_task(inventory.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    stored = (await Inventory.load(database)).get(LAMP)
    assert stored is not None
    assert stored.battery_percent == 51
    database.close()


async def test_a_store_that_fails_stops_no_observation(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await database.write(lambda db: db.execute("ALTER TABLE node RENAME TO elsewhere"))
    await inventory.observe(NodeObservation(LAMP, 10.0, version=1))
    node = inventory.get(LAMP)
    assert node is not None
    assert node.version == 1
    await database.write(lambda db: db.execute("ALTER TABLE elsewhere RENAME TO node"))
    await inventory.flush()
    assert (await Inventory.load(database)).get(LAMP) is not None
    database.close()


async def test_a_floor_is_kept_for_a_node_that_was_not_written_yet(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await database.write(lambda db: inventory.raise_floor(db, LAMP, 7))
    stored = (await Inventory.load(database)).get(LAMP)
    assert stored is not None
    assert stored.security_version == 7
    database.close()


async def test_a_floor_is_kept_for_a_node_that_was_forgotten_in_a_crash(tmp_path: Path) -> None:
    """Its update went on after the restart, and is proven before the node is observed again."""
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await database.write(lambda db: inventory.raise_floor(db, LAMP, 3))
    inventory.floor_raised(LAMP, 3)
    await inventory.observe(NodeObservation(LAMP, 10.0, version=1))
    node = inventory.get(LAMP)
    assert node is not None
    assert (node.security_version, node.first_seen, node.version) == (3, 10.0, 1)
    database.close()


async def test_the_time_at_which_a_cause_of_a_reset_was_told_is_kept(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    inventory = await Inventory.load(database)
    await inventory.observe(NodeObservation(LAMP, 10.0, reset_cause="watchdog"))
    await inventory.observe(NodeObservation(LAMP, 20.0, version=1))
    await inventory.flush()
    node = (await Inventory.load(database)).get(LAMP)
    assert node is not None
    assert (node.reset_cause, node.reset_cause_at) == ("watchdog", 10.0)
    database.close()
