"""Other hardware goes on from an older backup: nothing is begun again at 0, no counter is used twice, no air is overdrawn."""

import pytest

from radios.lorawan.air_book import AirBook
from radios.lorawan.block_status import StatusStyle as Counting
from radios.lorawan.journal_codec import Known, known_record, node_record, read_cohort, read_key, read_known, read_node
from radios.lorawan.keys import Key
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.regions import region
from radios.lorawan.restored import CODED_GAP_LEAST, SESSION_CNT_GAP, after_restore
from radios.lorawan.session_node import Step
from radios.radio import Fact, Record
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import FREQUENCY_HZ, GATEWAY, T0, World, all_running, new_image, spec

PLAN = region("EU868")
HOUR_S = 3600.0


def fragments(count):
    return lambda world: len(world.fragments()) >= count


def specs(style=StatusStyle.LBM, version=1, **changes):
    return [
        spec(n, downlink_loss=0.1 * n, status_style=style, package_versions={2: version, 3: version}, **changes)
        for n in (1, 2)
    ]


def ends_well(world, sessions=1):
    world.run(all_running)
    assert world.violations == []
    for s in world.specs.values():
        assert world.node(s).running_image == world.image
        assert world.node(s).fragment_counters.sessions_set_up == sessions
    assert world.network.multicast.f_cnts_reused == 0


@pytest.mark.parametrize("style", list(StatusStyle))
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("backed_up", "more"), [(1, 8), (4, 10), (10, 60), (20, 28), (29, 33), (30, 40), (34, 40)])
def test_nodes_go_on_with_what_the_old_hardware_gave_them(style, version, backed_up, more):
    """The image has 28 plain fragments: backups and breakdowns before, at and after their end."""
    world = World(specs(style, version), new_image(), frag_version=version)
    world.run(lambda w: fragments(backed_up)(w) or all_running(w))
    backup = world.back_up()
    world.run(lambda w: fragments(more)(w) or all_running(w))
    world.replace(backup)
    ends_well(world)


@pytest.mark.parametrize("version", [1, 2])
def test_a_backup_from_before_the_data_sets_no_node_up_anew(version):
    """By the backup nobody has a session; by now both are in the middle of it."""
    world = World(specs(version=version), new_image(), frag_version=version)
    world.run(lambda w: w.commits > 1)
    backup = world.back_up()
    assert all(read_node(r).step in (Step.GROUP, Step.BLOCK) for (scope, _), r in backup[0].items() if scope == "node")
    world.run(fragments(12))
    world.replace(backup)
    ends_well(world)


def test_fragments_that_nodes_have_are_not_sent_again():
    world = World(specs(), new_image())
    world.run(fragments(4))
    backup = world.back_up()
    world.run(fragments(24))
    held = [world.node(s).fragment_counters.fragments_received for s in world.specs.values()]
    before = len(world.fragments())
    world.replace(backup)
    world.run(fragments(before + 1))
    # What a node counts is the least that it can have seen; the style of its count is not known before it is proven.
    assert world.fragments()[before] >= max(held)


@pytest.mark.parametrize("version", [1, 2])
def test_nodes_that_were_updated_meanwhile_leave_and_are_asked_for_their_version(version):
    world = World(specs(version=version), new_image(), frag_version=version)
    world.run(fragments(10))
    backup = world.back_up()
    world.run(all_running)
    world.replace(backup)
    world.run(lambda w: w.session.finished)
    assert world.violations == []
    assert {(r.dev_eui, r.reason, r.again) for r in world.released[-2:]} == {(s, "restored", True) for s in world.specs}
    assert all(world.node(s).fragment_counters.sessions_set_up == 1 for s in world.specs.values())
    assert not world.network.multicast.groups, "no group of the old hardware is left behind"


