"""What a node has is asked and never guessed: TS007 first, then package by package; whose groups are on it."""

import pytest

from radios.lorawan.discovery import Discovery
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
        discovery.asks[wanted.name] = discovery.asks.get(wanted.name, 0) + 1
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
    assert set(rest) == {"PackageVersionReq 2", "PackageVersionReq 4"}


def test_a_package_that_stays_silent_while_others_answer_is_not_there():
    found = Discovery(Known(EUI))
    found.take(uplink(201, version_answer(3, 1)), 0.0)
    while not found.ready:
        assert ask(found) is not None
        assert sum(found.asks.values()) < 60
    assert (found.known.packages[2], found.known.packages[4]) == (0, 0)
    assert found.changed  # a conclusion from silence is journalled too


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
    for _ in range(3):
        ask(found, 2.0)
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
