"""Keys of FUOTA: multicast root, transport and session keys (TS005), data block integrity (TS004 version 2).

Names and derivations are the specifications'. Where root keys come from and where keys are kept is not known here.
Everything is AES-128 on single blocks; a `Key` never shows its bytes in text.
"""

import hmac
from collections.abc import Iterable
from typing import Final, Self, final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

KEY_BYTES = 16
MIC_BYTES = 4


@final
class Key:
    """An AES-128 key, immutable. Its bytes come out only by `reveal`, never by repr, str, format or an error."""

    __slots__ = ("_value",)
    _value: bytes

    def __init__(self, value: bytes) -> None:
        if len(value) != KEY_BYTES:
            raise ValueError(f"a key must be {KEY_BYTES} bytes, not {len(value)}")
        object.__setattr__(self, "_value", bytes(value))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """32 hex digits, as key files and ChirpStack give them; the error never repeats the text."""
        try:
            value = bytes.fromhex(text)
        except ValueError:
            raise ValueError("a key must be 32 hex digits") from None
        return cls(value)

    def reveal(self) -> bytes:
        """The 16 bytes, for a cipher or a secret record of the journal."""
        return self._value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Key cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Key cannot be changed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Key, self._value))

    def __repr__(self) -> str:
        return "Key(****)"

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a Key is not pickled")


_ZERO_BLOCK: Final = bytes(KEY_BYTES)


def mc_root_key_1_0(gen_app_key: Key) -> Key:
    """McRootKey of a LoRaWAN 1.0.x node (TS005 4.1)."""
    return _derive(gen_app_key, _ZERO_BLOCK)


def mc_root_key_1_1(app_key: Key) -> Key:
    """McRootKey of a LoRaWAN 1.1 node (TS005 4.1)."""
    return _derive(app_key, b"\x20")


def mc_ke_key(mc_root_key: Key) -> Key:
    """McKEKey: the key under which McKeys travel to one node."""
    return _derive(mc_root_key, _ZERO_BLOCK)


def encrypt_mc_key(mc_ke_key: Key, mc_key: Key) -> bytes:
    """McKey_encrypted, 16 bytes: by AES decryption, because the node only has the encryption and applies it."""
    decryptor = Cipher(algorithms.AES(mc_ke_key.reveal()), modes.ECB()).decryptor()  # noqa: S305 - one block, by TS005
    return decryptor.update(mc_key.reveal()) + decryptor.finalize()


def mc_app_s_key(mc_key: Key, mc_addr: int) -> Key:
    """McAppSKey: encrypts the group's payloads."""
    return _derive(mc_key, b"\x01" + _address(mc_addr))


def mc_net_s_key(mc_key: Key, mc_addr: int) -> Key:
    """McNetSKey: signs the group's frames."""
    return _derive(mc_key, b"\x02" + _address(mc_addr))


def data_block_int_key(root_key: Key) -> Key:
    """DataBlockIntKey of one node; the root key is GenAppKey for LoRaWAN 1.0.x and AppKey for 1.1 (TS004 version 2)."""
    return _derive(root_key, b"\x30")


def data_block_mic(
    int_key: Key, session_cnt: int, frag_index: int, descriptor: bytes, size: int, chunks: Iterable[bytes]
) -> bytes:
    """The 4 byte MIC of FragSessionSetupReq version 2, over the block without padding.

    `chunks` are the block's bytes in order, any sizes, read once; ValueError when they are not `size` bytes together or
    when a field does not fit. A MIC is per node and per session.
    """
    if not 0 <= session_cnt <= 0xFFFF:
        raise ValueError(f"session_cnt must be 0..65535, not {session_cnt}")
    if not 0 <= frag_index <= 3:
        raise ValueError(f"frag_index must be 0..3, not {frag_index}")
    if len(descriptor) != 4:
        raise ValueError(f"descriptor must be 4 bytes, not {len(descriptor)}")
    if not 0 <= size <= 0xFFFFFFFF:
        raise ValueError(f"size must be 0..{0xFFFFFFFF}, not {size}")
    mac = CMAC(algorithms.AES(int_key.reveal()))
    mac.update(b"\x49" + session_cnt.to_bytes(2, "little") + bytes((frag_index,)) + descriptor)
    mac.update(bytes(4) + size.to_bytes(4, "little"))
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        mac.update(chunk)
    if seen != size:
        raise ValueError(f"chunks must be {size} bytes together, not {seen}")
    return mac.finalize()[:MIC_BYTES]


def _derive(key: Key, block: bytes) -> Key:
    """AES of the block, filled up with zeros, under the key."""
    encryptor = Cipher(algorithms.AES(key.reveal()), modes.ECB()).encryptor()  # noqa: S305 - one block, by TS004/TS005
    return Key(encryptor.update(block.ljust(KEY_BYTES, b"\0")) + encryptor.finalize())


def _address(mc_addr: int) -> bytes:
    if not 0 <= mc_addr <= 0xFFFFFFFF:
        raise ValueError(f"mc_addr must be 0..{0xFFFFFFFF}, not {mc_addr}")
    return mc_addr.to_bytes(4, "little")
