"""TS007: several packages in one frame, the token, and answers in pieces."""

import pytest

from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multi_package, multicast
from radios.lorawan.packages.multi_package import (
    Addressed,
    DevPackageAns,
    DevPackageReq,
    MultiPackBufferFrag,
    MultiPackBufferReq,
    Package,
    PackageVersionAns,
    PackageVersionReq,
)

LBM_PACKAGES = DevPackageAns(
    (Package(0, 1, 225), Package(1, 2, 202), Package(2, 2, 200), Package(3, 2, 201), Package(4, 1, 203))
)


def down(text: str):
    return multi_package.decode_downlink(bytes.fromhex(text))


def up(text: str):
    return multi_package.decode_uplink(bytes.fromhex(text))


class TestOwnCommands:
    def test_dev_package_req(self):
        assert multi_package.encode(DevPackageReq(), token=2) == bytes.fromhex("01 02")
        assert down("01 02") == multi_package.DecodedPack((Addressed(0, DevPackageReq()),), 2)

    def test_dev_package_ans_tells_every_package_version_and_port(self):
        frame = bytes.fromhex("01 05 0001e1 0102ca 0202c8 0302c9 0401cb 01")
        assert multi_package.encode(LBM_PACKAGES, token=1) == frame
        assert multi_package.decode_uplink(frame) == multi_package.DecodedPack((Addressed(0, LBM_PACKAGES),), 1)

    def test_package_version(self):
        assert multi_package.encode(PackageVersionReq(), token=3) == bytes.fromhex("00 03")
        assert up("00 00 01 03").commands == (Addressed(0, PackageVersionAns(0, 1)),)

    def test_own_package_may_be_named(self):
        assert down("80 01 00").commands == (Addressed(0, DevPackageReq()),)

    def test_buffer_request_and_piece(self):
        assert multi_package.encode(MultiPackBufferReq(10, 20), token=1) == bytes.fromhex("02 0a 14 01")
        assert down("02 0a 14 01").commands == (Addressed(0, MultiPackBufferReq(10, 20)),)
        piece = MultiPackBufferFrag(10, b"\x01\x02")
        assert up("02 0a 0102 01").commands == (Addressed(0, piece),)
        assert not piece.failed

    def test_refused_buffer_request(self):
        (only,) = up("02 ff 01").commands
        assert only.command == MultiPackBufferFrag(0xFF, b"")
        assert only.command.failed


class TestPackages:
    MIXED = (
        Addressed(0, DevPackageReq()),
        Addressed(3, fragmentation.FragSessionStatusReq(0, True)),
        Addressed(3, fragmentation.FragSessionDeleteReq(1)),
        Addressed(4, firmware_management.DevVersionReq()),
        Addressed(1, clock_sync.ForceDeviceResyncReq(1)),
        Addressed(2, multicast.McGroupStatusReq(15)),
        Addressed(0, PackageVersionReq()),
    )
    FRAME = bytes.fromhex("01 83 01 01 03 01 84 01 81 03 01 82 01 0f 80 00 03")

    def test_package_is_named_when_it_changes(self):
        assert multi_package.encode(self.MIXED, token=3) == self.FRAME
        assert multi_package.decode_downlink(self.FRAME) == multi_package.DecodedPack(self.MIXED, 3)

    def test_package_named_again_is_the_same(self):
        assert down("83 01 01 83 03 01 00").commands == self.MIXED[1:3]

    def test_versions_of_packages_are_the_callers(self):
        answer = Addressed(3, fragmentation.FragSessionStatusAns(1, 5, 2, mic_error=True))
        frame = multi_package.encode(answer, versions={3: 2})
        assert frame == bytes.fromhex("83 01 02 0540 02 00")
        assert multi_package.decode_uplink(frame, versions={3: 2}).commands == (answer,)
        assert multi_package.decode_uplink(frame).commands != (answer,)

    def test_cut_anywhere_keeps_a_prefix(self):
        for length in range(len(self.FRAME)):
            decoded = multi_package.decode_downlink(self.FRAME[:length])
            assert decoded.commands == self.MIXED[: len(decoded.commands)]
            assert len(decoded.commands) < len(self.MIXED)

    def test_answer_in_pieces_is_a_frame_when_joined(self):
        answers = (Addressed(0, LBM_PACKAGES), Addressed(4, firmware_management.DevVersionAns(7, 1)))
        buffer = multi_package.encode(answers)[:-1]
        frames = [
            multi_package.encode(MultiPackBufferFrag(at, buffer[at : at + 8]), token=1)
            for at in range(0, len(buffer), 8)
        ]
        pieces = [multi_package.decode_uplink(frame).commands[0].command for frame in frames]
        joined = b"".join(piece.data for piece in sorted(pieces, key=lambda piece: piece.base_byte))
        assert multi_package.decode_uplink(joined + b"\0").commands == answers


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "commands", "message"),
        [
            ("", 0, "frame at offset 0: no command and token"),
            ("01", 0, "frame at offset 0: no command and token"),
            ("85 01 00", 0, "package 5 at offset 0: unknown package"),
            ("01 83 00", 1, "package 3 at offset 1: needs 1 bytes at offset 2, 0 left"),
            ("01 07 00", 1, "command 0x07 at offset 1: unknown command"),
            ("83 01 00", 0, "FragSessionStatusReq at offset 1: needs 1 bytes at offset 2, 0 left"),
            ("01 02 00 01 00", 1, "MultiPackBufferReq at offset 1: must be the only command of its frame"),
        ],
    )
    def test_downlink(self, text, commands, message):
        decoded = down(text)
        assert len(decoded.commands) == commands
        assert str(decoded.error) == message

    def test_package_answer_with_fewer_packages_than_told(self):
        assert str(up("01 02 0001e1 0102 00").error).startswith("DevPackageAns at offset 0: needs 1 bytes")

    @pytest.mark.parametrize(
        ("command", "options", "message"),
        [
            (DevPackageReq(), {"token": 4}, "token must be 0..3"),
            (DevPackageReq(), {"version": 2}, "version must be one of"),
            ([], {}, "at least one command"),
            (Addressed(5, DevPackageReq()), {}, "package_identifier must be one of"),
            (Addressed(3, DevPackageReq()), {"versions": {3: 9}}, "version must be one of"),
            (DevPackageAns((Package(0, 1, 1),) * 8), {}, "number of packages must be 0..7"),
            (DevPackageAns((Package(0, 1, 256),)), {}, "f_port must be 0..255"),
            (DevPackageAns((Package(0, 256, 1),)), {}, "package_version must be 0..255"),
            (DevPackageAns((Package(256, 1, 1),)), {}, "package_identifier must be 0..255"),
            (MultiPackBufferReq(5, 4), {}, "stop must be 5..255"),
            (MultiPackBufferReq(0, 256), {}, "stop must be 0..255"),
            (MultiPackBufferFrag(256, b""), {}, "base_byte must be 0..255"),
            ([DevPackageReq(), MultiPackBufferReq(0, 1)], {}, "MultiPackBufferReq must be the only command"),
        ],
    )
    def test_encode(self, command, options, message):
        with pytest.raises(ValueError, match=message):
            multi_package.encode(command, **options)
