"""A node may start an image before it is told to: by a power cut, or because its firmware does so. It is not rebooted for it."""

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import Unicast
from radios.lorawan.session_node import Step
from radios.radio import Fact, Want
from radios.simulated.lorawan.node import VirtualNode
from tests.radios.lorawan.test_reboot_once import deaf_to_reboots, ran
from tests.radios.lorawan.test_session_properties import IMAGE, deliver
from tests.radios.lorawan.test_troubles import blind
from tests.radios.lorawan.world import World, new_image, spec


def starts(world, node, *, taken_back=False):
    """It reboots by itself into the image that it holds."""
    bootloader = world.node(node).bootloader
    assert bootloader.swap()
    if taken_back:
        bootloader.roll_back()
    world.node(node).power_cycle(world.now)


def ready(node):
    world = World([node], new_image())
    world.session.direct(world.directive(node, Want.DELIVER, 2), world.now)
    world.run(lambda w: Fact.READY in w.facts(node))
    since = world.now
    world.run(lambda w: w.now > since + 600.0)
    return world


def install(world, node):
    world.session.direct(world.directive(node, Want.INSTALL, 3), world.now)
    world.run(lambda w: ran(w, node))


@pytest.mark.parametrize("device_class", ["C", "A"])
@pytest.mark.parametrize("taken_back", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_ready_node_that_started_the_image_by_itself_is_not_rebooted(device_class, taken_back, restarts):
    node = spec(1, device_class=device_class, uplink_interval_s=60.0)
    world = ready(node)
    starts(world, node, taken_back=taken_back)
    again = world.now
    world.run(lambda w: w.now > again + 600.0)
    if restarts:
        world.restart()
    install(world, node)
    assert ran(world, node) == [1 if taken_back else 2]
    assert world.node(node).counters.reboots == 0


def test_a_ready_node_that_only_joined_again_is_told_to_reboot():
    node = spec(1)
    world = ready(node)
    world.node(node).power_cycle(world.now)
    again = world.now
    world.run(lambda w: w.now > again + 600.0)
    install(world, node)
    assert ran(world, node) == [2]
    assert world.node(node).counters.reboots == 1


def test_a_ready_node_that_did_not_is_told_at_once():
    """No question before: after a restart of the daemon neither."""
    node = spec(1)
    world = ready(node)
    world.restart()
    log = len(world.log)
    install(world, node)
    asked = [a.name for a in world.log[log:] if isinstance(a, Unicast)]
    assert asked[0] == "install"


def test_a_node_that_tells_late_of_its_ts006_is_asked_for_its_image_first():
    """It was thought to have none, so it was left to start the image by itself: it did, and took it back."""
    node = spec(1, package_versions={3: 2})
    world = blind([node], frag_version=2)
    world.run(lambda w: Fact.INSTALLING in w.facts(node))
    starts(world, node, taken_back=True)
    world.run(lambda w: ran(w, node))
    assert ran(world, node) == [1]
    assert world.node(node).counters.reboots == 0


@pytest.mark.parametrize("step", [Step.INSTALLING, Step.READY])
def test_after_a_restore_a_node_that_took_the_image_back_is_not_rebooted_again(step):
    """The backup is of just before it was told, or of before the order to install."""
    node = spec(1, self_test_fails=True)
    world = ready(node)
    backup = world.back_up()
    world.session.direct(world.directive(node, Want.INSTALL, 3), world.now)
    world.run(lambda w: w.session.nodes[node.dev_eui].step is not Step.READY)
    if step is Step.INSTALLING:
        backup = world.back_up()
    world.run(lambda w: ran(w, node))
    world.replace(backup)
    told = len(ran(world, node))
    world.session.direct(world.directive(node, Want.INSTALL, 4), world.now)
    world.run(lambda w: len(ran(w, node)) > told)
    assert ran(world, node)[-1] == 1
    assert world.node(node).counters.reboots == 1


def test_a_restart_waits_for_the_reboot_that_was_ordered_before_it():
    node = spec(1)
    world = World([node], new_image(), settings=SessionSettings(reboot_countdown_s=300))
    deaf_to_reboots(world)
    package = world.node(node).firmware
    world.run(lambda _: package.reboot_at is not None)
    due = package.reboot_at
    world.restart()
    deaf_to_reboots(world)
    world.run(lambda w: w.node(node).bootloader.swaps)
    assert package.reboot_at == due, "told again while it counts"
    world.run(lambda w: ran(w, node))
    assert ran(world, node) == [2]
    assert world.node(node).counters.reboots == 1


@pytest.mark.parametrize("device_class", ["C", "A"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("attempts_most", [2, 99])
def test_a_node_whose_firmware_starts_whatever_it_has_received_is_delivered_once(
    device_class, version, attempts_most, monkeypatch
):
    """Its session is gone before it has told that it has all of the block."""
    handle_timeout = VirtualNode.handle_timeout

    def starts_at_once(self, now):
        if self.joined and self.firmware.reboot_at is None and self.bootloader.download is not None:
            self.firmware.reboot_at = now + 0.5
        handle_timeout(self, now)

    monkeypatch.setattr(VirtualNode, "handle_timeout", starts_at_once)
    node = spec(1, device_class=device_class, package_versions={3: version}, uplink_interval_s=60.0)
    nodes, journal = deliver([node], [], attempts_most=attempts_most)
    held = nodes[node.dev_eui]
    assert held.running_image == IMAGE
    assert [e.version for e in journal.events if e.fact is Fact.RUNNING] == [2]
    assert held.fragment_counters.sessions_set_up == 1
