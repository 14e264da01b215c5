"""Byte vectors of every package, both ways; what is out of range is refused by name."""

from types import ModuleType

import pytest

from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multicast
from radios.lorawan.packages.clock_sync import (
    AppTimeAns,
    AppTimeReq,
    DeviceAppTimePeriodicityAns,
    DeviceAppTimePeriodicityReq,
    ForceDeviceResyncReq,
)
from radios.lorawan.packages.codec import Command, PackageVersionAns, PackageVersionReq
from radios.lorawan.packages.firmware_management import (
    COUNTDOWN_CANCEL,
    REBOOT_TIME_CANCEL,
    DevDeleteImageAns,
    DevDeleteImageReq,
    DevRebootCountdownAns,
    DevRebootCountdownReq,
    DevRebootTimeAns,
    DevRebootTimeReq,
    DevUpgradeImageAns,
    DevUpgradeImageReq,
    DevVersionAns,
    DevVersionReq,
    UpImageStatus,
)
from radios.lorawan.packages.fragmentation import (
    DataFragment,
    FragDataBlockReceivedAns,
    FragDataBlockReceivedReq,
    FragSessionDeleteAns,
    FragSessionDeleteReq,
    FragSessionSetupAns,
    FragSessionSetupReq,
    FragSessionStatusAns,
    FragSessionStatusReq,
)
from radios.lorawan.packages.multicast import (
    McClassBSessionAns,
    McClassBSessionReq,
    McClassCSessionAns,
    McClassCSessionReq,
    McGroup,
    McGroupDeleteAns,
    McGroupDeleteReq,
    McGroupSetupAns,
    McGroupSetupReq,
    McGroupStatusAns,
    McGroupStatusReq,
)

PACKAGES = (clock_sync, multicast, fragmentation, firmware_management)

SETUP_V1 = FragSessionSetupReq(
    frag_index=3,
    mc_group_bit_mask=1,
    nb_frag=1024,
    frag_size=128,
    block_ack_delay=5,
    padding=64,
    descriptor=bytes((1, 2, 3, 4)),
    fragmentation_matrix=1,
)
SETUP_V2 = FragSessionSetupReq(
    frag_index=3,
    mc_group_bit_mask=1,
    nb_frag=1024,
    frag_size=128,
    block_ack_delay=5,
    padding=64,
    descriptor=bytes((1, 2, 3, 4)),
    fragmentation_matrix=1,
    session_cnt=128,
    mic=bytes((1, 2, 3, 4)),
)
GROUP_SETUP = McGroupSetupReq(
    mc_group_id=2,
    mc_addr=0x01020304,
    mc_key_encrypted=bytes.fromhex("01020304050607080102030405060708"),
    min_mc_f_count=1024,
    max_mc_f_count=2048,
)
CLASS_C = McClassCSessionReq(mc_group_id=2, session_time=1024, time_out=15, dl_frequency_hz=868_100_000, dr=5)
CLASS_B = McClassBSessionReq(
    mc_group_id=3, session_time=1024, time_out=15, periodicity=4, dl_frequency_hz=868_100_000, dr=5
)
GROUPS = (McGroup(0, 0x01020304), McGroup(1, 0x02020304))

