"""Nodes start their image at the time that a directive names: one that listens, and one that would not be reached then."""

import hashlib
from datetime import UTC, datetime, timedelta

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.node_spec import NodeSpec
from tests.support.mesh_radio import NEW, mesh_radio

LATE_S, POLL_S = 60.0, 3600.0


async def test_a_listening_and_a_sleepy_node_install_at_their_time() -> None:
    sleeper = NodeSpec(0x00124B0000000101, battery_percent=80.0, sleepy=True, poll_s=POLL_S, reboot_s=1.0)
    listener = NodeSpec(0x00124B0000000102, reboot_s=1.0)
    async with mesh_radio([sleeper, listener], scale=30.0, image_size=1000) as world:
        await world.until(lambda: world.radio.status()["link"] == "up", "up")
        file = world.image.file
        reference = ImageRef(hashlib.sha256(file).hexdigest(), len(file), NEW)
        at = world.clock.now() + 150.0
        await world.radio.put(TransferOrder("t", reference, 0, 1.0, datetime.now(UTC) + timedelta(days=1)))
        nodes = [NodeId(spec.id) for spec in (sleeper, listener)]
        when = datetime.fromtimestamp(at, UTC)
        await world.radio.direct([NodeDirective("t", node, 1, Want.INSTALL, when) for node in nodes])
        world.report(nodes[0], 0x0001, 0x0021)  # so it is heard, and told of the image
        await world.until(lambda: all(world.node(node).running_version == NEW for node in nodes), "the new version")
        for node in nodes:
            changed = world.node(node).version_history[-1].at
            assert at <= changed < at + LATE_S, "at its time, and the sleeper not at its next poll"
        told = {event.node: event.at for event in world.journal.events if event.fact is Fact.INSTALLING}
        assert told[nodes[0]] < at, "known before the sleeper was told, which is before its time"
        assert told[nodes[1]] >= at, "who listens is told at its time, and can be held until then"
