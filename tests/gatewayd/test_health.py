"""The gateway's own troubles: in the retained state at once, in a report once they have lasted."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gatewayd.cloud.outbox import Outbox
from gatewayd.errors import StoreError
from gatewayd.health import LASTED_S, OK, Health, tell_now
from gatewayd.store.database import Database


class Bench:
    """One life of the watch over a store."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.troubles: dict[str, tuple[str, str]] = {"zigbee": (OK, "")}
        self.said: Mapping[str, str] = {}
        self.health = Health(lambda: self.troubles, database, Outbox(database, 2**20), self, lambda: 1.79e9)

    async def set_health(self, health: Mapping[str, str]) -> None:
        self.said = health

    async def reports(self) -> list[tuple[str, str]]:
        rows = await self.database.read(lambda db: db.execute("SELECT kind, body FROM outbox ORDER BY seq").fetchall())
        assert all(row["kind"] == "gateway" for row in rows)
        bodies = [json.loads(row["body"]) for row in rows]
        return [(body["state"], body["code"]) for body in bodies]


async def test_a_trouble_is_told_once_when_it_has_lasted_and_once_when_it_is_over(tmp_path: Path) -> None:
    bench = Bench(Database.open(tmp_path / "s.db"))
    await bench.health.look(0.0)
    bench.troubles["zigbee"] = ("radio_down", "x")
    await bench.health.look(1.0)
    assert bench.said == {"zigbee": "radio_down"}
    assert await bench.reports() == []
    for second in range(10):
        bench.troubles["zigbee"] = ("radio_down", f"try {second}")
        await bench.health.look(1.0 + LASTED_S + second)
    assert await bench.reports() == [("zigbee", "radio_down")]
    bench.troubles["zigbee"] = (OK, "")
    await bench.health.look(50.0)
    await bench.health.look(50.0 + LASTED_S)
    assert await bench.reports() == [("zigbee", "radio_down"), ("zigbee", "ok")]
    assert bench.said == {"zigbee": "ok"}


async def test_a_trouble_that_passes_quickly_is_no_report(tmp_path: Path) -> None:
    bench = Bench(Database.open(tmp_path / "s.db"))
    for second in range(100):
        bench.troubles["zigbee"] = (OK, "") if second % 10 else ("radio_down", "x")
        await bench.health.look(float(second))
    assert await bench.reports() == []


async def test_a_restart_does_not_tell_it_again(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    for _ in range(2):
        bench = Bench(database)
        bench.troubles["trust"] = ("trust_expired", "x")
        await bench.health.look(0.0)
        await bench.health.look(LASTED_S)
    assert await bench.reports() == [("trust", "trust_expired")]


async def test_what_was_told_at_once_is_not_told_again_because_it_lasts(tmp_path: Path) -> None:
    bench = Bench(Database.open(tmp_path / "s.db"))
    await bench.database.write(lambda db: tell_now(db, "store", "store_rolled_back", "x", 1.79e9))
    bench.troubles["store"] = ("store_rolled_back", "x")
    await bench.health.look(0.0)
    await bench.health.look(LASTED_S)
    assert await bench.reports() == [("store", "store_rolled_back")]
    bench.troubles["store"] = (OK, "")
    await bench.health.look(50.0)
    await bench.health.look(50.0 + LASTED_S)
    assert await bench.reports() == [("store", "store_rolled_back"), ("store", "ok")]


async def test_what_cannot_be_stored_is_told_later(tmp_path: Path) -> None:
    bench = Bench(Database.open(tmp_path / "s.db"))
    bench.troubles["clock"] = ("clock_untrusted", "x")
    await bench.health.look(0.0)
    await bench.database.write(lambda db: db.execute("ALTER TABLE outbox RENAME TO elsewhere"))
    with pytest.raises(StoreError):
        await bench.health.look(LASTED_S)
    await bench.database.write(lambda db: db.execute("ALTER TABLE elsewhere RENAME TO outbox"))
    await bench.health.look(LASTED_S + 2)
    assert await bench.reports() == [("clock", "clock_untrusted")]
