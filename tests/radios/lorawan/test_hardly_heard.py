"""Nodes of which most uplinks are lost, found out about by the driver in virtual time."""

import asyncio

import pytest

from radios.radio import Fact
from radios.simulated.zigbee.virtual_time import LoopClock, run_virtual
from tests.radios.lorawan.test_session_properties import IMAGE, T0, Daemon, Gateways, Journal, Site, deliver
from tests.radios.lorawan.world import spec


def test_a_question_goes_down_with_the_uplink_that_had_no_answer():
    """Else it waits in the queue for the next one, and each takes two."""
    s = spec(1, device_class="A", downlink_loss=1.0, uplink_interval_s=120.0)

    async def main():
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop)
        network = Site([s], clock, 0, IMAGE, Gateways())
        loop.attach(network)
        daemon = Daemon(network, Journal(), clock, [s], IMAGE, 99)
        daemon.start()
        await asyncio.sleep(1500.0)
        before = network.simulated.devices[s.dev_eui].f_cnt_up, network.simulated.devices[s.dev_eui].f_cnt_down
        await asyncio.sleep(1200.0)
        await daemon.stop()
        device = network.simulated.devices[s.dev_eui]
        return device.f_cnt_up - before[0], device.f_cnt_down - before[1]

    heard, taken = run_virtual(main(), start=T0)
    assert heard > 8
    assert taken >= heard - 2  # one now and then is doubled or late


@pytest.mark.parametrize(("device_class", "link", "burst"), [("A", (0.0, 0.9), 4.0), ("B", (0.7, 0.7), 1.0)])
def test_a_node_that_is_hardly_heard_tells_what_it_is_and_the_operator_knows_of_it(device_class, link, burst):
    """Its answers are lost, not its packages; the questions go down with the few uplinks that are heard."""
    versions = {0: 0, 3: 1, 2: 1}
    down, up = link
    specs = [
        spec(
            1,
            device_class=device_class,
            downlink_loss=down,
            uplink_loss=up,
            loss_burst_frames=burst,
            package_versions=versions,
            uplink_interval_s=120.0,
        )
    ]
    nodes, journal = deliver(specs, [])
    assert nodes[specs[0].dev_eui].running_image == IMAGE
    first = journal.events[0]
    assert (first.fact, first.code) == (Fact.STALLED, "silent")
    assert first.at < T0 + 3600.0
    begun = next(event for event in journal.events if event.fact is Fact.PREPARING)
    assert begun.at < T0 + 2 * 86400.0
