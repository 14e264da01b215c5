"""The OTA file header against bytes laid out by hand."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.zigbee.ota_image import MAX_HEADER_BYTES, OtaHeader, parse_ota_header

PLAIN = bytes.fromhex(
    "1ef1ee0b 0001 3800 0000 4910 0201 03000200 0200"
     "67617465776179" + "00" * 25 + "9eea0000"
)  # fmt: skip
FULL = bytes.fromhex(
    "1ef1ee0b 0001 4500 0700 4910 0201 03000200 0200" + "78" * 32 + "9eea0000" + "02" + "0807060504030201" + "0100 0300"
)


def test_plain_header() -> None:
    assert parse_ota_header(PLAIN) == OtaHeader(56, 0x1049, 0x0102, 0x00020003, 2, "gateway", 60062)


def test_header_with_every_optional_field() -> None:
    assert len(FULL) == MAX_HEADER_BYTES
    assert parse_ota_header(FULL + b"data") == OtaHeader(
        69, 0x1049, 0x0102, 0x00020003, 2, "x" * 32, 60062, 2, bytes.fromhex("0807060504030201"), 1, 3
    )


@pytest.mark.parametrize("data", [PLAIN, FULL])
def test_a_header_cut_at_any_byte_is_an_error(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(FrameError):
            parse_ota_header(data[:length])


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"\x00\x00\x00\x00", "magic"),
        (4, b"\x00\x02", "header version"),
        (6, b"\x10\x00", "header length"),
        (52, b"\x10\x00\x00\x00", "total size"),
    ],
)
def test_nonsense_is_named(at: int, value: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        parse_ota_header(PLAIN[:at] + value + PLAIN[at + len(value) :])


def test_hardware_versions_that_are_no_range() -> None:
    with pytest.raises(FrameError, match="no range"):
        parse_ota_header(FULL[:-4] + struct.pack("<HH", 4, 3))


@given(st.binary(max_size=90))
def test_any_bytes_are_a_header_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        parse_ota_header(data)
