"""A command to reboot is repeated only to a node that says that its image still waits: an image on trial, or taken back, is left alone."""

import asyncio

import pytest

from radios.errors import LinkError
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.messages import Unicast
from radios.lorawan.packages import firmware_management
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.commands import Answer
from radios.simulated.lorawan.packages.firmware_management import UpgradeImage
from tests.radios.lorawan.test_session_properties import IMAGE, Site, deliver
from tests.radios.lorawan.test_troubles import silent_until_valid
from tests.radios.lorawan.world import World, new_image, spec

COUNTDOWN_ANS = b"\x03"


def deaf_to_reboots(world):
    """The node's answer to the command is lost on its way, every time."""
    receive = world.session.receive

    def heard(uplink, now):
        if not (uplink.port == 203 and uplink.data[:1] == COUNTDOWN_ANS):
            receive(uplink, now)

    world.session.receive = heard


def ran(world, s):
    return [e.version for e in world.events if e.fact is Fact.RUNNING and e.node.endswith(s.dev_eui)]


@pytest.mark.parametrize("device_class", ["C", "A"])
@pytest.mark.parametrize("watchdog_s", [20.0, 60.0, 150.0, 400.0])
@pytest.mark.parametrize("heard", [True, False])
def test_a_node_whose_watchdog_took_the_image_back_is_not_rebooted_again(device_class, watchdog_s, heard):
    node = spec(1, device_class=device_class, self_test_fails=True, watchdog_s=watchdog_s, uplink_interval_s=60.0)
    world = World([node], new_image())
    if not heard:
        deaf_to_reboots(world)
    world.run(lambda w: ran(w, node))
    assert ran(world, node) == [1]
    assert world.node(node).reset_cause == "watchdog"
    assert world.node(node).counters.joins == 2, "once after it was taken back"
    assert world.node(node).bootloader.rollbacks == 1


@pytest.mark.parametrize("after_s", [0.0, 5.0, 30.0, 100.0])
@pytest.mark.parametrize("what", ["restart", "directive"])
def test_neither_a_restart_nor_another_directive_makes_it_reboot_again(what, after_s):
    node = spec(1, self_test_fails=True)
    world = World([node], new_image())
    deaf_to_reboots(world)
    world.run(lambda w: w.session.nodes[node.dev_eui].reboots)
    asked_at = world.now
    world.run(lambda w: w.now >= asked_at + after_s)
    if what == "restart":
        world.restart()
        deaf_to_reboots(world)
    else:
        world.session.direct(world.directive(node, Want.INSTALL, 2), world.now)
    world.run(lambda w: ran(w, node))
    assert world.node(node).reset_cause == "watchdog"
    assert world.node(node).counters.joins == 2


@pytest.mark.parametrize("device_class", ["C", "A"])
def test_a_command_that_was_lost_is_repeated(device_class):
    node = spec(1, device_class=device_class, uplink_interval_s=60.0)
    world = World([node], new_image())
    package = world.node(node).firmware
    receive, lost = package.receive, []

    def hears(payload, now, *, multicast):
        asked = firmware_management.decode_downlink(payload).commands
        if len(lost) < 3 and any(isinstance(c, firmware_management.DevRebootCountdownReq) for c in asked):
            lost.append(now)
            return []
        return receive(payload, now, multicast=multicast)

    package.receive = hears
    world.run(lambda w: ran(w, node))
    assert len(lost) == 3
    assert ran(world, node) == [2]
    assert world.node(node).counters.joins == 2


def test_a_command_that_the_network_server_did_not_take_is_given_again_without_a_question():
    node = spec(1)
    world = World([node], new_image())
    perform, asked = world._perform, []

    def takes(action):
        if isinstance(action, Unicast) and action.name in ("install", "DevVersionReq"):
            asked.append(action.name)
            if len(asked) == 1:
                world.session.unicast_refused(node.dev_eui, world.now)
                return
        perform(action)

    world._perform = takes
    world.run(lambda w: ran(w, node))
    assert asked[:3] == ["install", "install", "DevVersionReq"]


def test_a_node_that_says_nothing_of_an_image_that_is_not_valid_is_known_to_have_taken_it_back():
    """LoRa Basics Modem up to 4.5.0 leaves DevUpgradeImageReq without an answer then."""
    node = spec(1, self_test_fails=True)
    world = World([node], new_image())
    silent_until_valid(world, node)
    world.run(lambda w: ran(w, node), 6 * 3600.0)
    assert ran(world, node) == [1]
    assert world.node(node).counters.joins == 2


