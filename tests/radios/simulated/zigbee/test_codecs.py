"""What nodes send is read with zigpy's own types; what they are sent may be anything."""

import struct
from typing import Any

import pytest
import zigpy.types as t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zigpy.ota.image import parse_ota_image
from zigpy.zcl import foundation
from zigpy.zdo import types as zdo_types

from radios.simulated.zigbee.bootloader import Bootloader, ResetCause
from radios.simulated.zigbee.firmware import FirmwareError, build_ota_file, parse_ota_file, split_signature
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec

EUI64, NWK = 0x00124B00_00000001, 0x4321


@pytest.fixture(params=[False, True], ids=["mains", "sleepy battery"])
def node(request: pytest.FixtureRequest) -> VirtualNode:
    battery = 41.5 if request.param else None
    node = VirtualNode(NodeSpec(eui64=EUI64, battery_percent=battery, sleepy=request.param), NWK)
    node.power_on(0.0)
    node.to_send()
    return node


def ask_zdo(node: VirtualNode, command: zdo_types.ZDOCmd, *values: Any) -> list[Any]:
    _, schema = zdo_types.CLUSTERS[command]
    node.receive(ApsFrame(0, command, 0, 0, b"\x2a" + t.serialize(values, schema), counter=len(node._heard) + 1), 1.0)
    (answer,) = node.to_send()
    assert answer.cluster == command | 0x8000
    assert answer.payload[0] == 0x2A
    fields, rest = t.deserialize(answer.payload[1:], zdo_types.CLUSTERS[answer.cluster][1])
    assert rest == b""
    return list(fields)


def ask_zcl(node: VirtualNode, cluster: int, payload: bytes) -> bytes:
    node.receive(ApsFrame(0x0104, cluster, 1, 1, payload, counter=len(node._heard) + 100), 1.0)
    (answer,) = node.to_send()
    return answer.payload


def test_descriptors_are_what_zigpy_reads(node: VirtualNode) -> None:
    status, nwk, descriptor = ask_zdo(node, zdo_types.ZDOCmd.Node_Desc_req, t.NWK(NWK))
    assert (status, nwk) == (0, NWK)
    assert descriptor.is_end_device == node.spec.sleepy
    assert descriptor.is_mains_powered == (node.spec.battery_percent is None)
    assert descriptor.is_receiver_on_when_idle == (not node.spec.sleepy)
    assert descriptor.manufacturer_code == 0x1049
    assert ask_zdo(node, zdo_types.ZDOCmd.Active_EP_req, t.NWK(NWK)) == [0, NWK, [1]]
    simple = ask_zdo(node, zdo_types.ZDOCmd.Simple_Desc_req, t.NWK(NWK), t.uint8_t(1))[2]
    assert (simple.input_clusters, simple.output_clusters, simple.profile) == ([0, 1], [0x19], 0x0104)
    assert ask_zdo(node, zdo_types.ZDOCmd.Simple_Desc_req, t.NWK(NWK), t.uint8_t(2))[0] == 0x82


def test_addresses_and_bindings(node: VirtualNode) -> None:
    ieee = t.EUI64(EUI64.to_bytes(8, "little"))
    assert ask_zdo(node, zdo_types.ZDOCmd.IEEE_addr_req, t.NWK(NWK), t.uint8_t(0), t.uint8_t(0))[:3] == [0, ieee, NWK]
    assert ask_zdo(node, zdo_types.ZDOCmd.NWK_addr_req, ieee, t.uint8_t(0), t.uint8_t(0))[:3] == [0, ieee, NWK]
    target = zdo_types.MultiAddress(addrmode=3, ieee=ieee, endpoint=1)
    request = (ieee, t.uint8_t(1), t.uint16_t(1), target)
    assert ask_zdo(node, zdo_types.ZDOCmd.Bind_req, *request) == [0]
    assert len(node.zdo.bindings) == 1
    assert ask_zdo(node, zdo_types.ZDOCmd.Unbind_req, *request) == [0]
    assert ask_zdo(node, zdo_types.ZDOCmd.Unbind_req, *request) == [0x88]


def read(node: VirtualNode, cluster: int, *attributes: int) -> dict[int, Any]:
    control = 0x18 if cluster == 0x0019 else 0x10
    answer = ask_zcl(node, cluster, bytes((control, 5, 0)) + struct.pack(f"<{len(attributes)}H", *attributes))
    header, rest = foundation.ZCLHeader.deserialize(answer)
    assert (header.tsn, header.command_id) == (5, 1)
    records = foundation.GENERAL_COMMANDS[1].schema.deserialize(rest)[0].status_records
    return {r.attrid: r.value.value if r.status == 0 else r.status for r in records}


def test_attributes_are_what_zigpy_reads(node: VirtualNode) -> None:
    basic = read(node, 0x0000, 0x0004, 0x0005, 0x0007, 0x7777)
    assert basic == {4: "Synthetic", 5: "SIM-1", 7: 3 if node.spec.sleepy else 1, 0x7777: 0x86}
    assert read(node, 0x0001, 0x0021) == {0x21: 83 if node.spec.sleepy else 0x86}
    assert read(node, 0x0019, 1, 2, 4, 6, 7, 8) == {1: 0xFFFFFFFF, 2: 0x10000, 4: 0xFFFFFFFF, 6: 0, 7: 0x1049, 8: 1}


