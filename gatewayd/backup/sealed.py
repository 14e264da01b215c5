"""Encryption of a backup by a passphrase, as a stream: nothing of it is held as a whole, nothing is given out unverified.

scrypt makes the key. Pieces of 64 KiB are sealed by AES-256-GCM, each under its number and whether it is the last one, so
that none can be changed, left out, swapped or cut off. Layout: MAGIC, log2 of scrypt's n, r, p (a byte each), 16 bytes of
salt, 7 bytes of nonce; then the pieces, each with its tag. The head is authenticated with every piece.
"""

import os
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gatewayd.errors import Refused

MAGIC: Final = b"gatewayd sealed backup 1\n"
PIECE_BYTES: Final = 64 * 1024

_LOG_N, _R, _P = 15, 8, 1  # 32 MiB
_LOG_N_MOST: Final = 17  # of a file that somebody else wrote: 128 MiB, which every gateway has
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 7, 16
_HEAD_BYTES: Final = len(MAGIC) + 3 + _SALT_BYTES + _NONCE_BYTES


class Sealer:
    """Seals what is written into `target`. `close` writes the last piece, and leaves `target` open."""

    def __init__(self, target: IO[bytes], passphrase: str) -> None:
        salt, self._nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        self._head = MAGIC + bytes((_LOG_N, _R, _P)) + salt + self._nonce
        self._cipher = _cipher(passphrase, salt, _LOG_N, _R, _P)
        self._target = target
        self._waiting = bytearray()
        self._number = 0
        target.write(self._head)

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > PIECE_BYTES:  # the last one has to be known as such
            self._put(bytes(self._waiting[:PIECE_BYTES]), last=False)
            del self._waiting[:PIECE_BYTES]
        return len(data)

    def close(self) -> None:
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, piece: bytes, *, last: bool) -> None:
        nonce = _numbered(self._nonce, self._number, last=last)
        self._target.write(self._cipher.encrypt(nonce, piece, self._head))
        self._number += 1


class Opener:
    """Reads what a `Sealer` wrote. Refused (`sealed`) for another passphrase or other bytes."""

    def __init__(self, source: IO[bytes], passphrase: str) -> None:
        self._head = source.read(_HEAD_BYTES)
        if len(self._head) < _HEAD_BYTES or not self._head.startswith(MAGIC):
            raise Refused("sealed", "is no sealed backup, or is cut off")
        log_n, r, p = self._head[len(MAGIC) : len(MAGIC) + 3]
        if not 1 <= log_n <= _LOG_N_MOST or (r, p) != (_R, _P):
            raise Refused("sealed", "was sealed in a way that this gatewayd does not know")
        salt = self._head[len(MAGIC) + 3 : -_NONCE_BYTES]
        self._nonce = self._head[-_NONCE_BYTES:]
        self._cipher = _cipher(passphrase, salt, log_n, r, p)
        self._source = source
        self._next = source.read(PIECE_BYTES + _TAG_BYTES)
        self._number = 0
        self._ready = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        while len(self._ready) < size and not self._ended:
            self._ready += self._piece()
        found = bytes(self._ready[:size])
        del self._ready[:size]
        return found

    def _piece(self) -> bytes:
        piece, self._next = self._next, self._source.read(PIECE_BYTES + _TAG_BYTES)
        self._ended = not self._next
        nonce = _numbered(self._nonce, self._number, last=self._ended)
        self._number += 1
        try:
            return self._cipher.decrypt(nonce, piece, self._head)
        except (InvalidTag, ValueError):
            raise Refused("sealed", "another passphrase, or the file was changed or cut off") from None


def is_sealed(beginning: bytes) -> bool:
    return beginning.startswith(MAGIC)


def _cipher(passphrase: str, salt: bytes, log_n: int, r: int, p: int) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << log_n, r=r, p=p).derive(passphrase.encode()))


def _numbered(nonce: bytes, number: int, *, last: bool) -> bytes:
    return nonce + number.to_bytes(4, "big") + bytes((last,))