# (module, versions, direction, command, bytes)
VECTORS: list[tuple[ModuleType, tuple[int, ...], str, Command, str]] = [
    (clock_sync, (1, 2), "up", AppTimeReq(1024, 15, True), "01 00040000 1f"),
    (clock_sync, (1, 2), "down", AppTimeAns(1024, 15), "01 00040000 0f"),
    (clock_sync, (1, 2), "down", AppTimeAns(-1, 3), "01 ffffffff 03"),
    (clock_sync, (1, 2), "down", DeviceAppTimePeriodicityReq(15), "02 0f"),
    (clock_sync, (1, 2), "up", DeviceAppTimePeriodicityAns(True, 1024), "02 01 00040000"),
    (clock_sync, (1, 2), "down", ForceDeviceResyncReq(7), "03 07"),
    (fragmentation, (1, 2), "down", FragSessionStatusReq(2, True), "01 05"),
    (fragmentation, (1, 2), "down", FragSessionStatusReq(2, False), "01 04"),
    (fragmentation, (1,), "up", FragSessionStatusAns(3, 1024, 128, memory_error=True), "01 00c4 80 01"),
    (fragmentation, (2,), "up", FragSessionStatusAns(3, 1024, 128, True, False, True), "01 05 00c4 80"),
    (fragmentation, (2,), "up", FragSessionStatusAns(3, 1024, 0, mic_error=True), "01 02 00c4 00"),
    (fragmentation, (1,), "down", SETUP_V1, "02 31 0004 80 0d 40 01020304"),
    (fragmentation, (2,), "down", SETUP_V2, "02 31 0004 80 0d 40 01020304 8000 01020304"),
    (fragmentation, (1, 2), "up", FragSessionSetupAns(2, True, True, False, True), "02 8b"),
    (fragmentation, (2,), "up", FragSessionSetupAns(2, session_cnt_replay=True), "02 90"),
    (fragmentation, (1, 2), "down", FragSessionDeleteReq(3), "03 03"),
    (fragmentation, (1, 2), "up", FragSessionDeleteAns(3, True), "03 07"),
    (fragmentation, (2,), "up", FragDataBlockReceivedReq(2, True), "04 06"),
    (fragmentation, (2,), "down", FragDataBlockReceivedAns(2), "04 02"),
    (fragmentation, (1, 2), "down", DataFragment(2, 1024, bytes((1, 2, 3, 4))), "08 0084 01020304"),
    (multicast, (1, 2), "down", McGroupStatusReq(3), "01 03"),
    (multicast, (1, 2), "up", McGroupStatusAns(3, 2, GROUPS), "01 23 00 04030201 01 04030202"),
    (multicast, (1, 2), "down", GROUP_SETUP, "02 02 04030201 0102030405060708 0102030405060708 00040000 00080000"),
    (multicast, (1, 2), "up", McGroupSetupAns(2, True), "02 06"),
    (multicast, (1, 2), "down", McGroupDeleteReq(3), "03 03"),
    (multicast, (1, 2), "up", McGroupDeleteAns(3, True), "03 07"),
    (multicast, (1, 2), "down", CLASS_C, "04 02 00040000 0f 287684 05"),
    (multicast, (1, 2), "up", McClassCSessionAns(2, time_to_start=1024), "04 02 000400"),
    (multicast, (1, 2), "up", McClassCSessionAns(2, True, True, True), "04 1e"),
    (multicast, (2,), "up", McClassCSessionAns(1, start_missed=True), "04 21"),
    (multicast, (1, 2), "down", CLASS_B, "05 03 00040000 4f 287684 05"),
    (multicast, (1, 2), "up", McClassBSessionAns(3, time_to_start=1024), "05 03 000400"),
    (multicast, (1, 2), "up", McClassBSessionAns(3, True, True, True), "05 1f"),
    (firmware_management, (1,), "down", DevVersionReq(), "01"),
    (firmware_management, (1,), "up", DevVersionAns(0x0201, 0x04F0), "01 01020000 f0040000"),
    (firmware_management, (1,), "down", DevRebootTimeReq(0x08040201), "02 01020408"),
    (firmware_management, (1,), "down", DevRebootTimeReq(REBOOT_TIME_CANCEL), "02 ffffffff"),
    (firmware_management, (1,), "up", DevRebootTimeAns(0x08040201), "02 01020408"),
    (firmware_management, (1,), "down", DevRebootCountdownReq(0x040201), "03 010204"),
    (firmware_management, (1,), "down", DevRebootCountdownReq(COUNTDOWN_CANCEL), "03 ffffff"),
    (firmware_management, (1,), "up", DevRebootCountdownAns(0x040201), "03 010204"),
    (firmware_management, (1,), "down", DevUpgradeImageReq(), "04"),
    (firmware_management, (1,), "up", DevUpgradeImageAns(UpImageStatus.VALID, 0x00040201), "04 03 01020400"),
    (firmware_management, (1,), "up", DevUpgradeImageAns(UpImageStatus.INVALID), "04 01"),
    (firmware_management, (1,), "down", DevDeleteImageReq(0x00030201), "05 01020300"),
    (firmware_management, (1,), "up", DevDeleteImageAns(True, True), "05 03"),
    (firmware_management, (1,), "up", DevDeleteImageAns(invalid_version=True), "05 02"),
    *[(m, m.VERSIONS, "down", PackageVersionReq(), "00") for m in PACKAGES],
    *[(m, m.VERSIONS, "up", PackageVersionAns(1, 1), "00 01 01") for m in PACKAGES],
]

CASES = [
    pytest.param(
        module, version, direction, command, bytes.fromhex(text), id=f"{type(command).__name__}-v{version}-{i}"
    )
    for i, (module, versions, direction, command, text) in enumerate(VECTORS)
    for version in versions
]


