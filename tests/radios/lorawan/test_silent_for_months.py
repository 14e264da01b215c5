"""A node that never answers is asked for as long as the daemon runs, which may be years."""

from radios.lorawan.inventory import InventorySettings, Node
from radios.lorawan.journal_codec import Known
from radios.lorawan.network_server import Device, DeviceClass
from radios.radio import Fact
from tests.radios.lorawan.world import T0, World, new_image, spec

ASKED = 20_000


def test_a_session_goes_on_asking():
    node = spec(1)
    world = World([node], new_image())
    world.run(lambda w: Fact.RUNNING in w.facts(node))
    world.silent.add(node.dev_eui)
    of_session = world.session.nodes[node.dev_eui]
    world.run(lambda w: of_session.asked > 1)
    of_session.asked = ASKED
    world.run(lambda w: of_session.asked > ASKED + 1)
    assert of_session.not_before <= world.now + world.settings.answer_timeout_most_s


def test_the_inventory_goes_on_asking():
    settings = InventorySettings()
    node = Node(Device("70b3d54990000001", "", DeviceClass.A, "EU868", (1, 0), 300.0), Known("70b3d54990000001"))
    node.asked = ASKED
    assert node.ask(settings, T0) is not None
    assert node.not_before == T0 + settings.most_s
