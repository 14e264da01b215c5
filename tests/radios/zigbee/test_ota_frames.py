"""Golden bytes of every command both ways, every frame cut at each byte, and any command there and back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.zigbee.ota_commands import (
    Command,
    DefaultResponse,
    FileId,
    Header,
    ImageBlock,
    ImageBlockRefused,
    ImageBlockRequest,
    ImageNotify,
    ImagePageRequest,
    QueryNextImageRequest,
    QueryNextImageResponse,
    QuerySpecificFileRequest,
    QuerySpecificFileResponse,
    UpgradeEndRequest,
    UpgradeEndResponse,
    WaitForData,
)
from radios.zigbee.ota_frames import (
    decode_command,
    decode_header,
    default_response,
    encode_command,
    encode_header,
    knows,
    reply,
    request,
)

FILE = FileId(0x1049, 0x0102, 0x00020003)
FILE_HEX = "49 10 02 01 03 00 02 00"
IEEE = bytes.fromhex("0807060504030201")

FROM_CLIENT: list[tuple[str, Command]] = [
    ("01 2a 01 00 49 10 02 01 01 00 02 00", QueryNextImageRequest(0x1049, 0x0102, 0x00020001)),
    ("01 2a 01 01 49 10 02 01 01 00 02 00 07 00", QueryNextImageRequest(0x1049, 0x0102, 0x00020001, 7)),
    (f"01 2a 03 00 {FILE_HEX} 78 56 34 12 32", ImageBlockRequest(FILE, 0x12345678, 50)),
    (f"01 2a 03 01 {FILE_HEX} 78 56 34 12 32 08 07 06 05 04 03 02 01", ImageBlockRequest(FILE, 0x12345678, 50, IEEE)),
    (f"01 2a 03 02 {FILE_HEX} 78 56 34 12 32 fa 00", ImageBlockRequest(FILE, 0x12345678, 50, None, 250)),
    (
        f"01 2a 03 03 {FILE_HEX} 78 56 34 12 32 08 07 06 05 04 03 02 01 fa 00",
        ImageBlockRequest(FILE, 0x12345678, 50, IEEE, 250),
    ),
    (f"01 2a 04 00 {FILE_HEX} 00 01 00 00 32 00 02 64 00", ImagePageRequest(FILE, 256, 50, 512, 100)),
    (
        f"01 2a 04 01 {FILE_HEX} 00 01 00 00 32 00 02 64 00 08 07 06 05 04 03 02 01",
        ImagePageRequest(FILE, 256, 50, 512, 100, IEEE),
    ),
    (f"01 2a 06 00 {FILE_HEX}", UpgradeEndRequest(0, FILE)),
    (f"01 2a 06 96 {FILE_HEX}", UpgradeEndRequest(0x96, FILE)),
    ("01 2a 06 95", UpgradeEndRequest(0x95)),
    (f"01 2a 08 08 07 06 05 04 03 02 01 {FILE_HEX} 02 00", QuerySpecificFileRequest(IEEE, FILE, 2)),
]
FROM_SERVER: list[tuple[str, Command]] = [
    ("19 2a 00 00 64", ImageNotify(100)),
    ("19 2a 00 01 32 49 10", ImageNotify(50, 0x1049)),
    ("19 2a 00 02 32 49 10 02 01", ImageNotify(50, 0x1049, 0x0102)),
    ("19 2a 00 03 32 49 10 02 01 03 00 02 00", ImageNotify(50, 0x1049, 0x0102, 0x00020003)),
    ("19 2a 02 98", QueryNextImageResponse(0x98)),
    (f"19 2a 02 00 {FILE_HEX} 9e ea 00 00", QueryNextImageResponse(0, FILE, 60062)),
    (f"19 2a 05 00 {FILE_HEX} 32 00 00 00 03 aa bb cc", ImageBlock(FILE, 50, b"\xaa\xbb\xcc")),
    ("19 2a 05 97 00 00 00 00 05 00 00 00 fa 00", WaitForData(0, 5, 250)),
    ("19 2a 05 97 00 00 00 00 05 00 00 00", WaitForData(0, 5, None)),
    ("19 2a 05 95", ImageBlockRefused(0x95)),
    (f"19 2a 07 {FILE_HEX} 00 00 00 00 ff ff ff ff", UpgradeEndResponse(FILE, 0, 0xFFFFFFFF)),
    ("19 2a 09 98", QuerySpecificFileResponse(0x98)),
    (f"19 2a 09 00 {FILE_HEX} 9e ea 00 00", QuerySpecificFileResponse(0, FILE, 60062)),
]
# Commands that are whole at a shorter length too: form without an optional part.
ALSO_WHOLE = {"19 2a 05 97 00 00 00 00 05 00 00 00 fa 00": 12, f"01 2a 06 96 {FILE_HEX}": 4}


@pytest.mark.parametrize(("golden", "command"), FROM_CLIENT, ids=lambda value: type(value).__name__)
def test_client_frames_both_ways(golden: str, command: Command) -> None:
    frame = bytes.fromhex(golden)
    header, payload = decode_header(frame)
    assert header == Header(0x2A, frame[2])
    assert decode_command(header, payload) == command
    assert request(command, 0x2A) == frame  # type: ignore[arg-type]  # the list holds client commands
    assert knows(header)


@pytest.mark.parametrize(("golden", "command"), FROM_SERVER, ids=lambda value: type(value).__name__)
def test_server_frames_both_ways(golden: str, command: Command) -> None:
    frame = bytes.fromhex(golden)
    header, payload = decode_header(frame)
    assert header == Header(0x2A, frame[2], server_to_client=True, disable_default_response=True)
    assert decode_command(header, payload) == command
    assert reply(command, 0x2A) == frame  # type: ignore[arg-type]  # the list holds server commands


def test_default_response_both_ways() -> None:
    frame = bytes.fromhex("18 2a 0b 04 81")
    assert default_response(0x04, 0x81, 0x2A) == frame
    header, payload = decode_header(frame)
    assert decode_command(header, payload) == DefaultResponse(0x04, 0x81)
    assert encode_header(header) + encode_command(DefaultResponse(0x04, 0x81))[1] == frame


@pytest.mark.parametrize("golden", ["00 2a 0b 05 80", "10 2a 0b 05 80"])
def test_default_response_of_a_node(golden: str) -> None:
    header, payload = decode_header(bytes.fromhex(golden))
    assert (header.cluster_specific, header.server_to_client, header.tsn) == (False, False, 0x2A)
    assert decode_command(header, payload) == DefaultResponse(0x05, 0x80)
    for length in range(len(payload)):
        with pytest.raises(FrameError):
            decode_command(header, payload[:length])


@pytest.mark.parametrize(("golden", "command"), FROM_CLIENT + FROM_SERVER, ids=lambda value: type(value).__name__)
def test_a_frame_cut_at_any_byte_is_an_error(golden: str, command: Command) -> None:
    frame = bytes.fromhex(golden)
    for length in range(len(frame)):
        if length == ALSO_WHOLE.get(golden):
            continue
        with pytest.raises(FrameError):
            decode_command(*decode_header(frame[:length]))


@pytest.mark.parametrize(("golden", "command"), FROM_CLIENT, ids=lambda value: type(value).__name__)
def test_bytes_after_a_command_are_ignored(golden: str, command: Command) -> None:
    if command == UpgradeEndRequest(0x95):
        return  # with more bytes it is the long form, cut
    assert decode_command(*decode_header(bytes.fromhex(golden) + b"\xee" * 3)) == command


def test_manufacturer_specific_header() -> None:
    frame = bytes.fromhex("05 49 10 2a 01 00")
    header, payload = decode_header(frame)
    assert header == Header(0x2A, 0x01, manufacturer=0x1049)
    assert payload == b"\x00"
    assert encode_header(header) == frame[:5]
    for length in range(5):
        with pytest.raises(FrameError):
            decode_header(frame[:length])


def test_unknown_commands_and_reserved_values_are_named() -> None:
    with pytest.raises(FrameError, match="0x2a"):
        decode_command(Header(1, 0x2A), b"")
    assert not knows(Header(1, 0x05))  # a response cannot come from the client
    with pytest.raises(FrameError, match="reserved"):
        decode_header(b"\x02\x00\x00")
    with pytest.raises(FrameError, match="payload type"):
        decode_command(Header(1, 0x00, server_to_client=True), b"\x04\x64")


@pytest.mark.parametrize(
    "command",
    [
        ImageNotify(0),
        ImageNotify(101),
        UpgradeEndRequest(0),
        QueryNextImageResponse(0),
        ImageBlockRefused(0),
        ImageBlock(FILE, 0, bytes(256)),
        ImageBlock(FileId(0x10000, 0, 0), 0, b""),
        WaitForData(0, 2**32),
        ImageBlockRequest(FILE, 0, 50, b"\x00" * 7),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_not_encoded(command: Command) -> None:
    with pytest.raises(FrameError):
        encode_command(command)


U8, U16, U32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
FILES = st.builds(FileId, U16, U16, U32)
IEEES = st.none() | st.binary(min_size=8, max_size=8)
CLIENT_COMMANDS = st.one_of(
    st.builds(QueryNextImageRequest, U16, U16, U32, st.none() | U16),
    st.builds(ImageBlockRequest, FILES, U32, U8, IEEES, st.none() | U16),
    st.builds(ImagePageRequest, FILES, U32, U8, U16, U16, IEEES),
    st.builds(UpgradeEndRequest, U8, FILES),
    st.builds(QuerySpecificFileRequest, st.binary(min_size=8, max_size=8), FILES, U16),
)
SERVER_COMMANDS = st.one_of(
    st.builds(QueryNextImageResponse, st.just(0), FILES, U32),
    st.builds(ImageBlock, FILES, U32, st.binary(max_size=255)),
    st.builds(WaitForData, U32, U32, st.none() | U16),
    st.builds(UpgradeEndResponse, FILES, U32, U32),
)


@given(CLIENT_COMMANDS, U8)
def test_any_client_command_comes_back(command: Command, tsn: int) -> None:
    header, payload = decode_header(request(command, tsn))  # type: ignore[arg-type]  # the strategy makes client commands
    assert header.tsn == tsn
    assert decode_command(header, payload) == command


@given(SERVER_COMMANDS, U8)
def test_any_server_command_comes_back(command: Command, tsn: int) -> None:
    header, payload = decode_header(reply(command, tsn))  # type: ignore[arg-type]  # the strategy makes server commands
    assert header.tsn == tsn
    assert decode_command(header, payload) == command


@given(st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        decode_command(*decode_header(data))
