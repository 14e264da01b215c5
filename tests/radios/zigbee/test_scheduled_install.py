"""A sleepy node starts its image at the time it was given, although it would not be reached then."""

import hashlib
from datetime import UTC, datetime, timedelta

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.node_spec import NodeSpec
from tests.support.mesh_radio import NEW, mesh_radio

LATE_S, POLL_S = 60.0, 3600.0


async def test_a_sleepy_node_installs_at_its_time() -> None:
    spec = NodeSpec(0x00124B0000000101, battery_percent=80.0, sleepy=True, poll_s=POLL_S, reboot_s=1.0)
    node = NodeId(spec.id)
    async with mesh_radio([spec], scale=30.0, image_size=1000) as world:
        await world.until(lambda: world.radio.status()["link"] == "up", "up")
        file = world.image.file
        reference = ImageRef(hashlib.sha256(file).hexdigest(), len(file), NEW)
        at = world.clock.now() + 150.0
        await world.radio.put(TransferOrder("t", reference, 0, 1.0, datetime.now(UTC) + timedelta(days=1)))
        await world.radio.direct([NodeDirective("t", node, 1, Want.INSTALL, datetime.fromtimestamp(at, UTC))])
        world.report(node, 0x0001, 0x0021)  # so it is heard, and told of the image
        await world.until(lambda: world.node(node).running_version == NEW, "the new version")
        changed = world.node(node).version_history[-1].at
        assert at <= changed < at + LATE_S, "at its time, and not at its next poll"
        told = next(event.at for event in world.journal.events if event.fact is Fact.INSTALLING)
        assert told < at, "known before the node was told"
