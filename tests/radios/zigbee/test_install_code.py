"""Install codes as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.zigbee.install_code import CODE_BYTES, crc16_x25, parse_install_code

CODE = "83FED3407A939723A5C639B26916D505"  # the Base Device Behavior specification's example
WITH_CRC = bytes.fromhex(CODE + "C3B5")


def test_the_specifications_example_with_and_without_its_crc() -> None:
    assert crc16_x25(b"123456789") == 0x906E
    assert parse_install_code(CODE) == WITH_CRC
    assert parse_install_code("83fe d340:7a93-9723 a5c6 39b2 6916 d505 c3b5\n") == WITH_CRC


@given(st.sampled_from(CODE_BYTES).flatmap(lambda size: st.binary(min_size=size, max_size=size)), st.data())
def test_a_mistyped_digit_is_found(code: bytes, data: st.DataObject) -> None:
    whole = code + crc16_x25(code).to_bytes(2, "little")
    assert parse_install_code(whole.hex()) == whole
    digits = list(whole.hex())
    at = data.draw(st.integers(0, len(digits) - 1))
    digits[at] = data.draw(st.sampled_from([d for d in "0123456789abcdef" if d != digits[at]]))
    with pytest.raises(FrameError) as refused:
        parse_install_code("".join(digits))
    assert whole.hex()[:12] not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "0 digits"),
        ("83FED3407A939723A5C639B26916D5", "30 digits"),
        ("not hex", "hex digits"),
        ("83F", "in pairs"),
        ("83FED3407A939723", "without its CRC"),  # 8 bytes: with a CRC or without?
        (CODE + "C3B6", "CRC"),
    ],
)
def test_what_is_no_code_is_refused_in_words(text: str, what: str) -> None:
    with pytest.raises(FrameError, match=what):
        parse_install_code(text)