def decode(module: ModuleType, direction: str, data: bytes, version: int):
    return (module.decode_uplink if direction == "up" else module.decode_downlink)(data, version)


@pytest.mark.parametrize(("module", "version", "direction", "command", "data"), CASES)
class TestVector:
    def test_is_encoded(self, module, version, direction, command, data):
        assert module.encode(command, version) == data

    def test_is_decoded_whole(self, module, version, direction, command, data):
        decoded = decode(module, direction, data, version)
        assert decoded.error is None
        assert decoded.commands == (command,)

    def test_cut_anywhere_is_a_fault_that_names_command_and_offset(self, module, version, direction, command, data):
        # The data of DataFragment goes to the frame's end, so a cut there is seen by its length only.
        whole = 3 if isinstance(command, DataFragment) else len(data)
        for length in range(1, whole):
            decoded = decode(module, direction, data[:length], version)
            assert decoded.commands == ()
            assert str(decoded.error).startswith(f"{type(command).__name__} at offset 0: needs ")

    def test_with_an_unknown_tail_keeps_the_command(self, module, version, direction, command, data):
        decoded = decode(module, direction, data + b"\x7f\x01", version)
        if isinstance(command, DataFragment):
            assert decoded.commands == (DataFragment(command.frag_index, command.n, command.data + b"\x7f\x01"),)
            return
        assert decoded.commands == (command,)
        assert str(decoded.error) == f"command 0x7f at offset {len(data)}: unknown command"

    def test_after_another_command_is_decoded_too(self, module, version, direction, command, data):
        first = PackageVersionAns(module.PACKAGE_ID, 2) if direction == "up" else PackageVersionReq()
        frame = module.encode(first, version) + data
        decoded = decode(module, direction, frame, version)
        if isinstance(command, DataFragment):
            assert decoded.commands == (first,)
            assert str(decoded.error) == "DataFragment at offset 1: must be the only command of its frame"
            with pytest.raises(ValueError, match="DataFragment must be the only command of its frame"):
                module.encode([first, command], version)
            return
        assert decoded.commands == (first, command)
        assert decoded.error is None
        assert module.encode([first, command], version) == frame

    def test_before_a_cut_command_is_kept(self, module, version, direction, command, data):
        if isinstance(command, DataFragment) or len(data) == 1:
            return
        decoded = decode(module, direction, data + data[:-1], version)
        assert decoded.commands == (command,)
        assert str(decoded.error).startswith(f"{type(command).__name__} at offset {len(data)}: needs ")


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.__name__.rpartition(".")[2])
class TestPackage:
    def test_has_its_identifier_and_port(self, module):
        expected = {clock_sync: (1, 202), multicast: (2, 200), fragmentation: (3, 201), firmware_management: (4, 203)}
        assert expected[module] == (module.PACKAGE_ID, module.DEFAULT_PORT)

    def test_empty_frame_is_a_fault(self, module):
        for decoded in (module.decode_uplink(b""), module.decode_downlink(b"")):
            assert decoded.commands == ()
            assert "no command" in str(decoded.error)

    def test_nothing_is_not_encoded(self, module):
        with pytest.raises(ValueError, match="at least one command"):
            module.encode([])

    def test_unknown_version_is_refused(self, module):
        with pytest.raises(ValueError, match="version must be one of"):
            module.encode(PackageVersionReq(), 3)
        with pytest.raises(ValueError, match="version must be one of"):
            module.decode_uplink(b"\0", 0)


class TestVersions:
    def test_status_answer_differs_in_order_only(self):
        data = bytes.fromhex("01 00c48001")
        assert fragmentation.decode_uplink(data, 1).commands[0].nb_frag_received == 1024
        assert fragmentation.decode_uplink(data, 2).commands[0].nb_frag_received != 1024

    def test_v2_commands_are_unknown_in_v1(self):
        assert "unknown command" in str(fragmentation.decode_uplink(bytes.fromhex("0406"), 1).error)
        assert "unknown command" in str(fragmentation.decode_downlink(bytes.fromhex("0402"), 1).error)

    def test_reserved_bits_are_ignored(self):
        assert fragmentation.decode_uplink(bytes.fromhex("02 50"), 1).commands == (FragSessionSetupAns(1),)
        assert fragmentation.decode_uplink(bytes.fromhex("01 00c480fe"), 1).commands == (
            FragSessionStatusAns(3, 1024, 128),
        )
        assert multicast.decode_uplink(bytes.fromhex("04 e2 000400"), 1).commands == (
            McClassCSessionAns(2, time_to_start=1024),
        )
        assert fragmentation.decode_downlink(bytes.fromhex("02 31 0004 80 cd 40 01020304"), 1).commands == (SETUP_V1,)

    def test_ack_reception_is_bit_6_of_control(self):
        decoded = fragmentation.decode_downlink(bytes.fromhex("02 31 0004 80 4d 40 01020304 8000 01020304"), 2)
        assert decoded.commands[0].ack_reception is True