@pytest.mark.parametrize("wanted", [Step.READY, Step.INSTALLING])
def test_a_node_that_runs_the_image_by_now_is_not_rebooted_again(wanted):
    """READY is passed within one call, so the record is put back to it."""
    world = World(specs(), new_image())
    world.run(lambda w: any(n.step is Step.INSTALLING for n in w.session.nodes.values()))
    records, made_at = world.back_up()
    (key,) = [key for key, r in records.items() if key[0] == "node" and read_node(r).step is Step.INSTALLING][:1]
    if wanted is Step.READY:
        ready = records[key].value.replace(b'"step":"installing"', b'"step":"ready"')
        records[key] = Record(*key, 1, ready)
    dev_eui = key[1].partition("/")[2]
    world.run(all_running)
    log = len(world.log)
    world.replace((records, made_at))
    node = world.session.nodes[dev_eui]
    world.run(lambda _: node.step is Step.RUNNING)
    assert not [a for a in world.log[log:] if getattr(a, "name", "") == "install" and a.dev_eui == dev_eui]
    assert [e.version for e in world.events if e.fact is Fact.RUNNING and e.node.endswith(dev_eui)][-1] == 2


def test_a_network_server_that_was_restored_too_reuses_no_frame_counter():
    world = World(specs(), new_image())
    world.run(fragments(5))
    backup = world.back_up()
    (group,) = world.network.multicast.groups.values()
    f_cnt = group.settings.f_cnt
    world.run(fragments(15))
    group.settings.f_cnt = f_cnt
    world.replace(backup)
    ends_well(world)


@pytest.mark.parametrize("more", [6, 60, 130])
def test_a_node_that_is_served_alone_goes_on(more):
    world = World([spec(1, downlink_loss=0.1)], new_image(), alone=True, frag_size=48)
    world.run(lambda w: len(w.fed) >= 3)
    backup = world.back_up()
    world.run(lambda w: len(w.fed) >= more or all_running(w))
    world.replace(backup)
    ends_well(world)


def test_a_silent_node_holds_up_nobody():
    """Its question waits; who answered goes on, and it joins them when it is heard."""
    world = World(specs(), new_image())
    world.run(fragments(5))
    backup = world.back_up()
    world.run(fragments(12))
    first, second = world.specs.values()
    world.replace(backup)
    world.silent.add(second.dev_eui)
    world.run(lambda w: Fact.RUNNING in w.facts(first))
    world.silent.clear()
    ends_well(world)


def answered(world):
    return not any(node.unsure for node in world.session.nodes.values())


def test_what_others_sent_is_not_taken_for_another_way_of_counting():
    world = World([spec(n, downlink_loss=0.3) for n in (1, 2)], new_image())
    world.run(fragments(3))
    backup = world.back_up()
    world.run(fragments(20))
    world.replace(backup)
    world.run(answered)
    assert all(node.block.missing for node in world.session.nodes.values())
    assert Counting.LAST not in {node.block.style for node in world.session.nodes.values()}


def test_nodes_whose_window_is_asked_for_are_not_served_one_by_one():
    world = World(specs(), new_image(), unicast=True, data_rate=0, frag_size=48)
    world.run(fragments(127))
    backup = world.back_up()
    world.run(fragments(128))
    fed = len(world.fed)
    world.replace(backup)
    world.run(lambda w: all(node.step not in (Step.GROUP, Step.WINDOW) for node in w.session.nodes.values()))
    assert not any(node.unicast for node in world.session.nodes.values())
    assert len(world.fed) == fed


def test_a_node_that_is_part_way_may_finish_after_the_order_expired():
    world = World(specs(), new_image())
    world.run(fragments(5))
    backup = world.back_up()
    world.replace(backup)
    world.session.expires = world.now
    world.silent.update(world.specs)
    end = world.now + HOUR_S
    world.run(lambda w: w.now > end)
    world.silent.clear()
    ends_well(world)


# -- single records --------------------------------------------------------------------------------------------------


def restored(world_or_records, age_s=HOUR_S, new_group=lambda: (7, Key(bytes(16)))):
    records = list(world_or_records.records.values()) if isinstance(world_or_records, World) else world_or_records
    found = after_restore(records, T0, T0 + age_s, PLAN, FREQUENCY_HZ, (), new_group)
    return {(record.scope, record.key): record for record in found}


def coding_world():
    world = World(specs(), new_image())
    world.run(fragments(31))
    return world


