"""Rebuilds a data block from plain and coded fragments (TS004), with the habits of the decoders in the field.

Counters below the highest plain one are dropped, no plain one is taken after the first coded one, and more lost plain
fragments than the matrix has room for end the session. The code is solved by elimination on integers used as bit rows.
"""

from enum import StrEnum
from functools import lru_cache

MAX_COUNTER = 16383


class Taken(StrEnum):
    """What became of one fragment."""

    STORED = "stored"  # plain, kept
    USEFUL = "useful"  # coded, raised the rank
    USELESS = "useless"  # coded, told nothing new
    DROPPED = "dropped"  # plain, but at or below the highest plain counter, or after a coded one
    OVERFLOW = "overflow"  # more lost than the matrix can hold; nothing is taken any more


@lru_cache(maxsize=8192)
def parity_line(coded: int, nb_frag: int, version: int) -> frozenset[int]:
    """Indices (from 0) of the plain fragments in the coded fragment with counter `nb_frag + coded`.

    Version 1 counts a position that is hit again as one of its M // 2, version 2 draws until M // 2 differ.
    """
    modulus = nb_frag + (1 if nb_frag & (nb_frag - 1) == 0 else 0)
    x = 1 + 1001 * coded
    line: set[int] = set()
    draws = 0
    while (draws if version == 1 else len(line)) < nb_frag // 2:
        position = nb_frag
        while position >= nb_frag:
            x = (x >> 1) | (((x ^ (x >> 5)) & 1) << 22)
            position = x % modulus
        line.add(position)
        draws += 1
    return frozenset(line)


class FragmentDecoder:
    """One session. `missing` is what elimination still needs of the plain fragments known to be lost."""

    def __init__(self, nb_frag: int, frag_size: int, *, version: int, redundancy_limit: int) -> None:
        self.nb_frag = nb_frag
        self.frag_size = frag_size
        self.version = version
        self.redundancy_limit = redundancy_limit
        self.last_counter = 0  # highest ever seen
        self.received = 0  # fragments taken that told something new
        self.overflowed = False
        self.memory = bytearray(b"\xff" * (nb_frag * frag_size))
        self._blocks: list[int | None] = [None] * nb_frag
        self._highest_plain = 0
        self._lost_plain = 0
        self._rows: dict[int, tuple[int, int]] = {}  # highest lost index in the row -> (row, data)
        self._coding = False
        self.complete = False

    @property
    def coding(self) -> bool:
        """A coded fragment has been seen."""
        return self._coding

    @property
    def lost(self) -> int:
        """Plain fragments known to be lost: never goes down."""
        return self._lost_plain

    @property
    def missing(self) -> int:
        return 0 if self.complete else self._lost_plain - len(self._rows)

    @property
    def confirmed_fragments(self) -> int:
        """How many fragments' worth of the block is pinned down."""
        return self.nb_frag if self.complete else self._highest_plain - self._lost_before_coded + len(self._rows)

    @property
    def _lost_before_coded(self) -> int:
        return self._lost_plain - ((self.nb_frag - self._highest_plain) if self._coding else 0)

    def receive(self, counter: int, data: bytes) -> Taken:
        """`counter` from 1; `data` must be one fragment long."""
        if len(data) != self.frag_size or not 1 <= counter <= MAX_COUNTER:
            return Taken.DROPPED
        self.last_counter = max(self.last_counter, counter)
        if self.overflowed:
            return Taken.OVERFLOW
        taken = self._plain(counter, data) if counter <= self.nb_frag else self._coded(counter, data)
        if taken in (Taken.STORED, Taken.USEFUL):
            self.received += 1
        return taken

    def _plain(self, counter: int, data: bytes) -> Taken:
        if self._coding or counter <= self._highest_plain:
            return Taken.DROPPED
        self._lost_plain += counter - self._highest_plain - 1
        self._highest_plain = counter
        self._store(counter - 1, int.from_bytes(data, "big"))
        self.complete = counter == self.nb_frag and self._lost_plain == 0
        return Taken.STORED

    def _coded(self, counter: int, data: bytes) -> Taken:
        if not self._coding:
            self._coding = True
            self._lost_plain += self.nb_frag - self._highest_plain
        if self.complete:
            return Taken.USELESS
        if self._lost_plain > self.redundancy_limit:
            self.overflowed = True
            return Taken.OVERFLOW
        row, value = 0, int.from_bytes(data, "big")
        blocks = self._blocks
        for index in parity_line(counter - self.nb_frag, self.nb_frag, self.version):
            block = blocks[index]
            if block is None:
                row |= 1 << index
            else:
                value ^= block
        while row:
            pivot = row.bit_length() - 1
            known = self._rows.get(pivot)
            if known is None:
                break
            row ^= known[0]
            value ^= known[1]
        if not row:
            return Taken.USELESS
        self._rows[row.bit_length() - 1] = (row, value)
        if len(self._rows) == self._lost_plain:
            self._solve()
        return Taken.USEFUL

    def _solve(self) -> None:
        for pivot in sorted(self._rows):  # each row holds its pivot and lower ones, which are solved by then
            row, value = self._rows[pivot]
            row ^= 1 << pivot
            while row:
                index = row.bit_length() - 1
                row ^= 1 << index
                block = self._blocks[index]
                assert block is not None  # noqa: S101 - full rank
                value ^= block
            self._store(pivot, value)
        self.complete = True

    def _store(self, index: int, value: int) -> None:
        self._blocks[index] = value
        start = index * self.frag_size
        self.memory[start : start + self.frag_size] = value.to_bytes(self.frag_size, "big")
