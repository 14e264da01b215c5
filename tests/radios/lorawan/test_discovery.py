"""What a node has is asked and never guessed: TS007 first, then package by package; whose groups are on it."""

import random

import pytest

from radios.lorawan.discovery import Discovery
from radios.lorawan.hearing import Hearing
from radios.lorawan.inventory import InventorySettings, Node
from radios.lorawan.journal_codec import Known
from radios.lorawan.network_server import Device, DeviceClass, Reception, Uplink
from radios.lorawan.packages import firmware_management, fragmentation, multi_package, multicast
from radios.lorawan.packages.multi_package import DevPackageAns, Package

EUI = "70b3d54990000001"
EVERY_S = 86_400.0
TOLD = {2: 1, 3: 2, 4: 1, 1: 1}


def uplink(port, data, **changes):
    return Uplink(EUI, port, data, 1, **changes)


def version_answer(package, version):
    return fragmentation.encode(fragmentation.PackageVersionAns(package_identifier=package, package_version=version))


def dev_package(*packages):
    return uplink(225, multi_package.encode(DevPackageAns(tuple(Package(*entry) for entry in packages))))


def ask(discovery, now=0.0):
    wanted = discovery.wanted(EVERY_S, now)
    if wanted is not None:
        discovery.was_asked(wanted.name)
    return wanted


def device(**changes):
    values = {"device_class": DeviceClass.A, "uplink_interval_s": 300.0}
    return Device(EUI, "node", region="EU868", mac_version=(1, 0), **(values | changes))


def test_ts007_is_asked_first_and_tells_versions_and_ports_of_all():
    found = Discovery(Known(EUI))
    first = ask(found)
    assert (first.name, first.port, first.data) == ("DevPackageReq", 225, bytes.fromhex("0100"))
    assert found.take(dev_package((0, 1, 225), (2, 1, 10), (3, 2, 11), (4, 1, 13), (1, 2, 12)), 0.0)
    assert found.known.packages == {0: 1, 2: 1, 3: 2, 4: 1, 1: 2}
    ports = found.ports
    assert (ports.clock, ports.multicast, ports.fragmentation, ports.firmware) == (12, 10, 11, 13)
    assert ask(found).name == "DevVersionReq"
    assert ask(found).port == 13


def test_what_ts007_does_not_name_is_not_there():
    found = Discovery(Known(EUI))
    found.take(dev_package((3, 1, 201)), 0.0)
    assert (found.known.packages[2], found.known.packages[4], found.known.packages[1]) == (0, 0, 0)
    assert found.ready
    assert ask(found) is None


def test_without_ts007_package_by_package():
    found = Discovery(Known(EUI))
    asked = {ask(found).name for _ in range(8)}
    assert asked == {"DevPackageReq", *(f"PackageVersionReq {package}" for package in (2, 3, 4))}
    assert found.take(uplink(201, version_answer(3, 2)), 0.0)
    rest = [ask(found).name for _ in range(6)]
    assert "DevPackageReq" not in rest  # it answers package by package
    assert rest == [
        f"PackageVersionReq {package}" for package in (4, 2, 3, 4, 2, 3)
    ]  # 3 shows that answers get through


def asked_until_known(found, answers, most):
    """Questions asked until it is known which packages there are, each answered when `answers(package)`."""
    asked = 0
    while not found.known.packages.keys() >= {2, 3, 4} and asked < most:
        wanted = ask(found)
        asked += 1
        if wanted.name.startswith("PackageVersionReq") and answers(package := int(wanted.name[-1])):
            found.take(uplink(wanted.port, version_answer(package, 1)), 0.0)
    return asked


def test_a_package_that_stays_silent_while_another_one_answers_is_not_there():
    found = Discovery(Known(EUI))
    found.take(uplink(201, version_answer(3, 1)), 0.0)
    assert asked_until_known(found, lambda package: package == 3, 60) <= 2 * 12 + 10 + 2
    assert (found.known.packages[2], found.known.packages[4]) == (0, 0)
    assert found.changed  # a conclusion from silence is journalled too