class TestAccepted:
    def test_setup_answer(self):
        assert FragSessionSetupAns(1).accepted
        flags = ("encoding_unsupported", "not_enough_memory", "frag_index_unsupported", "wrong_descriptor")
        for flag in (*flags, "session_cnt_replay"):
            assert not FragSessionSetupAns(1, **{flag: True}).accepted

    def test_session_answer(self):
        assert McClassCSessionAns(1, time_to_start=0).accepted
        for flag in ("dr_error", "freq_error", "mc_group_undefined", "start_missed"):
            assert not McClassBSessionAns(1, **{flag: True}).accepted


class TestFrequency:
    @pytest.mark.parametrize(
        ("hz", "coded"),
        [
            (0, 0),
            (868_100_000, 8_681_000),
            (1_199_999_900, 11_999_999),
            (2_400_000_000, 12_000_000),
            (2_403_000_000, 12_015_000),
        ],
    )
    def test_is_coded_in_100_hz_and_in_200_hz_from_2_4_ghz_on(self, hz, coded):
        request = McClassCSessionReq(0, 0, 0, hz, 0)
        data = multicast.encode(request)
        assert int.from_bytes(data[7:10], "little") == coded
        assert multicast.decode_downlink(data).commands == (request,)

    @pytest.mark.parametrize("hz", [-100, 868_100_050, 1_200_000_000, 2_400_000_100, 3_400_000_000])
    def test_that_cannot_be_coded_is_refused(self, hz):
        with pytest.raises(ValueError, match="dl_frequency_hz must be a multiple of"):
            multicast.encode(McClassCSessionReq(0, 0, 0, hz, 0))