def swaps_slots(node):
    """As MCUboot: what ran before lies where the next image is expected, whole and signed, while the new one is on trial."""
    bootloader = node.bootloader
    judge = bootloader.judge_image

    def judged():
        return (UpgradeImage.VALID, 1) if bootloader.swaps and bootloader.download is None else judge()

    bootloader.judge_image = judged


def test_an_old_image_that_waits_beside_the_new_one_is_no_reason_to_reboot():
    """It told the old version just before it rebooted, and of its slot only after: a reboot on trial ends the trial."""
    node = spec(1)
    world = World([node], new_image())
    swaps_slots(world.node(node))
    deaf_to_reboots(world)
    package = world.node(node).firmware
    receive = package.receive

    def hears(payload, now, *, multicast):
        asked_slot = payload[:1] == b"\x04" and package.reboot_at is not None
        return [] if asked_slot else receive(payload, now, multicast=multicast)

    package.receive = hears
    world.run(lambda _: package.reboot_at is not None)
    world.restart()
    deaf_to_reboots(world)
    world.run(lambda w: ran(w, node))
    assert ran(world, node) == [2]
    assert world.node(node).counters.reboots == 1


@pytest.mark.parametrize("device_class", ["C", "A"])
def test_a_command_of_which_nobody_knows_whether_it_was_taken_is_not_given_again_unasked(device_class, monkeypatch):
    """The network server took it, and its word on that was cut off, as at the end of a call's time."""
    enqueue, cut = Site.enqueue, []

    async def cut_off(self, dev_eui, port, data, expires=None):
        await enqueue(self, dev_eui, port, data, expires)
        if data[:1] == COUNTDOWN_ANS and not cut:
            cut.append(data)
            await asyncio.sleep(10.0)
            raise LinkError("chirpstack EnqueueDeviceQueueItemRequest: DEADLINE_EXCEEDED")

    monkeypatch.setattr(Site, "enqueue", cut_off)
    monkeypatch.setattr(FuotaSession, "receive", without_countdown_answers(FuotaSession.receive))
    node = spec(1, device_class=device_class, uplink_interval_s=60.0)
    nodes, _ = deliver([node], [])
    assert cut
    assert nodes[node.dev_eui].running_image == IMAGE
    assert nodes[node.dev_eui].counters.reboots == 1


def without_countdown_answers(receive):
    return lambda self, uplink, now: uplink.data[:1] != COUNTDOWN_ANS and receive(self, uplink, now)


def test_an_acknowledgement_that_was_not_taken_says_nothing_of_a_command_to_reboot():
    node = spec(1)
    world = World([node], new_image())
    world.run(lambda w: w.session.nodes[node.dev_eui].reboots)
    world.session.unicast_refused(node.dev_eui, world.now, "FragDataBlockReceivedAns")
    assert not world.session.nodes[node.dev_eui].image_waits
    assert world.session.nodes[node.dev_eui].asked == 1


@pytest.mark.parametrize("countdown", [0xFFFFFF, 0xFFFFFE, 900])
def test_a_node_that_says_it_will_not_reboot_for_months_is_told_again(countdown):
    """0xFFFFFF is "cancelled": 194 days, if it were taken for a number."""
    node = spec(1)
    world = World([node], new_image())
    package, refused = world.node(node).firmware, []
    receive = package.receive

    def hears(payload, now, *, multicast):
        if payload[:1] == b"\x03" and not refused:
            refused.append(now)
            return [Answer(b"\x03" + countdown.to_bytes(3, "little"))]
        return receive(payload, now, multicast=multicast)

    package.receive = hears
    world.run(lambda _: refused)
    since = world.now
    world.run(lambda w: ran(w, node), limit_s=2 * 3600.0)
    assert ran(world, node) == [2]
    assert world.node(node).counters.reboots == 1
    assert countdown > 3600 or world.now - since > countdown


@pytest.mark.parametrize("device_class", ["C", "A"])
def test_a_node_that_reboots_without_an_answer_and_starts_nothing_is_not_rebooted_for_ever(device_class):
    """Its bootloader refuses what its application calls valid, and the command to reboot has no answer."""
    node = spec(1, device_class=device_class, uplink_interval_s=60.0)
    world = World([node], new_image())
    world.node(node).bootloader.swap = lambda: False
    deaf_to_reboots(world)
    world.run(lambda w: Fact.FAILED in w.facts(node), limit_s=86_400.0)
    assert world.events[-1].code == "refused"
    assert world.node(node).counters.reboots <= world.settings.reboot_attempts + 1
