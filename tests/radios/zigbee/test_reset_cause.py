"""Why a node was reset, read over unmodified bellows from nodes that have a manufacturer's attribute for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from radios.clock import SystemClock
from radios.radio import NodeObservation
from radios.simulated.zigbee.bootloader import ResetCause
from radios.simulated.zigbee.node import CLUSTER_OWN
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.reset_cause import ResetCauseAttribute
from radios.zigbee.settings import ZigbeeSettings

TELLING = NodeSpec(0x00124B0000000001, reboot_s=0.05, tells_reset_cause=True)
SILENT = replace(TELLING, eui64=0x00124B0000000002, tells_reset_cause=False)
HARDWARE = f"zigbee:{TELLING.manufacturer_code:04x}-{TELLING.image_type:04x}"
WHERE = ResetCauseAttribute(CLUSTER_OWN, 0x0000, TELLING.manufacturer_code, {1: "power_on", 2: "watchdog"})


@contextlib.asynccontextmanager
async def seen(where: ResetCauseAttribute, journal: Any, images: Any) -> AsyncIterator[tuple[ZigbeeSite, list[Any]]]:
    """A site, and what its radio observes."""
    clock = SystemClock()
    async with ZigbeeSite([TELLING, SILENT], clock) as site, watching(site, where, journal, images) as found:
        yield site, found


@contextlib.asynccontextmanager
async def watching(
    site: ZigbeeSite, where: ResetCauseAttribute, journal: Any, images: Any, database: Path | None = None
) -> AsyncIterator[list[Any]]:
    found: list[NodeObservation] = []
    async with asyncio.timeout(60):
        settings = ZigbeeSettings(site.url, reset_causes={HARDWARE: where}, database=database)
        radio = ZigbeeRadio(settings, site.clock)

        async def observe() -> None:
            async for observation in radio.observations():
                found.append(observation)

        tasks = [asyncio.create_task(radio.run(journal, images)), asyncio.create_task(observe())]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def interviewed(found: list[Any], spec: NodeSpec, since: int = 0) -> NodeObservation:
    """The next observation with a version that an interview brought."""
    while True:
        for observation in found[since:]:
            if observation.node == spec.id and observation.version is not None and observation.joined is None:
                return observation
        await asyncio.sleep(0.01)


def reset(site: ZigbeeSite, spec: NodeSpec, cause: ResetCause) -> None:
    node, now = site.nodes[spec.id], site.clock.now()
    node.reboot(now, cause)
    site.mesh.settle(node, now)


@pytest.mark.parametrize(
    ("cause", "word"), [(ResetCause.POWER_ON, "power_on"), (ResetCause.WATCHDOG, "watchdog"), (ResetCause.SOFT, "3")]
)
async def test_it_is_read_after_a_reset(cause: ResetCause, word: str, journal: Any, images: Any) -> None:
    async with seen(WHERE, journal, images) as (site, found):
        for spec in (TELLING, SILENT):
            await interviewed(found, spec)
        before = len(found)
        for spec in (TELLING, SILENT):
            reset(site, spec, cause)
        assert (await interviewed(found, TELLING, before)).reset_cause == word
        silent = await interviewed(found, SILENT, before)
        assert (silent.reset_cause, silent.version) == (None, SILENT.version)


async def test_it_is_not_read_where_nobody_has_heard_of_a_reset(journal: Any, images: Any, tmp_path: Path) -> None:
    """A gateway that starts: the node may have been reset a year ago."""
    database = tmp_path / "zigbee.db"
    async with ZigbeeSite([TELLING], SystemClock()) as site:
        async with watching(site, WHERE, journal, images, database) as found:
            assert (await interviewed(found, TELLING)).reset_cause == "power_on"
        async with watching(site, WHERE, journal, images, database) as found:
            assert (await interviewed(found, TELLING)).reset_cause is None


async def test_an_attribute_that_the_node_does_not_have(journal: Any, images: Any) -> None:
    async with seen(replace(WHERE, attribute=0x0007), journal, images) as (site, found):
        await interviewed(found, TELLING)
        before = len(found)
        reset(site, TELLING, ResetCause.WATCHDOG)
        told = await interviewed(found, TELLING, before)
        assert (told.reset_cause, told.version) == (None, TELLING.version)
