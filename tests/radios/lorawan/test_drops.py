"""A node that is dropped keeps no image that could start later, and loses none that it may still need."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from radios.lorawan.messages import Unicast
from radios.lorawan.session_node import Step
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.firmware_management import UpgradeImage
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import World, new_image, spec


def asked(world, name):
    return [a for a in world.log if isinstance(a, Unicast) and a.name == name]


def drop(world, node, generation=3):
    world.session.direct(world.directive(node, Want.DROP, generation), world.now)
    world.run(lambda w: w.session.finished)
    assert world.facts(node)[-1] is Fact.DROPPED


def mute(world, node, *ports):
    """Its answers, on these ports alone if any, are lost on their way until it is dropped."""
    receive = world.session.receive

    def heard(uplink, now):
        if world.session.nodes[node.dev_eui].want is Want.DROP or (ports and uplink.port not in ports):
            receive(uplink, now)

    world.session.receive = heard


@pytest.mark.parametrize("device_class", ["C", "A"])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_image_of_which_the_node_has_not_told_is_deleted(device_class, restarts):
    """It has all of the block, but no answer of it came through."""
    node = spec(1, device_class=device_class, uplink_interval_s=60.0)
    world = World([node], new_image())
    world.run(lambda w: len(w.fragments()) > 20)
    mute(world, node)
    world.run(lambda w: w.node(node).bootloader.download is not None)
    assert world.session.nodes[node.dev_eui].step is Step.RECEIVING
    world.run(lambda w: len(w.fragments()) >= w.cohort.nb_frag)
    if restarts:
        world.session.direct(world.directive(node, Want.DROP, 3), world.now)
        world.run(lambda w: asked(w, "DevUpgradeImageReq"))
        world.restart()
    drop(world, node, 4)
    assert world.node(node).bootloader.download is None


def test_an_image_that_is_being_verified_is_deleted():
    node = spec(1, status_style=StatusStyle.SPEC)
    world = World([node], new_image())
    mute(world, node, 203)
    world.run(lambda w: w.session.nodes[node.dev_eui].step is Step.VERIFYING)
    drop(world, node)
    assert world.node(node).bootloader.download is None


def test_a_node_that_failed_and_holds_an_image_deletes_it():
    node = spec(1, status_style=StatusStyle.SPEC)
    world = World([node], new_image())
    mute(world, node, 203)
    world.run(lambda w: w.session.nodes[node.dev_eui].step is Step.VERIFYING)
    world.session.impossible(node.dev_eui, "no key", world.now)
    drop(world, node)
    assert world.node(node).bootloader.download is None


@pytest.mark.parametrize("after_s", [0.0, 5.0, 30.0, 90.0])
@pytest.mark.parametrize("device_class", ["C", "A"])
def test_a_node_on_trial_keeps_what_it_would_go_back_to(after_s, device_class):
    """Told to reboot, then dropped: it says what waits in its slot before anything is deleted there."""
    node = spec(1, device_class=device_class, uplink_interval_s=60.0, self_test_fails=True)
    world = World([node], new_image())
    bootloader = world.node(node).bootloader
    world.run(lambda w: w.session.nodes[node.dev_eui].reboots)
    mute(world, node)
    world.run(lambda _: bootloader.swaps)
    judge = bootloader.judge_image
    bootloader.judge_image = lambda: (
        (UpgradeImage.VALID, 1) if bootloader.swaps else judge()
    )  # as where slots are swapped
    begun = world.now
    world.run(lambda w: w.now >= begun + after_s)
    drop(world, node)
    assert asked(world, "DevUpgradeImageReq")
    assert not asked(world, "DevDeleteImageReq")


def test_before_anything_was_sent_nothing_is_asked_about_an_image():
    node = spec(1)
    world = World([node], new_image())
    world.run(lambda w: len(w.fragments()) > 3)
    drop(world, node)
    assert not asked(world, "DevUpgradeImageReq")
    assert not asked(world, "DevDeleteImageReq")


def test_a_moment_that_was_not_taken_back_in_time_is_no_reason_to_delete():
    """Dropped before the moment; no answer came through until long after it, and the node tries the image by then."""
    node = spec(1)
    world = World([node], new_image())
    world.session.direct(world.directive(node, Want.DELIVER, 2), world.now)
    world.run(lambda w: Fact.READY in w.facts(node))
    at = world.now + 7200.0
    order = replace(world.directive(node, Want.INSTALL, 3), install_at=datetime.fromtimestamp(at, UTC))
    world.session.direct(order, world.now)
    world.run(lambda w: w.session.nodes[node.dev_eui].step is Step.CONFIRMING)
    assert world.now < at
    receive = world.node(node).firmware.receive
    world.node(node).firmware.receive = lambda payload, now, *, multicast: (
        [] if payload[:1] == b"\x02" else receive(payload, now, multicast=multicast)
    )
    world.silent.add(node.dev_eui)
    world.session.direct(world.directive(node, Want.DROP, 4), world.now)
    world.run(lambda w: w.now > at + 60.0)
    assert world.node(node).bootloader.swaps == 1
    world.session.nodes[node.dev_eui].f_cnt = 0  # as where it had spoken little before
    world.silent.clear()
    world.run(lambda w: w.session.finished)
    assert not asked(world, "DevDeleteImageReq")


def test_an_image_that_was_taken_back_and_lies_in_its_slot_again_is_deleted():
    node = spec(1, self_test_fails=True)
    world = World([node], new_image())
    bootloader = world.node(node).bootloader
    world.run(lambda w: Fact.RUNNING in w.facts(node))
    assert bootloader.rollbacks == 1
    bootloader.download = world.image  # slots are swapped back
    drop(world, node)
    assert bootloader.download is None