def test_reporting_is_configured_and_reported(node: VirtualNode) -> None:
    configure = bytes((0x10, 9, 6)) + struct.pack("<BHBHHB", 0, 0x0021, 0x20, 60, 3600, 2)
    expected = b"\x00" if node.spec.sleepy else struct.pack("<BBH", 0x86, 0, 0x0021)
    assert ask_zcl(node, 0x0001, configure)[2:] == b"\x07" + expected
    node.report(0x0000, 0x0005)
    (report,) = node.to_send()
    assert report.payload[2:] == b"\x0a\x05\x00\x42\x05SIM-1"


@pytest.mark.parametrize(
    ("cluster", "payload", "status"),
    [
        (0x0006, b"\x10\x07\x00\x00\x00", 0xC3),
        (0x0000, b"\x11\x07\x00", 0x81),
        (0x0019, b"\x19\x07\x55", 0x81),
        (0x0000, b"\x10\x07\x77", 0x82),
        (0x0000, b"\x10\x07\x00\x00", 0x80),
    ],
)
def test_what_is_not_supported_gets_a_default_response(
    node: VirtualNode, cluster: int, payload: bytes, status: int
) -> None:
    answer = ask_zcl(node, cluster, payload)
    assert answer[1:3] == b"\x07\x0b"
    assert answer[3:] == bytes((payload[2], status))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.lists(
        st.builds(
            ApsFrame,
            profile=st.sampled_from([0x0000, 0x0104, 0xC05E]),
            cluster=st.sampled_from([0x0000, 0x0001, 0x0002, 0x0004, 0x0019, 0x0021, 0x0031, 0x0033, 0x0036, 0x8002]),
            source_endpoint=st.integers(0, 255),
            destination_endpoint=st.sampled_from([0, 1, 255]),
            payload=st.one_of(
                st.binary(max_size=40),
                st.tuples(st.sampled_from([b"\x19\x01", b"\x10\x01"]), st.binary(max_size=30)).map(b"".join),
            ),
            counter=st.integers(0, 255),
            broadcast=st.booleans(),
        )
    )
)
def test_nothing_that_arrives_harms_a_node(node: VirtualNode, frames: list[ApsFrame]) -> None:
    for frame in frames:
        node.receive(frame, 2.0)
        node.to_send()
    node.handle_timeout(100.0)
    assert node.running_version == 0x10000


def test_files_are_what_zigpy_reads() -> None:
    file = build_ota_file(
        manufacturer=0x1234,
        image_type=7,
        version=9,
        size=1000,
        hardware_versions=(2, 5),
        sign=lambda data: data[:1] * 64,
        signature_size=64,
    )
    parsed, rest = parse_ota_image(file)
    assert rest == b""
    assert (parsed.header.manufacturer_id, parsed.header.image_type, parsed.header.file_version) == (0x1234, 7, 9)
    assert (parsed.header.minimum_hardware_version, parsed.header.maximum_hardware_version) == (2, 5)
    assert [e.tag_id for e in parsed.subelements] == [0x0000, 0xF0A5]
    signed, signature = split_signature(file) or (b"", b"")
    assert signature == file[:1] * 64
    assert file == signed + struct.pack("<HI", 0xF0A5, 64) + signature
    mine = parse_ota_file(file)
    assert (mine.version, mine.hardware_versions, mine.total_size) == (9, (2, 5), len(file))
    assert build_ota_file(manufacturer=1, image_type=1, version=1, size=50) == build_ota_file(
        manufacturer=1, image_type=1, version=1, size=50
    )


def test_a_file_that_is_cut_or_altered_in_its_headers_is_refused() -> None:
    file = build_ota_file(manufacturer=1, image_type=1, version=1, size=20, hardware_versions=(1, 1))
    for length in range(len(file)):
        with pytest.raises(FirmwareError):
            parse_ota_file(file[:length])
    for at in (0, 4, 6, 53, 62):
        with pytest.raises(FirmwareError):
            parse_ota_file(file[:at] + bytes((file[at] ^ 0x40,)) + file[at + 1 :])


def test_the_bootloader_keeps_a_new_image_only_when_it_was_confirmed() -> None:
    old, new = (build_ota_file(manufacturer=1, image_type=1, version=v, size=20) for v in (1, 2))
    loader = Bootloader(old)
    loader.stage(new)
    loader.reset(ResetCause.POWER_ON)
    assert loader.current.version == 1, "staged is not started"
    loader.request_swap()
    loader.reset(ResetCause.SOFT)
    assert (loader.current.version, loader.on_trial) == (2, True)
    loader.reset(ResetCause.WATCHDOG)
    assert (loader.current.image, loader.on_trial) == (old, False)
    loader.request_swap()
    loader.reset(ResetCause.SOFT)
    loader.confirm()
    loader.reset(ResetCause.POWER_ON)
    assert loader.current.image == new
