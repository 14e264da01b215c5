"""Whole deliveries in virtual time: losses both ways, all status styles, crashes and failed commits anywhere."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from radios.errors import ContractError
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import CreateGroup, DeleteGroup, Multicast, Unicast
from radios.lorawan.network_server import Uplink
from radios.lorawan.packages import firmware_management
from radios.lorawan.session_node import Step
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import CommitFailed, World, all_running, new_image, spec

STYLES = list(StatusStyle)


def assert_delivered(world, *, restarted=False):
    assert world.violations == []
    for s in world.specs.values():
        assert world.facts(s)[-1] is Fact.RUNNING, [(e.fact, e.code, e.detail) for e in world.events]
        assert world.node(s).running_image == world.image
        assert world.node(s).bootloader.swaps == 1
        facts = world.facts(s)
        assert facts.index(Fact.INSTALLING) < facts.index(Fact.RUNNING)
        assert facts.index(Fact.READY) < facts.index(Fact.INSTALLING)
    if not restarted:
        sent = world.fragments()
        nb_frag = world.cohort.nb_frag
        assert sent == list(range(1, len(sent) + 1))  # every counter once, plain ones never again
        assert len(sent) >= nb_frag


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_every_status_style_without_loss(style, version):
    world = World([spec(1, status_style=style, package_versions={3: version})], new_image(), frag_version=version)
    world.run(all_running)
    assert_delivered(world)
    assert len(world.fragments()) <= world.cohort.nb_frag + 8


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_losses_are_made_up_by_coded_fragments_only(style, version):
    specs = [
        spec(n, status_style=style, downlink_loss=0.05 * n, uplink_loss=0.1, package_versions={3: version})
        for n in range(1, 6)
    ]
    world = World(specs, new_image(20_000), frag_version=version)
    world.run(all_running)
    assert_delivered(world)


def test_progress_is_never_more_than_the_node_holds():
    specs = [spec(n, status_style=STYLES[n % 3], downlink_loss=0.15) for n in range(1, 7)]
    world = World(specs, new_image(20_000))
    seen = 0

    def checked(world):
        nonlocal seen
        for event in world.events[seen:]:
            session = world.network.nodes[event.node[-16:]].fragmentation.session
            if event.fact is Fact.PROGRESS and session is not None:
                assert event.confirmed <= session.decoder.confirmed_fragments * world.cohort.frag_size
        seen = len(world.events)
        return all_running(world)

    world.run(checked)
    assert any(e.fact is Fact.PROGRESS for e in world.events)
    assert_delivered(world)


def test_missing_fragments_beyond_255_are_not_taken_for_none():
    """MissingFrag is a low byte: 256 lost fragments read 0."""
    specs = [spec(n, status_style=STYLES[n % 3], downlink_loss=0.3, redundancy_limit=2000) for n in range(1, 4)]
    world = World(specs, new_image(48 * 900), frag_size=48)
    world.run(all_running)
    assert_delivered(world)


def _actions_of_a_run():
    world = World(
        [spec(1, downlink_loss=0.1), spec(2, downlink_loss=0.2, status_style=StatusStyle.LORAMAC)], new_image()
    )
    world.run(all_running)
    return world._performed


TOTAL = _actions_of_a_run()


@pytest.mark.parametrize("at", range(1, TOTAL, 3))
def test_a_crash_after_any_action_costs_no_node_its_data(at):
    specs = [spec(1, downlink_loss=0.1), spec(2, downlink_loss=0.2, status_style=StatusStyle.LORAMAC)]
    world = World(specs, new_image())
    world.crash_at = {at}
    world.run(all_running)
    assert world.restarts == 1
    assert_delivered(world, restarted=True)
    assert all(world.node(s).fragment_counters.sessions_set_up <= 2 for s in specs)


@pytest.mark.parametrize("at", range(1, 30))
def test_nothing_is_done_whose_commit_failed(at):
    world = World([spec(1), spec(2, downlink_loss=0.2)], new_image())
    world.fail_commits = {at}
    if at == 1:  # nothing of the cohort was ever durable
        actions = world.session.to_send(world.now)
        with pytest.raises(CommitFailed):
            world.perform(actions)
        assert not [a for a in world.log if isinstance(a, Unicast | Multicast | CreateGroup)]
        return
    world.run(all_running)
    assert_delivered(world, restarted=True)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_any_loss_any_crash(data):
    """Image identical whenever loss is below 100 %, wherever the daemon dies and whatever gets lost."""
    version = data.draw(st.sampled_from([1, 2]), "version")
    specs = [
        spec(
            n,
            seed=data.draw(st.integers(0, 1 << 30), "seed"),
            status_style=data.draw(st.sampled_from(STYLES), "style"),
            downlink_loss=data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5]), "down"),
            uplink_loss=data.draw(st.sampled_from([0.0, 0.2, 0.5]), "up"),
            clock_error_s=data.draw(st.sampled_from([0.0, -400.0, 90.0]), "clock"),
            package_versions={3: version, 2: data.draw(st.sampled_from([1, 2]))},
        )
        for n in range(1, 1 + data.draw(st.integers(1, 4), "nodes"))
    ]
    world = World(specs, new_image(), frag_version=version, settings=SessionSettings(attempts_most=99))
    world.crash_at = data.draw(st.sets(st.integers(1, 150), max_size=4), "crashes")
    world.fail_commits = data.draw(st.sets(st.integers(2, 40), max_size=2), "failed commits")
    world.run(
        lambda w: _failed(w) or not set(w.specs) - {e.node[-16:] for e in w.events if e.fact is Fact.RUNNING} - _left(w)
    )
    assert world.violations == []
    assert _failed(world) == []
    for s in specs:
        if s.dev_eui not in _left(world):
            assert world.node(s).running_image == world.image


def _failed(world):
    return [(e.node, e.code, e.detail) for e in world.events if e.fact is Fact.FAILED]


def _left(world):
    """Late for this cohort: the driver would place them in another one."""
    return set(world.specs) - set(world.session.nodes)


def test_hold_keeps_a_node_out_of_the_demand():
    slow, good = spec(1, downlink_loss=0.3), spec(2)
    world = World([slow, good], new_image())
    world.run(lambda w: len(w.fragments()) > 5)
    world.session.direct(world.directive(slow, Want.HOLD, 2), world.now)
    world.run(lambda w: Fact.RUNNING in w.facts(good))
    sent = len(world.fragments())
    assert sent <= world.cohort.nb_frag + 8
    world.session.direct(world.directive(slow, Want.INSTALL, 3), world.now)
    world.run(all_running)
    assert_delivered(world)
    assert len(world.fragments()) > sent


def test_deliver_waits_for_the_order_to_install():
    world = World([spec(1)], new_image())
    world.session.direct(world.directive(spec(1), Want.DELIVER, 2), world.now)
    world.run(lambda w: Fact.READY in w.facts(spec(1)))
    before = world.now
    world.run(lambda w: w.now > before + 7200)
    assert world.node(spec(1)).version == 1
    world.session.direct(world.directive(spec(1), Want.INSTALL, 3), world.now)
    world.run(all_running)
    assert_delivered(world)


def test_drop_ends_it_on_both_sides():
    world = World([spec(1), spec(2)], new_image())
    world.run(all_running)
    for s in world.specs.values():
        world.session.direct(world.directive(s, Want.DROP, 5), world.now)
    world.run(lambda w: w.session.finished)
    assert [world.facts(s)[-1] for s in world.specs.values()] == [Fact.DROPPED, Fact.DROPPED]
    assert world.records == {}
    assert any(isinstance(a, DeleteGroup) for a in world.log)
    assert not world.network.multicast.groups
    for s in world.specs.values():
        assert not world.node(s).multicast.groups
        assert world.node(s).fragmentation.session is None


def test_drop_in_the_middle_leaves_the_old_image():
    world = World([spec(1), spec(2)], new_image())
    world.run(lambda w: len(w.fragments()) > 5)
    world.session.direct(world.directive(spec(1), Want.DROP, 2), world.now)
    world.run(lambda w: Fact.DROPPED in w.facts(spec(1)) and Fact.RUNNING in w.facts(spec(2)))
    assert world.node(spec(1)).version == 1
    assert world.node(spec(1)).fragmentation.session is None


def test_a_watchdog_rollback_is_told():
    bad = spec(1, self_test_fails=True)
    world = World([bad, spec(2)], new_image())
    world.run(lambda w: world.node(bad).bootloader.rollbacks and Fact.RUNNING in w.facts(bad))
    world.run(
        lambda w: [e.version for e in w.events if e.fact is Fact.RUNNING and e.node.endswith(bad.dev_eui)][-1:] == [1]
    )
    assert world.node(bad).bootloader.swaps == 1


@pytest.mark.parametrize("told_last", [1, 2])
def test_a_version_that_was_told_before_the_reboot_is_no_rollback(told_last):
    """A class A node that answers at its next uplink: the old version, then the reboot, then that its image slot is empty."""
    node = spec(1, uplink_interval_s=30.0)
    world = World([node], new_image())
    world.run(lambda w: w.session.nodes[node.dev_eui].reboots)
    world.silent.add(node.dev_eui)  # from here on it says what this test says

    def tells(command):
        data = firmware_management.encode(command)
        world.session.receive(Uplink(node.dev_eui, 203, data, 5, data_rate=5, received_at=world.now), world.now)

    def until_asked(name, since):
        world.run(lambda w: any(isinstance(a, Unicast) and a.name == name for a in w.log[since:]))
        assert Fact.RUNNING not in world.facts(node)
        return len(world.log)

    old, new = (firmware_management.DevVersionAns(fw_version=version, hw_version=0) for version in (1, 2))
    at = len(world.log)
    tells(old)
    at = until_asked("DevUpgradeImageReq", at)
    reboots = world.session.nodes[node.dev_eui].reboots
    tells(firmware_management.DevUpgradeImageAns(up_image_status=firmware_management.UpImageStatus.NO_IMAGE))
    until_asked("DevVersionReq", at)
    tells(old if told_last == 1 else new)
    world.run(lambda w: Fact.RUNNING in w.facts(node))
    assert [e.version for e in world.events if e.fact is Fact.RUNNING] == [told_last]
    assert world.session.nodes[node.dev_eui].reboots == reboots  # none to a node that has begun its image


def test_a_node_without_memory_fails_with_its_reason():
    small = spec(1, flash_bytes=1000)
    world = World([small, spec(2)], new_image())
    world.run(all_running)
    failed = next(e for e in world.events if e.fact is Fact.FAILED)
    assert (failed.node[-16:], failed.code) == (small.dev_eui, "no_space")
    assert Fact.RUNNING in world.facts(spec(2))


def test_a_clock_that_is_off_is_set_before_the_window():
    world = World([spec(1, clock_error_s=-500.0)], new_image())
    world.run(all_running)
    assert any(isinstance(a, Unicast) and a.name == "ForceDeviceResyncReq" for a in world.log)
    assert_delivered(world)


def test_nodes_that_are_late_leave_for_another_cohort():
    dead = spec(1, downlink_loss=1.0)
    world = World([dead, spec(2)], new_image())
    world.run(lambda w: Fact.RUNNING in w.facts(spec(2)))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(dead.dev_eui, True, "late")]


def test_a_lost_group_gets_another_address_and_key_and_no_data_is_lost():
    world = World([spec(1), spec(2)], new_image())
    world.run(lambda w: len(w.fragments()) > 10)
    first = world.cohort.mc_addr
    world.network.multicast.delete(world.cohort.group_id)
    world.session.group_lost(world.now)
    world.run(all_running)
    assert_delivered(world)
    assert world.cohort.mc_addr != first


def test_a_window_that_is_too_short_is_opened_again():
    specs = [spec(1, downlink_loss=0.2), spec(2)]
    world = World(specs, new_image(20_000), data_rate=0, frag_size=48)
    world.run(all_running)
    assert_delivered(world)


def test_step_of_a_node_never_skips():
    world = World([spec(1)], new_image())
    node = next(iter(world.session.nodes.values()))
    with pytest.raises(ContractError):
        node.move(Step.RUNNING)
    assert node.step is Step.GROUP


def test_class_a_nodes_take_part_in_class_c_windows():
    specs = [spec(1, device_class="A"), spec(2, device_class="A", downlink_loss=0.15, uplink_loss=0.1), spec(3)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=7200.0))
    world.run(all_running)
    assert_delivered(world)