REFUSED = [
    (clock_sync, 1, AppTimeReq(1 << 32, 0, False), "device_time must be 0..4294967295"),
    (clock_sync, 1, AppTimeReq(0, 16, False), "token_req must be 0..15"),
    (clock_sync, 1, AppTimeAns(1 << 31, 0), "time_correction must be -2147483648..2147483647"),
    (clock_sync, 1, AppTimeAns(0, -1), "token_ans must be 0..15"),
    (clock_sync, 1, DeviceAppTimePeriodicityReq(16), "period must be 0..15"),
    (clock_sync, 1, DeviceAppTimePeriodicityAns(False, -1), "time must be 0.."),
    (clock_sync, 1, ForceDeviceResyncReq(8), "nb_transmissions must be 0..7"),
    (clock_sync, 1, PackageVersionAns(256, 1), "package_identifier must be 0..255"),
    (clock_sync, 1, PackageVersionAns(1, 256), "package_version must be 0..255"),
    (fragmentation, 1, FragSessionStatusReq(4, True), "frag_index must be 0..3"),
    (fragmentation, 1, FragSessionStatusAns(0, 16384, 0), "nb_frag_received must be 0..16383"),
    (fragmentation, 1, FragSessionStatusAns(0, 0, 256), "missing_frag must be 0..255"),
    (fragmentation, 1, FragSessionStatusAns(0, 0, 0, mic_error=True), "mic_error is not in version 1"),
    (fragmentation, 1, FragSessionStatusAns(0, 0, 0, session_does_not_exist=True), "session_does_not_exist is not in"),
    (fragmentation, 1, FragSessionSetupAns(0, session_cnt_replay=True), "session_cnt_replay is not in version 1"),
    (fragmentation, 1, SETUP_V2, "session_cnt is not in version 1"),
    (fragmentation, 2, SETUP_V1, "session_cnt and mic are required in version 2"),
    (fragmentation, 1, FragSessionSetupReq(0, 16, 1, 1, 0, 0, bytes(4)), "mc_group_bit_mask must be 0..15"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 16384, 1, 0, 0, bytes(4)), "nb_frag must be 0..16383"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 256, 0, 0, bytes(4)), "frag_size must be 0..255"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 1, 8, 0, bytes(4)), "block_ack_delay must be 0..7"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 1, 0, 256, bytes(4)), "padding must be 0..255"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 1, 0, 0, bytes(5)), "descriptor must be 4 bytes, not 5"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 1, 0, 0, bytes(4), 8), "fragmentation_matrix must be 0..7"),
    (fragmentation, 1, FragSessionSetupReq(0, 0, 1, 1, 0, 0, bytes(4), 0, True), "ack_reception is not in version 1"),
    (fragmentation, 2, FragSessionSetupReq(0, 0, 1, 1, 0, 0, bytes(4), 0, True, 65536, bytes(4)), "session_cnt must"),
    (fragmentation, 2, FragSessionSetupReq(0, 0, 1, 1, 0, 0, bytes(4), 0, True, 1, bytes(3)), "mic must be 4 bytes"),
    (fragmentation, 1, FragDataBlockReceivedReq(0), "FragDataBlockReceivedReq is not in version 1"),
    (fragmentation, 1, FragDataBlockReceivedAns(0), "FragDataBlockReceivedAns is not in version 1"),
    (fragmentation, 1, DataFragment(0, 16384, b""), "n must be 0..16383"),
    (multicast, 1, McGroupStatusReq(16), "req_group_mask must be 0..15"),
    (multicast, 1, McGroupStatusAns(3, 8, GROUPS), "nb_total_groups must be 0..7"),
    (multicast, 1, McGroupStatusAns(1, 1, GROUPS), "groups must have 1 entries"),
    (multicast, 1, McGroupStatusAns(17, 1, GROUPS), "ans_group_mask must be 0..15"),
    (multicast, 1, McGroupSetupReq(4, 0, bytes(16), 0, 0), "mc_group_id must be 0..3"),
    (multicast, 1, McGroupSetupReq(0, 1 << 32, bytes(16), 0, 0), "mc_addr must be 0.."),
    (multicast, 1, McGroupSetupReq(0, 0, bytes(15), 0, 0), "mc_key_encrypted must be 16 bytes"),
    (multicast, 1, McGroupSetupReq(0, 0, bytes(16), -1, 0), "min_mc_f_count must be 0.."),
    (multicast, 1, McGroupSetupReq(0, 0, bytes(16), 0, 1 << 32), "max_mc_f_count must be 0.."),
    (multicast, 1, McGroupDeleteReq(-1), "mc_group_id must be 0..3"),
    (multicast, 1, McClassCSessionReq(0, 0, 16, 0, 0), "time_out must be 0..15"),
    (multicast, 1, McClassCSessionReq(0, 1 << 32, 0, 0, 0), "session_time must be 0.."),
    (multicast, 1, McClassCSessionReq(0, 0, 0, 0, 256), "dr must be 0..255"),
    (multicast, 1, McClassBSessionReq(0, 1, 0, 0, 0, 0), "session_time must be a multiple of 128"),
    (multicast, 1, McClassBSessionReq(0, 0, 0, 8, 0, 0), "periodicity must be 0..7"),
    (multicast, 1, McClassCSessionAns(0), "time_to_start must be 0..16777215"),
    (multicast, 1, McClassCSessionAns(0, time_to_start=1 << 24), "time_to_start must be 0..16777215"),
    (multicast, 1, McClassCSessionAns(0, dr_error=True, time_to_start=1), "time_to_start must be None"),
    (multicast, 1, McClassCSessionAns(0, start_missed=True), "start_missed is not in version 1"),
    (firmware_management, 1, DevVersionAns(1 << 32, 0), "fw_version must be 0.."),
    (firmware_management, 1, DevVersionAns(0, 1 << 32), "hw_version must be 0.."),
    (firmware_management, 1, DevRebootTimeReq(-1), "reboot_time must be 0.."),
    (firmware_management, 1, DevRebootCountdownReq(1 << 24), "countdown must be 0..16777215"),
    (firmware_management, 1, DevUpgradeImageAns(UpImageStatus.VALID), "next_fw_version must be 0.."),
    (firmware_management, 1, DevUpgradeImageAns(UpImageStatus.NO_IMAGE, 1), "next_fw_version must be None"),
    (firmware_management, 1, DevDeleteImageReq(1 << 32), "fw_to_delete_version must be 0.."),
]


@pytest.mark.parametrize(("module", "version", "command", "message"), REFUSED)
def test_out_of_range_is_refused_by_name(module, version, command, message):
    with pytest.raises(ValueError) as caught:
        module.encode(command, version)
    assert str(caught.value).startswith(message)


def test_encrypted_multicast_key_is_not_printed():
    assert "01020304" not in repr(GROUP_SETUP)
    assert "mc_key_encrypted" not in repr(GROUP_SETUP)
