"""An installation at a time: the node starts its image at that moment, or not before, and not when it is taken back."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from radios.lorawan.messages import Unicast
from radios.lorawan.packages import firmware_management
from radios.lorawan.reboot import LEAD_S
from radios.lorawan.session_node import Step
from radios.radio import Fact, NodeDirective, NodeId, Want
from tests.radios.lorawan.world import T0, World, new_image, spec

AT = T0 + 86_400.0


class Site(World):
    """Nodes that are delivered, and ordered to install at a time when they are ready. `clock`: whether they have TS003."""

    def __init__(self, specs, clock=True, **changes):
        self.clock = clock
        super().__init__(specs, new_image(), **changes)

    def profile(self, s):
        made = super().profile(s)
        return made if self.clock else replace(made, clock_version=None)

    @staticmethod
    def directive(s, want=Want.DELIVER, generation=1, at=None):
        install_at = None if at is None else datetime.fromtimestamp(at, UTC)
        return NodeDirective("t1", NodeId(f"lorawan:{s.dev_eui}"), generation, want, install_at)

    def order(self, s, want, generation, at=None):
        self.session.direct(self.directive(s, want, generation, at), self.now)

    def until_ready(self, *specs):
        self.run(lambda w: all(Fact.READY in w.facts(s) for s in specs))

    def until(self, when):
        self.run(lambda w: w.now >= when)

    def reboots(self, s):
        """Commands about a reboot that were queued for the node."""
        mine = [
            a for a in self.log if isinstance(a, Unicast) and a.dev_eui == s.dev_eui and a.name in ("install", "cancel")
        ]
        found = [c for a in mine for c in firmware_management.decode_downlink(a.data).commands]
        return [c for c in found if not isinstance(c, firmware_management.DevVersionReq)]

    def started_at(self, s):
        """When the node began to run the new image; virtual time goes on until it does."""
        self.run(lambda w: w.node(s).bootloader.swaps)
        return self.now


@pytest.mark.parametrize("device_class", ["C", "A"])
@pytest.mark.parametrize("interval_s", [300.0, 3600.0])
def test_a_node_that_can_tell_the_time_starts_at_the_moment(device_class, interval_s):
    node = spec(1, device_class=device_class, uplink_interval_s=interval_s)
    site = Site([node])
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    lead_s = max(LEAD_S, 2 * site.profile(node).answer_timeout_s)
    site.until(AT - lead_s - 10)
    assert Fact.INSTALLING not in site.facts(node)
    assert abs(site.started_at(node) - AT) < 30.0  # it boots
    assert {type(c) for c in site.reboots(node)} == {firmware_management.DevRebootTimeReq}
    site.run(lambda w: Fact.RUNNING in w.facts(node))
    assert [e.version for e in site.events if e.fact is Fact.RUNNING] == [2]
    assert site.node(node).bootloader.swaps == 1


def test_a_node_without_a_clock_is_told_when_the_time_has_come():
    node = spec(1)
    site = Site([node], clock=False)
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    assert AT < site.started_at(node) < AT + 120.0
    assert {type(c) for c in site.reboots(node)} == {firmware_management.DevRebootCountdownReq}


@pytest.mark.parametrize("error_s", [-7200.0, 7200.0])
def test_a_node_whose_clock_is_off_is_taken_at_no_word(error_s):
    """By a window it would have been seen; here the clock goes wrong after it."""
    node = spec(1)
    site = Site([node])
    site.until_ready(node)
    site.node(node).clock.error_s = error_s
    site.order(node, Want.INSTALL, 2, AT)
    assert AT < site.started_at(node) < AT + 180.0
    kinds = [type(c) for c in site.reboots(node)]
    assert firmware_management.DevRebootTimeReq in kinds
    assert kinds[-1] is firmware_management.DevRebootCountdownReq
    cancels = [c for c in site.reboots(node) if getattr(c, "reboot_time", 0) == firmware_management.REBOOT_TIME_CANCEL]
    assert bool(cancels) == (error_s < 0)  # it would have started hours later; ahead, the moment is past for it


@pytest.mark.parametrize("want", [Want.HOLD, Want.DELIVER, Want.DROP])
def test_what_is_taken_back_before_the_moment_does_not_start(want):
    node = spec(1, uplink_interval_s=60.0)
    site = Site([node])
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    site.run(lambda w: w.session.nodes[node.dev_eui].step is Step.CONFIRMING)
    assert site.now < AT
    site.order(node, want, 3)
    site.until(AT + 7200.0)
    assert site.node(node).bootloader.swaps == 0
    assert site.node(node).firmware.reboot_at is None
    if want is Want.DROP:
        assert Fact.DROPPED in site.facts(node)
        return
    site.order(node, Want.INSTALL, 4)
    site.run(lambda w: Fact.RUNNING in w.facts(node))
    assert site.node(node).version == 2


def test_another_moment_replaces_the_first():
    node = spec(1)
    site = Site([node])
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    site.run(lambda w: w.session.nodes[node.dev_eui].step is Step.CONFIRMING)
    site.order(node, Want.INSTALL, 3, AT + 7200.0)
    assert abs(site.started_at(node) - (AT + 7200.0)) < 30.0
    assert site.node(node).bootloader.swaps == 1


@pytest.mark.parametrize("loss", [0.0, 0.5])
@pytest.mark.parametrize("after", range(8))
def test_a_crash_around_the_moment_starts_the_image_once(after, loss):
    node = spec(1, downlink_loss=loss, uplink_loss=loss, seed=after)
    site = Site([node], seed=after)
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    site.until(AT - 100.0)
    site.crash_at = {site._performed + after}
    site.run(lambda w: Fact.RUNNING in w.facts(node))
    assert [e.version for e in site.events if e.fact is Fact.RUNNING] == [2]
    assert site.node(node).bootloader.swaps == 1


def test_a_moment_that_nobody_heard_of_is_made_up_for():
    node = spec(1)
    site = Site([node])
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    site.until(AT - LEAD_S - 70.0)
    site.silent.add(node.dev_eui)
    site.node(node).spec = replace(node, downlink_loss=1.0)
    site.until(AT + 300.0)
    site.silent.clear()
    site.run(lambda w: Fact.RUNNING in w.facts(node), limit_s=86_400.0)
    assert site.node(node).version == 2


@pytest.mark.parametrize("want", [Want.HOLD, Want.DELIVER])
def test_what_was_taken_back_does_not_start_because_the_answer_to_that_was_lost(want):
    """The moment passes, the node says that its image still waits, and nobody wants that it starts."""
    node = spec(1)
    site = Site([node])
    site.until_ready(node)
    site.order(node, Want.INSTALL, 2, AT)
    site.run(lambda w: w.session.nodes[node.dev_eui].step is Step.CONFIRMING)
    site.order(node, want, 3)
    site.silent.add(node.dev_eui)
    site.until(AT + 10.0)
    site.silent.clear()
    site.until(AT + 7200.0)
    assert site.node(node).bootloader.swaps == 0
    assert site.node(node).counters.reboots == 0
    assert site.session.nodes[node.dev_eui].step is Step.READY
    site.order(node, Want.INSTALL, 4)
    site.run(lambda w: Fact.RUNNING in w.facts(node))
    assert site.node(node).version == 2


@pytest.mark.parametrize("want", [Want.HOLD, Want.DELIVER])
def test_a_node_that_waits_to_be_told_is_not_told_what_is_not_wanted_any_more(want):
    """Its clock is off, so it is to count down when the moment has come."""
    node = spec(1)
    site = Site([node])
    site.until_ready(node)
    site.node(node).clock.error_s = 7200.0
    site.order(node, Want.INSTALL, 2, AT)
    site.run(lambda w: w.session.nodes[node.dev_eui].timeless)
    assert site.now < AT
    site.order(node, want, 3)
    site.until(AT + 7200.0)
    assert site.node(node).counters.reboots == 0
    assert site.session.nodes[node.dev_eui].step is Step.READY
