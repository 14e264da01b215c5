"""The demo's course: watch, kill when asked, judge in the end."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import image_digests
from gatewayd.demo.display import share
from gatewayd.demo.processes import Site
from gatewayd.demo.verdict import ALL_NODES, Told, counts, faults, settled
from gatewayd.demo.world import World
from gatewayd.errors import Unavailable

LIMIT_S = 115.0
BEAT_S = 0.25
KILL_BETWEEN = (0.3, 0.9)  # of an image: both radios must have a node in between when the daemon is killed


@dataclass(frozen=True, slots=True)
class Frame:
    """What a display gets at every beat."""

    headline: str
    nodes: Mapping[str, Mapping[str, object]]
    told: Mapping[str, Told]
    elapsed_s: float


class Demo:
    """One run in a world that is up. `frame` is called at every beat."""

    def __init__(self, world: World, began: float, frame: Callable[[Frame], None], kill: bool) -> None:
        self._world = world
        self._began = began
        self._frame = frame
        self._kill = kill
        self._killed: dict[str, object] | None = None

    async def once(self) -> dict[str, object]:
        """Until every node has its outcome or the time is up; the JSON of the last line."""
        world = self._world
        done = await self.watch(LIMIT_S)
        await world.daemon.stop()
        clean = world.daemon.process is not None and world.daemon.process.returncode == 0
        await world.site.finish()
        told = world.cloud.told()
        found = faults(told, world.site.flash, image_digests())
        if not done:
            found.insert(0, f"not finished within {LIMIT_S:g} s")
        if not clean:
            found.append("the daemon did not end cleanly on SIGTERM")
        return self._result(world.site, told, found)

    async def watch(self, limit_s: float | None) -> bool:
        """Show and wait; False when the time is up. Without a limit: until cancelled."""
        world = self._world
        while limit_s is None or self._elapsed() < limit_s:
            told = world.cloud.told()
            self._frame(Frame(f"status page: {world.status_url}", world.site.nodes, told, self._elapsed()))
            if limit_s is not None and settled(told) and (self._killed or not self._kill):
                return True
            if self._kill and self._killed is None and (shares := _in_the_middle(world.site)):
                await world.daemon.kill()
                self._killed = {"at_s": round(self._elapsed(), 1), "at_share": shares}
                await world.daemon.start()
            if world.daemon.ended:
                raise Unavailable(f"the daemon has ended:\n{world.daemon.tail()}")
            await asyncio.sleep(BEAT_S)
        return False

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _result(self, site: Site, told: Mapping[str, Told], found: list[str]) -> dict[str, object]:
        result: dict[str, object] = {
            "ok": not found,
            "seconds": round(self._elapsed(), 1),
            "nodes": counts(told),
            "zigbee": _zigbee_totals(site),
            "lorawan": _lorawan_totals(site),
            "faults": found,
        }
        if self._kill:
            result["killed"] = self._killed
        return result


def _in_the_middle(site: Site) -> dict[str, dict[str, float]] | None:
    """The shares that nodes hold, when both radios are in mid-transfer."""
    low, high = KILL_BETWEEN
    shares: dict[str, dict[str, float]] = {"zigbee": {}, "lorawan": {}}
    for node in ALL_NODES:
        held = share(site.nodes.get(node.id))
        if held:
            shares[node.id.partition(":")[0]][node.name] = round(held, 3)
    middle = all(any(low <= held <= high for held in radio.values()) for radio in shares.values())
    return shares if middle else None


def _zigbee_totals(site: Site) -> dict[str, int]:
    names = ("bytes_received", "bytes_received_twice", "downloads_started_at_zero", "downloads_resumed")
    return {name: sum(_number(site.nodes[n.id].get(name)) for n in scenario.ZIGBEE_NODES) for name in names}


def _lorawan_totals(site: Site) -> dict[str, int]:
    result = dict.fromkeys(("fragments_received", "bytes_received_twice", "sessions_set_up"), 0)
    for node in scenario.LORAWAN_NODES:
        counters = site.nodes[node.id].get("counters")
        if isinstance(counters, dict):
            for name in result:
                result[name] += _number(counters.get(name))
    return result


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def last_line(result: Mapping[str, object]) -> str:
    """The one JSON object that ends `gatewayd demo --once`."""
    return json.dumps(result, separators=(",", ":"))