def test_silence_means_nothing_while_the_package_that_is_there_is_silent_too():
    found = Discovery(Known(EUI))
    found.take(uplink(201, version_answer(3, 1)), 0.0)
    assert asked_until_known(found, lambda package: False, 300) == 300
    assert found.known.packages == {3: 1}


@pytest.mark.parametrize("heard", [0.09, 0.5])
def test_on_a_bad_link_no_package_that_is_there_is_found_missing(heard):
    """Both ways 7 of 10 frames are lost: a dozen questions without an answer are common."""
    chance, wrong = random.Random(1), 0
    for _ in range(300):
        found = Discovery(Known(EUI, packages={3: 1}))
        asked_until_known(found, lambda package: chance.random() < heard, 10_000)
        wrong += 0 in (found.known.packages[package] for package in (2, 3, 4))
    assert wrong <= 2


def test_a_package_thought_absent_that_speaks_is_asked_as_if_never_before():
    found = Discovery(Known(EUI, packages={2: 1, 3: 1}))
    asked_until_known(found, lambda package: package == 3, 60)
    assert found.known.packages[4] == 0
    found.take(uplink(203, firmware_management.encode(firmware_management.DevVersionAns(1, 2))), 5.0)
    assert ask(found).name == "PackageVersionReq 4"
    assert 4 not in found.known.packages


def test_a_node_that_answers_nothing_is_concluded_nothing_about():
    found = Discovery(Known(EUI))
    for _ in range(200):
        assert ask(found) is not None
    assert found.known.packages == {}
    assert not found.ready


def test_a_package_thought_absent_that_speaks_is_there():
    found = Discovery(Known(EUI, packages={2: 1, 3: 1, 4: 0}))
    answer = firmware_management.encode(firmware_management.DevVersionAns(fw_version=1, hw_version=2))
    assert found.take(uplink(203, answer), 5.0)
    assert 4 not in found.known.packages  # its version is asked again


@pytest.mark.parametrize("version", [3, 9, 255])
def test_an_unknown_version_takes_part_in_nothing(version):
    found = Discovery(Known(EUI, packages={2: 1, 3: version, 4: 1}, mc_groups=()))
    assert not found.ready
    assert f"version {version}" in found.unsupported()


def test_a_node_without_fragmentation_takes_part_in_nothing():
    found = Discovery(Known(EUI, packages={2: 1, 3: 0, 4: 1}, mc_groups=()))
    assert "no package 3" in found.unsupported()


def groups_answer(*groups):
    entries = tuple(multicast.McGroup(mc_group_id=group, mc_addr=address) for group, address in groups)
    mask = sum(1 << group for group, _ in groups)
    command = multicast.McGroupStatusAns(ans_group_mask=mask, nb_total_groups=len(groups), groups=entries)
    return uplink(200, multicast.encode(command))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((), 0),
        (((0, 0xAAAA),), 1),
        (((1, 0xAAAA),), 0),
        (((0, 0xAAAA), (1, 0xBBBB)), 2),
        (((0, 0x0123), (1, 0xAAAA)), 0),  # 0123 is ours, from before
        (((0, 1), (1, 2), (2, 3), (3, 4)), None),
    ],
)
def test_the_multicast_group_is_none_that_another_set_up(groups, expected):
    found = Discovery(Known(EUI, packages=dict(TOLD), fw_version=1, hw_version=1, mc_own=(0x0123,)), version_at=1.0)
    assert ask(found, 2.0).name == "McGroupStatusReq"
    assert not found.ready
    assert found.take(groups_answer(*groups), 2.0)
    assert found.ready
    assert found.mc_group_id() == expected
    assert Node(device(), found.known).unicast_only is (expected is None)


def test_a_node_that_does_not_tell_its_groups_is_not_waited_for_for_ever():
    found = Discovery(Known(EUI, packages=dict(TOLD), fw_version=1, hw_version=1), version_at=1.0)
    for _ in range(5):
        assert ask(found, 2.0).name == "McGroupStatusReq"
    assert not found.ready  # who was not heard since may have answered
    for _ in range(6):
        assert not found.ready
        found.was_silent(0.5)
    assert found.ready
    assert found.mc_group_id() == 0


