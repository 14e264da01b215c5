"""Every device trouble of section 1.6 of the protocol notes, survived; one test or more named after each."""

from dataclasses import replace

import pytest

from radios.lorawan.block_status import BlockStatus, StatusStyle
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Uplink
from radios.lorawan.packages import fragmentation
from radios.lorawan.packages.fragmentation import FragSessionStatusAns
from radios.lorawan.session_node import Step
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle as Style
from tests.radios.lorawan.world import World, all_running, new_image, spec


def assert_delivered(world, *, sessions=None):
    assert world.violations == []
    for s in world.specs.values():
        assert world.facts(s)[-1] is Fact.RUNNING, [(e.fact, e.code, e.detail) for e in world.events]
        assert world.node(s).running_image == world.image
        if sessions is not None:
            assert world.node(s).fragment_counters.sessions_set_up == sessions


def progress_is_true(world):
    for event in world.events:
        if event.fact is Fact.PROGRESS:
            session = world.network.nodes[event.node[-16:]].fragmentation.session
            if session is not None:
                assert event.confirmed <= session.decoder.nb_frag * world.cohort.frag_size
    return all_running(world)


# Status answers.


def test_loramac_status_is_the_last_counter_and_losses_that_never_go_down():
    specs = [spec(n, status_style=Style.LORAMAC, downlink_loss=0.12 * n) for n in (1, 2)]
    world = World(specs, new_image(20_000))
    world.run(progress_is_true)
    assert_delivered(world)


def test_loramac_status_says_nothing_about_a_plain_node_of_the_other_style():
    block = BlockStatus(nb_frag=200)
    block.take(200, 30, 200, still=True)
    assert block.style is StatusStyle.LAST
    assert block.confirmed <= 170


@pytest.mark.parametrize("style", [Style.LBM, Style.LORAMAC])
def test_missing_frag_is_modulo_256_so_256_missing_read_0(style):
    node = spec(1, status_style=style, downlink_loss=0.45, redundancy_limit=3000)
    world = World([node], new_image(48 * 700), frag_size=48)
    world.run(all_running)
    assert_delivered(world)


def test_lbm_keeps_saying_1_missing_after_a_reception_without_loss():
    world = World([spec(1, status_style=Style.LBM)], new_image())
    world.run(all_running)
    assert_delivered(world)
    assert len(world.fragments()) <= world.cohort.nb_frag + 4


def test_lbm_version_2_keeps_saying_1_missing_and_skips_its_mic_check():
    world = World([spec(1, status_style=Style.LBM, package_versions={3: 2})], new_image(), frag_version=2)
    world.run(all_running)
    assert_delivered(world)


def test_lbm_keeps_saying_1_missing_and_has_no_ts006():
    """One coded fragment more, and it says 0: nothing else has to be known."""
    node = spec(1, status_style=Style.LBM, package_versions={4: 0, 3: 2})
    world = blind([node], frag_version=2)
    world.run(lambda w: Fact.READY in w.facts(node))
    assert world.node(node).bootloader.download == world.image
    assert world.cohort.nb_frag < len(world.fragments()) <= world.cohort.nb_frag + 8


def test_lbm_counts_coded_fragments_lost_in_the_air_as_received():
    """Last counter less lost plain ones: after heavy loss it claims more than M received while some are missing."""
    block = BlockStatus(nb_frag=100, style=StatusStyle.COUNT)
    block.take(80, 20, 100, still=True)
    block.take(120, 4, 140, still=True)
    assert not block.claims_complete(120, 4)
    assert block.confirmed <= 96
    world = World([spec(1, status_style=Style.LBM, downlink_loss=0.4, redundancy_limit=500)], new_image(20_000))
    world.run(progress_is_true)
    assert_delivered(world)


# The decoder.


def test_no_plain_fragment_is_sent_after_a_coded_one():
    specs = [spec(n, downlink_loss=0.05 * n, status_style=list(Style)[n % 3]) for n in range(1, 6)]
    world = World(specs, new_image(20_000))
    world.run(all_running)
    assert_delivered(world)
    sent = world.fragments()
    first_coded = next(i for i, n in enumerate(sent) if n > world.cohort.nb_frag)
    assert all(n > world.cohort.nb_frag for n in sent[first_coded:])
    assert len(sent) == len(set(sent))  # lost plain ones are never sent again: decoders drop them


