"""A fault in one of the radio's own tasks is told, and stops nothing else."""

import asyncio

from radios.radio import NodeDirective
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import Fact, Want, new_image, spec


async def test_a_task_that_fails_is_told_and_stops_nothing(caplog):
    s, image = spec(1), new_image()

    async def broken():
        raise ZeroDivisionError("a fault of ours")

    async with site([s], image) as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(s), 1, Want.INSTALL)])
        await journal.until(Fact.PREPARING, node_id(s))
        radio._cohorts.ground.spawn(broken())
        await journal.until(Fact.RUNNING, node_id(s))
        assert network.simulated.nodes[s.dev_eui].version == 2
    assert any("a task failed" in record.message and record.exc_info for record in caplog.records)


async def test_a_cohort_that_fails_goes_on_from_the_journal_and_the_others_go_on(caplog):
    specs, image = [spec(1), spec(2)], new_image()
    async with site(specs, image) as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(specs[0]), 1, Want.INSTALL)])
        while not radio._cohorts.runners:
            await asyncio.sleep(0.01)
        (runner,) = radio._cohorts.runners.values()

        def fault(_now):
            raise ZeroDivisionError("a fault of ours")

        runner.session.to_send = fault
        runner.wake()
        await radio.direct([NodeDirective("t1", node_id(specs[1]), 1, Want.INSTALL)])
        await journal.until(Fact.RUNNING, *map(node_id, specs))
        assert all(network.simulated.nodes[s.dev_eui].version == 2 for s in specs)
    assert any("reading it again" in record.message for record in caplog.records)