def test_the_group_gets_another_address_key_and_name_and_the_old_one_is_to_be_deleted():
    world = coding_world()
    before = read_cohort(world.records["group", "c0ffee00"])
    found = restored(world)
    after = read_cohort(found["group", "c0ffee00"])
    assert (after.mc_addr, after.group_id, after.old_groups) == (7, "", [before.group_id])
    assert after.group_name != before.group_name
    assert found["group", "c0ffee00/key"].secret
    assert read_key(found["group", "c0ffee00/key"]).reveal() == bytes(16)


@pytest.mark.parametrize(("age_s", "gap"), [(0.0, CODED_GAP_LEAST), (200.0, 200), (1e6, None)])
def test_coded_counters_leave_a_gap_by_the_backups_age(age_s, gap):
    world = coding_world()
    before = read_cohort(world.records["group", "c0ffee00"])
    assert before.reserved > before.nb_frag
    after = read_cohort(restored(world, age_s)["group", "c0ffee00"])
    expected = before.reserved + gap if gap is not None else before.reserved + (N_MAX - before.reserved) // 2
    assert after.reserved == expected


@pytest.mark.parametrize(
    ("before", "after"), [(0, SESSION_CNT_GAP), (5, 5 + SESSION_CNT_GAP), (0xFFFF, SESSION_CNT_GAP)]
)
def test_session_counters_leave_a_gap_and_never_become_0(before, after):
    (record,) = restored([known_record(Known("70b3d54990000001", session_cnt=before))]).values()
    assert read_known(record).session_cnt == after


def test_the_gap_in_the_coded_counters_is_no_loss_of_a_node():
    """What it told before is about a stretch of counters that nobody knows any more; what it has proven stays."""
    world = coding_world()
    dev_eui, block = next((name, node.block) for name, node in world.session.nodes.items())
    block.style, block.missing, block.confirmed = Counting.COUNT, 9, 20
    record = node_record("c0ffee00", world.session.nodes[dev_eui])
    world.records[record.scope, record.key] = record
    after = read_node(restored(world)[record.scope, record.key]).block
    after.take(25, 4, read_cohort(restored(world)["group", "c0ffee00"]).reserved, still=True, sent=N_MAX)
    assert (after.style, after.confirmed, after.missing) == (Counting.COUNT, 24, 4)
    assert after.loss.mean < 0.2


def test_a_node_is_told_its_new_group_is_ours():
    world = coding_world()
    dev_eui = next(iter(world.specs))
    records = [*world.records.values(), known_record(Known(dev_eui, mc_own=(1,)))]
    assert read_known(restored(records)["node", f"known/{dev_eui}"]).mc_own == (1, 7)


def test_the_air_of_the_last_hour_counts_as_used():
    book = AirBook(PLAN, FREQUENCY_HZ)
    book.know([GATEWAY])
    ledger = book.of(FREQUENCY_HZ)[GATEWAY]
    ledger.add(T0 - 60, 100.0)

    def used(age_s):
        now = T0 + age_s
        after = AirBook(PLAN, FREQUENCY_HZ)
        for record in restored(book.records(), age_s).values():
            after.restore(record, T0 + 1e6)
        return after.of(FREQUENCY_HZ)[GATEWAY].used(now)

    assert used(20.0) == pytest.approx(120.0, abs=0.01)  # it cannot have sent longer than that
    assert used(10 * HOUR_S) == pytest.approx(ledger.budget_s, abs=0.01)


def test_a_gateway_without_a_record_counts_too_and_a_band_without_limit_does_not():
    found = after_restore([], T0, T0 + HOUR_S, PLAN, FREQUENCY_HZ, [GATEWAY], lambda: (7, Key(bytes(16))))
    assert {r.key.split("/")[1] for r in found} == {GATEWAY}
    american = region("US915")
    hz = american.rx2_frequency_hz
    assert after_restore([], T0, T0 + HOUR_S, american, hz, [GATEWAY], lambda: (7, Key(bytes(16)))) == []


def test_a_record_that_cannot_be_read_is_left_to_the_radio():
    broken = Record("group", "c0ffee00", 99, b"{}")
    assert restored([broken, Record("network", f"air/{GATEWAY}", 1, b"x")]) == {}