@pytest.mark.parametrize("at", range(5, 120, 9))
def test_setup_is_never_repeated_once_data_flowed_because_it_erases(at):
    world = World([spec(1, downlink_loss=0.2), spec(2)], new_image(10_000))
    world.crash_at = {at}
    world.run(all_running)
    assert world.violations == []
    assert_delivered(world)


@pytest.mark.parametrize("at", range(5, 60, 9))
def test_setup_is_never_repeated_once_data_flowed_by_unicast(at):
    world = World([spec(1, device_class="A", downlink_loss=0.2)], new_image(), alone=True)
    world.crash_at = {at}
    world.run(all_running)
    assert_delivered(world)


def test_loramac_says_finished_with_a_wrong_image_when_too_much_was_lost():
    """It must never be installed: the image is asked about, and a new session is made, or the node fails."""
    node = spec(1, status_style=Style.LORAMAC, downlink_loss=0.4, redundancy_limit=5)
    world = World([node], new_image(), settings=SessionSettings(attempts_most=1))
    world.run(all_running)
    failed = next(e for e in world.events if e.fact is Fact.FAILED)
    assert failed.code in ("invalid_image", "no_space")
    assert world.node(node).running_image != world.image
    assert world.node(node).bootloader.swaps == 0
    assert Fact.READY not in world.facts(node)


def test_loramac_wrong_image_gets_a_deliberate_new_session():
    node = spec(1, status_style=Style.LORAMAC, downlink_loss=0.4, redundancy_limit=5)
    world = World([node, spec(2)], new_image())
    world.run(lambda w: w.released)
    assert [(r.dev_eui, r.again) for r in world.released] == [(node.dev_eui, True)]


@pytest.mark.parametrize("style", [Style.LBM, Style.SPEC])
def test_lbm_returns_failed_when_too_much_was_lost(style):
    node = spec(1, status_style=style, downlink_loss=0.4, redundancy_limit=5)
    world = World([node, spec(2)], new_image())
    world.run(lambda w: w.released)
    release = world.released[0]
    assert (release.again, release.reason) == (True, "no_space")
    assert release.limit is not None  # an observation for the next cohort


def test_stock_decoder_limits_are_kept_before_the_first_coded_fragment():
    node = spec(1, downlink_loss=0.4, redundancy_limit=5, status_style=Style.LORAMAC)
    world = World([node, spec(2)], new_image(), limit=5)
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert world.released[0].reason == "redundancy"
    assert world.node(node).fragmentation.session.block is None  # no wrong image came to be


def test_one_session_at_a_time_whatever_indexes_a_node_claims():
    world = World([spec(1), spec(2, downlink_loss=0.2)], new_image())
    world.run(all_running)
    asked = [a.data for a in world.log if isinstance(a, Unicast) and a.name == "FragSessionSetupReq"]
    assert {data[1] >> 4 & 3 for data in asked} == {0}
    assert_delivered(world)


# Versions and forms.


@pytest.mark.parametrize(("version", "data"), [(1, "01 00c4 80 00"), (2, "01 00 00c4 80")])
def test_versions_1_and_2_of_the_status_answer_are_told_apart_by_what_the_node_told(version, data):
    found = fragmentation.decode_uplink(bytes.fromhex(data), version).commands
    assert found == (FragSessionStatusAns(frag_index=3, nb_frag_received=1024, missing_frag=128),)


def test_nodes_of_version_1_and_2_are_never_in_one_cohort():
    world = World([spec(1)], new_image())
    profile = replace(world.profile(spec(2)), frag_version=2)
    with pytest.raises(Exception, match="cannot join"):
        world.session.join(profile, world.directive(spec(2)), session_cnt=1, attempt=1, root_key=None, now=world.now)


