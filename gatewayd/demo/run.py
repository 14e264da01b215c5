"""The demo's course: watch, kill when asked, judge in the end."""

import asyncio
import json
import time
from collections.abc import Mapping

from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import GATEWAY, LORAWAN_CAMPAIGN, image_digests
from gatewayd.demo.display import Screen
from gatewayd.demo.lorawan_verdict import CANARY, LorawanFindings, lorawan_faults
from gatewayd.demo.progress import Continuity, lorawan_totals, share, zigbee_totals
from gatewayd.demo.verdict import (
    ALL_NODES,
    Findings,
    Told,
    continuity_faults,
    counts,
    equipment_faults,
    faults,
    missing,
    settled,
    site_faults,
)
from gatewayd.demo.world import World
from gatewayd.errors import Unavailable
from gatewayd.nodes.network_backup import SETTLE_S
from radios.simulated.zigbee.channel import lower_bound_s

LIMIT_S = 105.0  # with what follows, the whole takes less than 120 s
SITE_LIMIT_S = 6.0
CLEAN_LIMIT_S = 10.0  # for what nodes and network server still hold of the LoRaWAN groups
BEAT_S = 0.25
BACKUP_WITHIN_S = 30.0  # of its time, which comes a minute after the last node was heard for the first time
KILL_BETWEEN = (0.1, 0.9)  # of an image: both radios must have a node in between when the daemon is killed
UNPLUG_BETWEEN = (0.1, 0.9)  # of an image: a Zigbee node must be in between when the dongle is unplugged
LINK_DOWN_LIMIT_S = 15.0


