"""Install codes as they are printed on nodes: hex digits, with or without their CRC. Pure; errors never repeat the code."""

from typing import Final

from radios.errors import FrameError

CODE_BYTES: Final = (6, 8, 12, 16)  # without the CRC
CRC_BYTES: Final = 2

_SEPARATORS = str.maketrans("", "", " -:\t\n")


def parse_install_code(text: str) -> bytes:
    """The code with its CRC (CRC-16/X-25, low byte first). FrameError says what is wrong with it.

    16 digits could be a code of 6 bytes with CRC, or one of 8 without: only the former is taken, as its CRC tells.
    """
    digits = text.translate(_SEPARATORS)
    try:
        code = bytes.fromhex(digits)
    except ValueError:
        raise FrameError("the install code must be hex digits, in pairs") from None
    if len(code) - CRC_BYTES in CODE_BYTES:
        if crc16_x25(code[:-CRC_BYTES]) == int.from_bytes(code[-CRC_BYTES:], "little"):
            return code
        if len(code) != 8:
            raise FrameError("the install code's CRC (its last four digits) is wrong: a digit is mistyped")
        raise FrameError(
            "16 digits are a code of 12 with a wrong CRC, or one without its CRC: give all digits, CRC too"
        )
    if len(code) in CODE_BYTES:
        return code + crc16_x25(code).to_bytes(CRC_BYTES, "little")
    lengths = ", ".join(str(2 * size) for size in CODE_BYTES)
    raise FrameError(f"the install code has {len(digits)} digits; codes have {lengths}, and four more with their CRC")


def crc16_x25(data: bytes) -> int:
    """CRC-16/X-25: reflected 0x1021, from FFFF, complemented."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc ^ 0xFFFF