@pytest.mark.parametrize(
    "data",
    [
        "80", "8001", "80deadbeef", "01", "0100", "01ffff", "0205", "04", "00", "0003", "30", "", "ff" * 50, "08000001",
        "0100c480000100c48000", "8000000000", "01 00c4 8000 80",
    ],
)  # fmt: skip
@pytest.mark.parametrize("port", [200, 201, 202, 203, 225])
def test_vendor_forms_and_rubbish_change_nothing(port, data):
    """MultiTech's CRC exchange (port 201, CID 0x80), parsers that went astray, cut frames: dropped, and the rest goes on."""
    node = spec(1)
    world = World([node], new_image())
    world.run(lambda w: len(w.fragments()) > 8)
    uplink = Uplink(node.dev_eui, port, bytes.fromhex(data), 1, data_rate=5, received_at=world.now)
    world.session.receive(uplink, world.now)
    assert world.session.nodes[node.dev_eui].step is Step.RECEIVING
    world.run(all_running)
    assert_delivered(world)


def test_fragments_are_counted_from_1_whatever_a_vendor_does():
    world = World([spec(1)], new_image())
    world.run(all_running)
    assert min(world.fragments()) == 1


def test_a_node_that_hears_nothing_of_the_group_leaves_before_coded_fragments_are_sent_for_it():
    """MultiTech's all-zero McKEKey: every request is answered, and every frame to the group fails its MIC."""
    node = spec(1)
    world = World([node, spec(2)], new_image())
    other_group_keys(world, node)
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(node.dev_eui, True, "deaf")]
    assert len(world.fragments()) <= world.cohort.nb_frag + 4
    world = World([node, spec(2)], new_image())
    other_group_keys(world, node)
    world.session.nodes[node.dev_eui].attempt = 2
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert [(r.again, r.reason) for r in world.released] == [(True, "no_multicast")]


def other_group_keys(world, s):
    world.node(s)._ke_key = world.node(s).multicast._ke_key = bytes(16)


def test_answers_of_several_packages_and_commands_in_one_frame_are_all_read():
    """ChirpStack's own parser takes one command only."""
    commands = [
        fragmentation.PackageVersionAns(package_identifier=3, package_version=1),
        FragSessionStatusAns(frag_index=0, nb_frag_received=5, missing_frag=1),
    ]
    data = fragmentation.encode(commands, 1)
    assert fragmentation.decode_uplink(data, 1).commands == tuple(commands)


@pytest.mark.parametrize("device_class", ["A", "C"])
def test_a_node_that_is_class_c_all_the_time_hears_the_group_too(device_class):
    world = World([spec(1, device_class=device_class)], new_image(), settings=SessionSettings(gather_s=3600.0))
    world.run(all_running)
    assert_delivered(world)


def test_lbm_4_5_0_answers_for_its_image_only_when_it_is_valid():
    """Silence is no proof of anything: more fragments, and the question again."""
    node = spec(1, downlink_loss=0.2, status_style=Style.LORAMAC)
    world = World([node], new_image(10_000))
    silent_until_valid(world, node)
    world.run(all_running)
    assert_delivered(world)


def silent_until_valid(world, s):
    receive = world.session.receive

    def heard(uplink, now):
        if not (uplink.port == 203 and uplink.data[:2] in (b"\x04\x00", b"\x04\x01")):
            receive(uplink, now)

    world.session.receive = heard


# Reboots, clocks, replays.


@pytest.mark.parametrize("version", [1, 2])
def test_a_node_that_rebooted_lost_its_session_and_gets_another(version):
    node = spec(1, package_versions={3: version})
    world = World([node, spec(2, package_versions={3: version})], new_image(20_000), frag_version=version)
    world.run(lambda w: len(w.fragments()) > 20)
    world.node(node)._reboot(world.now)
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(node.dev_eui, True, "session_lost")]


@pytest.mark.parametrize("version", [1, 2])
def test_a_unicast_node_that_rebooted_gets_another_session(version):
    node = spec(1, device_class="A", package_versions={3: version})
    world = World([node], new_image(), alone=True, frag_version=version)
    world.run(lambda w: len(w.fed) >= 16)
    world.node(node)._reboot(world.now)
    world.run(lambda w: w.released)
    assert [(r.again, r.reason) for r in world.released] == [(True, "session_lost")]


