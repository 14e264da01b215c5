"""SIGKILL while node updates stand in each of their states, as the store says afterwards: nothing is lost, nothing begins
again, every outcome is told once."""

import asyncio
import hashlib
import sqlite3
from pathlib import Path

import pytest

from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Policy, Selection
from gatewayd.demo import scenario
from gatewayd.demo.world import World
from tests.support.log_lines import LogLines
from tests.support.rig import Rig, lamp_firmware, lamp_options

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

# `verifying` is not among them: a Zigbee node says "complete" and "good" with one command, which is one transaction.
STATES = frozenset(
    {
        State.PENDING,
        State.PREPARING,
        State.TRANSFERRING,
        State.READY,
        State.INSTALLING,
        State.CONFIRMING,
        State.UPDATED,
    }
)
SITE = tuple(scenario.ZigbeeNode(f"lamp-{n}", 0x00124B00_00000200 + n) for n in range(1, 8))


async def test_sigkill_in_every_state_of_a_node_update(tmp_path: Path) -> None:
    firmware = lamp_firmware(size=3_000)
    async with World(tmp_path, lamp_options(firmware=(firmware,), zigbee_nodes=SITE)) as world:
        rig = Rig(world)
        # A node that joined in the moment of a power cut is known again when it speaks; that is another matter.
        await rig.until(lambda: stored(world, "SELECT id FROM node WHERE power = 'mains'") >= {n.id for n in SITE})
        everyone = Selection(nodes=tuple(lamp.id for lamp in SITE))
        policy = Policy(max_attempts=1, retry_after_s=1, concurrency=1)
        one_by_one = rig.campaign("lamps", policy=policy, selection=everyone)
        await rig.issue(one_by_one)
        entered = Entered(world.daemon.log)
        hit: set[State] = set()
        while not hit >= STATES and not entered.all_updated(len(SITE)):
            wanted = STATES - hit - {State.PENDING}
            await entered.one_of(wanted)
            await world.daemon.kill()
            hit |= {State(state) for state in stored(world, "SELECT DISTINCT state FROM node_update")}
            await world.daemon.start()
        assert STATES - hit == set()
        at_once = policy.model_copy(update={"concurrency": None})
        await rig.issue(one_by_one.model_copy(update={"revision": 2, "policy": at_once}))
        await rig.until(lambda: rig.updated("lamps") == {lamp.id for lamp in SITE}, 120.0)
        await world.daemon.stop()
        await world.site.finish()

        for lamp in SITE:
            assert world.site.flash[lamp.id] == hashlib.sha256(firmware.image).hexdigest()
            assert world.site.nodes[lamp.id]["downloads_started_at_zero"] == 1
            assert world.site.nodes[lamp.id]["downloads_thrown_away"] == 0
        outcomes = sorted(str(report.node) for report in rig.told("lamps", "updated"))
        assert outcomes == sorted(lamp.id for lamp in SITE)


class Entered:
    """Follows the daemon's log over its restarts, line by line: a state may last no longer than a tenth of a second."""

    def __init__(self, log: Path) -> None:
        self._log = LogLines(log)
        self._updated: set[object] = set()

    def all_updated(self, count: int) -> bool:
        return len(self._updated) >= count

    async def one_of(self, states: frozenset[State]) -> None:
        """Until a node enters one of them, from now on; or all that there is to see has been seen."""
        async with asyncio.timeout(60):
            while not any(state in states for state in self._new()) and not self.all_updated(len(SITE)):
                await asyncio.sleep(0.002)

    def _new(self) -> list[object]:
        moves = [line for line in self._log.read() if line.get("event") == "node_update"]
        self._updated |= {line["node"] for line in moves if line["state"] == State.UPDATED}
        return [line["state"] for line in moves]


def stored(world: World, query: str) -> set[str]:
    """The first column of what the daemon's store holds; where it was killed, this replays its log as a start does."""
    path = world.folder / "state" / "gatewayd.db"
    if not path.exists():
        return set()  # the daemon is still starting
    database = sqlite3.connect(path)
    try:
        if database.execute("PRAGMA user_version").fetchone() == (0,):
            return set()  # the file is there, its tables are not yet
        return {str(row[0]) for row in database.execute(query)}
    finally:
        database.close()