class Demo:
    """One run in a world that is up."""

    def __init__(self, world: World, began: float, screen: Screen, *, kill: bool, unplug: bool) -> None:
        self._world = world
        self._began = began
        self._screen = screen
        self._kill = kill
        self._unplug = unplug
        self._killed: dict[str, object] | None = None
        self._unplugged: dict[str, object] | None = None
        self._continuity = Continuity()
        self._daemon_ran_s = 0.0
        self._reports = {"reports_taken": 0, "over_mqtt": 0}

    async def once(self) -> dict[str, object]:
        """Until every node has its outcome or the time is up; the JSON of the last line."""
        world = self._world
        done = await self._outcomes(LIMIT_S)
        lost = await self._site_faults()
        self._daemon_ran_s = time.monotonic() - world.daemon.started_at
        lost += await self._equipment_faults()
        await world.daemon.stop()
        clean = world.daemon.process is not None and world.daemon.process.returncode == 0
        await world.site.finish()
        told = world.cloud.told()
        self._look(told)
        found = faults(told, world.site.flash, image_digests())
        found += continuity_faults(world.site.nodes, self._continuity.begun_again)
        found += lost
        if not done:
            found.insert(0, f"not finished within {LIMIT_S:g} s")
        if self._kill and self._killed is None:
            found.append("not killed: the two radios were never in mid-transfer at the same time")
        if self._unplug and (self._unplugged is None or not self._unplugged["link_down"]):
            found.append("the dongle was not unplugged in mid-transfer, or the status did not say that it was")
        if not clean:
            found.append("the daemon did not end cleanly on SIGTERM")
        self._say_verdict(found)
        return self._result(told, found)

    async def until_cancelled(self) -> dict[str, object]:
        """Goes on when every node has its outcome, so that one can look around."""
        await self._outcomes(None)
        self._screen.say("every node has its outcome; the site stays until Ctrl-C")
        while True:
            self._look(self._world.cloud.told())
            await asyncio.sleep(BEAT_S)

    async def _outcomes(self, limit_s: float | None) -> bool:
        """Show and wait; False when the time is up."""
        while limit_s is None or self._elapsed() < limit_s:
            told = self._world.cloud.told()
            self._look(told)
            if settled(told) and (self._killed is not None or not self._kill):
                return True
            if (
                self._unplug
                and self._unplugged is None
                and _in_the_middle(self._world.site.nodes, UNPLUG_BETWEEN, "zigbee")
            ):
                await self._unplug_and_plug()
            if self._kill and self._killed is None and _in_the_middle(self._world.site.nodes, KILL_BETWEEN):
                await self._kill_and_start()
            await asyncio.sleep(BEAT_S)
        return False

    async def _site_faults(self) -> list[str]:
        """What a program that uses the nodes beside their updates has missed."""
        world, program = self._world, self._world.automation
        taken = world.site.reports
        end = time.monotonic() + SITE_LIMIT_S
        # While the daemon was dead or the dongle unplugged, nobody took what the dongle heard.
        away = self._killed or self._unplugged
        while (lost := {} if away else missing(taken, program.reports)) and time.monotonic() < end:
            await asyncio.sleep(BEAT_S)
        forgotten = await program.reporting_fault(SITE_LIMIT_S)
        unread = await program.reading_fault(SITE_LIMIT_S)
        number = sum(map(len, taken.values()))
        self._reports = {
            "reports_taken": number,
            "over_mqtt": number - sum(missing(taken, program.reports).values()),
        }
        published = {node: list(sequences) for node, sequences in program.reports.items()}
        await world.site.snapshot()  # made after what was published by now was sent
        invented = missing(published, world.site.reports)
        return site_faults(lost, invented, reported=bool(taken), forgotten=forgotten, unread=unread)

    async def _equipment_faults(self) -> list[str]:
        """What the operator did and does, and what the network and the air say."""
        world, operator = self._world, self._world.operator
        backed_up = operator.backed_up()
        await self._until_clean()
        await operator.finish()
        await world.site.snapshot()
        nodes = world.site.nodes
        hops = {node.id: node.hops for node in scenario.ZIGBEE_NODES}
        blocks = {node: int(str(nodes[node]["blocks_received"])) for node in hops if node in nodes}
        return self._lorawan_faults() + equipment_faults(
            Findings(
                steps=world.cloud.steps(),
                let_in=operator.let_in,
                install_codes=world.site.install_codes,
                shares=operator.shares,
                network=str(world.site.dongle["network"]),
                backed_up=backed_up,
                backup_due=self._daemon_ran_s > SETTLE_S + BACKUP_WITHIN_S,
                air_busy_s=float(str(world.site.air.get("busy_s", 0.0))),
                air_least_s=lower_bound_s(((blocks[node], hops[node]) for node in blocks), page_mode=True),
                held=nodes,
                described=operator.described,
                asked_backup=operator.asked_backup,
                told_to_leave=operator.told_to_leave,
                cut_frames=world.site.cut_frames,
                headless_frames=world.site.headless_frames,
                unreadable=operator.unreadable,
                dropped=operator.dropped,
                exceptions=world.daemon.log.read_text(errors="replace").count("Traceback (most recent call last)"),
                restarted=world.daemon.starts > 1,
            )
        )

    async def _until_clean(self) -> None:
        """Groups are deleted when the nodes that were in them have been told, or did not answer a few times."""
        site, end = self._world.site, time.monotonic() + CLEAN_LIMIT_S
        await site.snapshot()
        while site.network.get("groups") and time.monotonic() < end:
            await asyncio.sleep(BEAT_S)
            await site.snapshot()

    def _lorawan_faults(self) -> list[str]:
        world, operator = self._world, self._world.operator
        return lorawan_faults(
            LorawanFindings(
                steps=world.cloud.steps(),
                held=world.site.nodes,
                described=operator.described,
                plans=operator.plans.get(LORAWAN_CAMPAIGN, []),
                begun_at=world.cloud.first_at(CANARY.id, ("transferring", "verifying", "ready")),
                server=world.site.network,
                bus=operator.bus,
                ledger_s=operator.ledger["used_s"],
                budget_s=operator.ledger["budget_s"],
                sent_about_then=operator.sent_about_then,
                refusals_noticed=world.daemon.log.read_text(errors="replace").count("no gateway sent"),
                gateway=GATEWAY,
                restarted=world.daemon.starts > 1,
            )
        )

    def _look(self, told: Mapping[str, Told]) -> None:
        nodes = self._world.site.nodes
        self._continuity.see(nodes)
        self._screen.show(nodes, told, self._elapsed())
        for process in (self._world.daemon, self._world.site, self._world.broker):
            if process.ended and not process.stopped:
                raise Unavailable(f"the demo's {process.name} has ended by itself; its last words:\n{process.tail()}")

    async def _kill_and_start(self) -> None:
        world = self._world
        await world.daemon.kill()
        at = self._elapsed()
        await world.site.snapshot()
        self._killed = {"at_s": round(at, 1), "at_share": _shares(world.site.nodes)}
        self._screen.say(f"{at:5.1f} s  the daemon is killed (SIGKILL) in mid-transfer, and started again")
        await world.daemon.start()

    async def _unplug_and_plug(self) -> None:
        world = self._world
        await world.site.do("unplug")
        at = self._elapsed()
        self._unplugged = {"at_s": round(at, 1), "at_share": _shares(world.site.nodes)["zigbee"]}
        self._screen.say(f"{at:5.1f} s  the dongle is unplugged in mid-transfer")
        self._unplugged["link_down"] = await world.operator.sees_link_down(LINK_DOWN_LIMIT_S)
        await world.site.do("plug")
        self._screen.say(f"{self._elapsed():5.1f} s  the dongle is plugged in again")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _say_verdict(self, found: list[str]) -> None:
        for fault in found or ["every node is as it should be"]:
            self._screen.say(fault)

    def _result(self, told: Mapping[str, Told], found: list[str]) -> dict[str, object]:
        nodes = self._world.site.nodes
        result: dict[str, object] = {
            "ok": not found,
            "seconds": round(self._elapsed(), 1),
            "nodes": counts(told),
            "zigbee": zigbee_totals(node for name, node in nodes.items() if name.startswith("zigbee:")),
            "lorawan": lorawan_totals(node for name, node in nodes.items() if name.startswith("lorawan:")),
        }
        result["site"] = self._reports
        result["air"] = self._world.site.air
        if self._unplug:
            result["unplugged"] = self._unplugged
        if self._kill:
            result["killed"] = self._killed
        if self._kill or self._unplug:
            result["begun_again_at_zero"] = sorted(self._continuity.begun_again)
        return result | {"faults": found}


def failure(why: str, seconds: float) -> dict[str, object]:
    """The result of a demo that did not get to its end."""
    return {"ok": False, "seconds": round(seconds, 1), "faults": [why]}


def last_line(result: Mapping[str, object]) -> str:
    """The one JSON object that ends `gatewayd demo --once`."""
    return json.dumps(result, separators=(",", ":"))


def _shares(nodes: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, float]]:
    """What every node holds of an image that it is taking, by radio and name."""
    shares: dict[str, dict[str, float]] = {"zigbee": {}, "lorawan": {}}
    for node in ALL_NODES:
        if now := share(nodes.get(node.id)):
            shares[node.id.partition(":")[0]][node.name] = round(now, 3)
    return shares


def _in_the_middle(nodes: Mapping[str, Mapping[str, object]], between: tuple[float, float], *radios: str) -> bool:
    """Whether a node of each of the radios (none named: of all) holds a share of its image that is in between."""
    low, high = between
    shares = _shares(nodes)
    return all(any(low <= now <= high for now in shares[radio].values()) for radio in radios or shares)