def test_other_firmware_is_asked_everything_again():
    found = Discovery(Known(EUI, packages=dict(TOLD), ports={3: 11}, fw_version=1, hw_version=2, redundancy_limit=5))
    answer = firmware_management.encode(firmware_management.DevVersionAns(fw_version=2, hw_version=2))
    assert found.take(uplink(203, answer), 5.0)
    assert (found.known.packages, found.known.ports, found.known.redundancy_limit) == ({}, {}, None)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x01\x05\x00", b"\xff" * 40, b"\x81\x00\x00", b"\x02\x00"])
@pytest.mark.parametrize("port", [200, 201, 202, 203, 225])
def test_nonsense_is_no_knowledge(port, data):
    found = Discovery(Known(EUI))
    found.take(uplink(port, data), 0.0)
    assert found.known.packages in ({}, {1: 0, 2: 0, 3: 0, 4: 0, 0: 1})


def test_questions_to_a_node_that_answers_do_not_back_off_for_long():
    settings = InventorySettings()
    node = Node(device(), Known(EUI, packages={3: 1}))
    now = 0.0
    for _ in range(20):
        assert node.ask(settings, now) is not None
        assert node.not_before - now <= 3 * node.answer_timeout_s(settings)
        now = node.not_before


def reading(f_cnt):
    """An uplink of the application."""
    return Uplink(EUI, 2, b"x", f_cnt)


def silent_for(node, settings, now, questions):
    """Asked so many times without any uplink; the time of the last question."""
    for _ in range(questions):
        now = max(now, node.not_before)
        assert node.ask(settings, now) is not None
    return now


def test_an_uplink_without_the_answer_is_the_moment_to_ask_again():
    settings = InventorySettings()
    node = Node(device(), Known(EUI))
    now = silent_for(node, settings, 0.0, 14)
    assert node.not_before > now + 5 * 3600.0
    node.hear(reading(1), now + 600.0)  # takes the question
    assert not node.is_due(settings, now + 600.0)
    node.hear(reading(1), now + 610.0)  # a copy
    assert not node.is_due(settings, now + 610.0)
    for number in range(2, 6):
        at = now + 600.0 * number
        node.hear(reading(number), at)
        assert node.is_due(settings, at)  # it was lost, or the answer was
        assert node.ask(settings, at) is not None
        assert not node.is_due(settings, at + 1.0)


def test_class_c_is_asked_again_at_the_first_uplink_because_the_question_was_sent_at_once():
    settings = InventorySettings()
    node = Node(device(device_class=DeviceClass.C), Known(EUI))
    now = silent_for(node, settings, 0.0, 14)
    node.hear(reading(1), now + 3.0)  # it was on its way already
    assert not node.is_due(settings, now + 3.0)
    node.hear(reading(2), now + 600.0)
    assert node.is_due(settings, now + 600.0)


@pytest.mark.parametrize(("every", "questions"), [(1, 20), (10, 200)])
def test_a_device_that_is_dumb_is_left_alone_by_the_answers_that_would_have_been_heard(every, questions):
    """Of its uplinks, one of `every` is heard."""
    settings = InventorySettings()
    node = Node(device(), Known(EUI))
    asked = 0
    for number in range(1, 500):
        at = 300.0 * every * number
        node.hear(reading(every * number), at)
        if node.is_due(settings, at) and node.not_before <= at:
            asked += node.ask(settings, at) is not None
        if node.silence >= 20:
            break
    assert asked == pytest.approx(questions, rel=0.2)
    assert node.not_before > at + 5 * 3600.0
    node.hear(reading(every * number + every), at + 300.0)
    assert not node.is_due(settings, at + 300.0)