def test_a_session_cnt_that_was_used_before_leads_to_a_higher_one():
    node = spec(1, package_versions={3: 2})
    world = World([node], new_image(), frag_version=2)
    world.node(node).fragmentation._last_session_cnt[0] = 9
    world.run(lambda w: w.released)
    assert [(r.again, r.reason) for r in world.released] == [(True, "refused")]


def test_a_version_1_node_calls_a_start_in_the_past_an_undefined_group():
    world = World([spec(1, clock_error_s=900.0), spec(2)], new_image())
    world.run(all_running)
    assert any(isinstance(a, Unicast) and a.name == "ForceDeviceResyncReq" for a in world.log)
    assert_delivered(world)


def test_a_late_time_answer_is_never_sent():
    world = World(
        [spec(1, device_class="A", clock_error_s=-700.0)], new_image(), settings=SessionSettings(gather_s=3600)
    )
    world.run(all_running)
    assert_delivered(world)


def test_a_node_that_refuses_a_group_leaves_for_unicast():
    node = spec(1)
    world = World([node, spec(2)], new_image())
    world.node(node).multicast._max_groups = 0
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(node.dev_eui, True, "no_multicast")]


# Without TS006.


def blind(specs, **changes):
    world = World(specs, new_image(), settings=SessionSettings(unproven_after_s=7200.0), **changes)
    for node in world.session.nodes.values():
        node.profile = replace(node.profile, firmware_management=False)
    return world


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("style", "version"), [(s, v) for s in Style for v in (1, 2)])
def test_a_node_without_ts006_is_ready_by_its_block_and_never_said_to_run(style, version, alone):
    node = spec(1, package_versions={4: 0, 3: version}, status_style=style, downlink_loss=0.1)
    world = blind([node], frag_version=version, alone=alone, **({"frag_size": 48} if alone else {}))
    world.run(all_running)
    facts = world.facts(node)
    assert Fact.RUNNING not in facts
    assert facts[-1] is Fact.FAILED
    assert world.events[-1].code == "unproven"
    if (style, version) != (Style.LORAMAC, 1):  # that one never says that it has the block
        assert facts.index(Fact.COMPLETE) < facts.index(Fact.READY) < facts.index(Fact.INSTALLING)
    ready = [e for e in world.events if e.fact is Fact.READY]
    assert all(e.code == ("unverified" if version == 1 else e.code) for e in ready)
    assert world.node(node).bootloader.download == world.image


def test_new_firmware_with_ts006_proves_itself():
    node = spec(1, package_versions={3: 2})  # its TS006 is what the new image brings
    world = blind([node], frag_version=2)
    world.run(lambda w: Fact.INSTALLING in w.facts(node))
    world.node(node)._reboot(world.now)  # of its own accord
    world.run(lambda w: Fact.RUNNING in w.facts(node))
    assert_delivered(world)


def test_a_restart_does_not_lengthen_the_wait_for_a_proof():
    node = spec(1, package_versions={4: 0, 3: 2})
    world = blind([node], frag_version=2)
    world.run(lambda w: Fact.INSTALLING in w.facts(node))
    begun = world.now
    world.run(lambda w: w.now > begun + 3600)
    world.restart()
    world.run(all_running)
    assert world.now < begun + 7200 + 3600


def test_a_dropped_node_deletes_the_image_that_it_holds():
    node = spec(1)
    world = World([node], new_image())
    world.session.direct(world.directive(node, Want.DELIVER, 2), world.now)
    world.run(lambda w: Fact.READY in w.facts(node))
    assert world.node(node).bootloader.download is not None
    world.session.direct(world.directive(node, Want.DROP, 3), world.now)
    world.run(lambda w: w.session.finished)
    assert world.node(node).bootloader.download is None


def test_a_running_node_is_not_asked_to_delete_anything():
    node = spec(1)
    world = World([node], new_image())
    world.run(all_running)
    world.session.direct(world.directive(node, Want.DROP, 3), world.now)
    world.run(lambda w: w.session.finished)
    assert not [a for a in world.log if isinstance(a, Unicast) and a.name == "DevDeleteImageReq"]