def test_silence_is_told_once_with_what_was_asked_and_again_after_an_answer():
    settings = InventorySettings()
    node = Node(device(), Known(EUI))
    now = silent_for(node, settings, 0.0, 4)
    assert node.silent_about(4) == ""
    now = silent_for(node, settings, now, 1)
    assert node.silent_about(4) == f"no answer to {node.discovery.last}, and not heard since"
    assert node.silent_about(4) == ""
    node.hear(uplink(201, version_answer(3, 1)), now + 600.0)
    now = silent_for(node, settings, now + 600.0, 5)
    node.hear(reading(2), now + 600.0)
    assert node.silent_about(4) == f"no answer to {node.discovery.last}"


@pytest.mark.parametrize(
    ("counters", "new", "share"),
    [
        ((5, 6, 7), (True, True, True), 1.0),
        ((5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 115, 125, 135, 145, 155, 165), (True,) * 17, 0.11),
        ((5, 6, 6, 7, 6, 8), (True, True, False, True, False, True), 1.0),
        ((900, 0, 1), (True, True, True), 1.0),  # it joined again
    ],
)
def test_how_many_uplinks_are_heard_is_told_by_their_counters(counters, new, share):
    hearing = Hearing()
    assert tuple(hearing.take(f_cnt) for f_cnt in counters) == new
    assert hearing.share == pytest.approx(share, rel=0.2)


def test_what_a_node_says_now_and_what_the_server_says_are_apart():
    node = Node(device(last_seen=50.0, battery_percent=30.0, tags={"a": "b"}), Known(EUI, packages=dict(TOLD)))
    answer = firmware_management.encode(firmware_management.DevVersionAns(fw_version=7, hw_version=0xBEEF))
    node.hear(uplink(203, answer, receptions=(Reception("gw", -90.0, 4.0),)), 100.0)
    told = node.told(100.0)
    assert (told.version, told.hardware, told.rssi_dbm, told.tags) == (7, "lorawan:0000beef", -90.0, None)
    node.hear(uplink(2, b"x", receptions=(Reception("gw", -91.0, 4.0),)), 200.0)
    later = node.told(200.0)
    assert (later.version, later.hardware, later.rssi_dbm) == (None, None, -91.0)
    described = node.described(300.0)
    assert (described.at, described.version, described.battery_percent) == (50.0, None, 30.0)
    assert described.alive
    assert described.details is not None
    assert described.details["class"] == "A"
    assert (described.details["region"], described.details["mac_version"]) == ("EU868", "1.0")
    assert described.details["packages"] == {str(package): version for package, version in sorted(TOLD.items())}
    silent = Node(device(external_power=False, margin_db=-7), Known(EUI, uplink_dr=3)).described(
        300.0, "another gateway owns it"
    )
    assert not silent.alive  # the network server has never heard it
    assert silent.details is not None
    assert (silent.details["margin_db"], silent.details["uplink_data_rate"]) == (-7, 3)
    assert (silent.details["external_power"], silent.details["battery_unmeasured"]) == (False, True)
    assert silent.details["refused"] == "another gateway owns it"


def test_hardware_of_a_node_without_ts006_comes_from_its_tag():
    known = Known(EUI, packages={2: 1, 3: 1, 4: 0})
    tagged = Node(device(tags={"gatewayd-hardware": "0000BEEF"}), known)
    assert tagged.described(1.0).hardware == "lorawan:0000beef"
    assert Node(device(tags={"gatewayd-hardware": "nonsense"}), known).described(1.0).hardware is None
    able = Known(EUI, packages={2: 1, 3: 1, 4: 1})
    assert Node(device(tags={"gatewayd-hardware": "0000beef"}), able).described(1.0).hardware is None


@pytest.mark.parametrize(
    ("tag", "observed", "nb_frag", "limit"),
    [
        ("", None, 468, 100),
        ("", None, 21, 5),
        ("300", None, 468, 300),
        ("300", 40, 468, 40),
        ("many", None, 468, 100),
        ("0", None, 468, 0),
    ],
)
def test_redundancy_limit_is_observed_or_told_or_the_stock_one(tag, observed, nb_frag, limit):
    node = Node(device(tags={"gatewayd-redundancy": tag}), Known(EUI, redundancy_limit=observed))
    assert node.redundancy_limit(nb_frag) == limit
