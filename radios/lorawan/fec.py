"""The fragments of a data block, plain and coded, as TS004 makes them (versions 1 and 2).

A coded fragment is the exclusive or of about half of the plain ones; which ones, says a line of a pseudo-random matrix.
The block is read in pieces as it is needed. Decoding is the nodes' work. Which counters to send is the session's.

Two things make batches fast. The 23 bit generator is linear, so that a sequence of its states grows by whole
slices, ever longer ones since p(x)^2 = p(x^2) over GF(2), for all lines at once. And the matrix product is done for groups
of k plain fragments: a table of their 2^k sums, looked up once per line (the method of the Four Russians).
"""

from collections.abc import Callable, Iterable, Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from radios.errors import ImageError
from radios.lorawan.packages.fragmentation import N_MAX

FRAGMENT_SIZE_MAX = 255

Read = Callable[[int, int], bytes]
"""(offset, length) -> that many bytes of the block."""

_Words = NDArray[np.uint64]
_Bits = NDArray[np.uint8]
_States = NDArray[np.uint32]
_Index = NDArray[np.intp]

_PRBS_BITS = 23
_PRBS_TAP = 5
_PRBS_TOP = 22
_BATCH_LINES = 512  # lines worked on at once, which bounds memory
_LINE_BATCH_CELLS = 1 << 16  # generator states worked on at once, for the processor's cache
_TABLE_BYTES = 1 << 17
_LOOKUP_BYTES = 1 << 16


class Encoder:
    """Fragments of one data block on demand.

    ValueError when the block has no byte or too many fragments, or a fragment cannot have that size; ImageError from its
    methods when `read` returns fewer bytes than asked for.
    """

    def __init__(self, read: Read, size: int, fragment_size: int, version: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if not 1 <= fragment_size <= FRAGMENT_SIZE_MAX:
            raise ValueError(f"fragment_size must be 1..{FRAGMENT_SIZE_MAX}, not {fragment_size}")
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, not {version}")
        self.size = size
        self.fragment_size = fragment_size
        self.version = version
        self.plain_count = -(-size // fragment_size)
        self.padding = self.plain_count * fragment_size - size
        if self.plain_count > N_MAX:
            raise ValueError(f"a block of {size} bytes has {self.plain_count} fragments, more than {N_MAX}")
        self._read = read
        self._words = -(-fragment_size // 8)

    def fragment(self, n: int) -> bytes:
        """Fragment `n`, counted from 1: plain up to `plain_count` (the last one zero padded), above that coded."""
        return self.fragments((n,))[0]

    def fragments(self, ns: Iterable[int]) -> list[bytes]:
        """The fragments of these counters, in their order; much cheaper than one by one. ValueError outside 1..16383."""
        wanted = list(ns)
        for n in wanted:
            if not 1 <= n <= N_MAX:
                raise ValueError(f"n must be 1..{N_MAX}, not {n}")
        result = {n: self._plain_bytes(n - 1) for n in wanted if n <= self.plain_count}
        coded = list(dict.fromkeys(n for n in wanted if n > self.plain_count))
        for start in range(0, len(coded), _BATCH_LINES):
            batch = coded[start : start + _BATCH_LINES]
            for n, row in zip(batch, self._coded(batch), strict=True):
                result[n] = row
        return [result[n] for n in wanted]

    def _plain_bytes(self, row: int) -> bytes:
        offset = row * self.fragment_size
        return self._exactly(offset, min(self.fragment_size, self.size - offset)).ljust(self.fragment_size, b"\0")

    def _coded(self, ns: list[int]) -> Iterator[bytes]:
        lines = matrix_lines(np.array(ns, dtype=np.int64) - self.plain_count, self.plain_count, self.version)
        sums = self._sums(lines)
        packed = sums.view(np.uint8)[:, : self.fragment_size].tobytes()
        return (packed[at : at + self.fragment_size] for at in range(0, len(packed), self.fragment_size))

    def _sums(self, lines: _Bits) -> _Words:
        """The product of lines (one row each, plain fragments in columns) and the block, in padded words."""
        count = lines.shape[0]
        k = _group_size(count)
        groups = -(-self.plain_count // k)
        # Group g is of the plain fragments g, g + groups, g + 2 * groups ...: whole stripes of the matrix make its codes.
        codes = np.zeros((count, groups), dtype=np.uint8)
        for j in range(k):
            stripe = lines[:, j * groups : (j + 1) * groups]
            codes[:, : stripe.shape[1]] |= stripe << j
        sums = np.zeros((count, self._words), dtype=np.uint64)
        tabled = max(1, _TABLE_BYTES // (self._words * 8 << k))
        together = max(1, _LOOKUP_BYTES // (self._words * 8 * count))
        for first in range(0, groups, tabled):
            table = self._table(k, groups, first, min(tabled, groups - first))
            entries = table.shape[1]
            flat = table.reshape(-1, self._words)
            places = codes[:, first : first + entries].T.astype(np.intp) * entries
            places += np.arange(entries, dtype=np.intp)[:, None]
            for at in range(0, entries, together):
                found = flat.take(places[at : at + together], 0, None, "clip")
                sums ^= np.bitwise_xor.reduce(found, axis=0)
        return sums

    def _table(self, k: int, groups: int, first: int, count: int) -> _Words:
        """All sums of the k plain fragments of `count` groups: shape (2^k, count, words)."""
        table = np.empty((1 << k, count, self._words), dtype=np.uint64)
        table[0] = 0
        for j in range(k):
            half = 1 << j
            np.bitwise_xor(table[:half], self._rows(j * groups + first, count), out=table[half : 2 * half])
        return table

    def _rows(self, first: int, count: int) -> _Words:
        """Plain fragments as padded words; zeros behind the block's end."""
        padded = np.zeros((count, self._words * 8), dtype=np.uint8)
        offset = first * self.fragment_size
        length = min(count * self.fragment_size, self.size - offset)
        if length > 0:
            data = np.frombuffer(self._exactly(offset, length), dtype=np.uint8)
            whole = length // self.fragment_size
            cut = whole * self.fragment_size
            padded[:whole, : self.fragment_size] = data[:cut].reshape(whole, self.fragment_size)
            if cut < length:
                padded[whole, : length - cut] = data[cut:]
        return padded.view(np.uint64)

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._read(offset, length)
        if len(data) != length:
            raise ImageError(f"the block gave {len(data)} bytes at {offset}, not {length}")
        return data


def matrix_lines(numbers: NDArray[np.int64], plain_count: int, version: int) -> _Bits:
    """Lines of the coding matrix, 0 or 1 per plain fragment: shape (numbers, plain_count). Line numbers count from 1."""
    lines = np.zeros((len(numbers), plain_count), dtype=np.uint8)
    fill = _fill_v1 if version == 1 else _fill_v2
    step = max(1, _LINE_BATCH_CELLS // max(plain_count, 1))
    for start in range(0, len(numbers), step):
        fill(lines[start : start + step], 1 + 1001 * numbers[start : start + step])
    return lines


def _fill_v1(lines: _Bits, seeds: NDArray[np.int64]) -> None:
    """M // 2 hits a line; one that falls on an earlier one counts."""
    plain_count = lines.shape[1]
    hits = plain_count // 2
    modulus = _modulus(plain_count)
    if not hits:
        return
    if modulus == plain_count:
        lines.reshape(-1)[_cells(_remainders(_states(seeds, hits), modulus), modulus)] = 1
        return
    # M is a power of two: a draw of M hits nothing, and is drawn again.
    draws = hits + 4
    while True:
        drawn = _remainders(_states(seeds, draws), modulus)
        nth = np.cumsum(drawn < plain_count, axis=0)
        if bool((nth[-1] >= hits).all()):
            break
        draws += draws // 4 + 4
    cells = np.zeros((len(seeds), modulus), dtype=np.uint8)
    cells.reshape(-1)[_cells(np.where(nth <= hits, drawn, np.uint32(plain_count)), modulus)] = 1
    lines[:] = cells[:, :plain_count]


def _fill_v2(lines: _Bits, seeds: NDArray[np.int64]) -> None:
    """Hits until M // 2 different fragments are in the line."""
    count, plain_count = lines.shape
    hits = plain_count // 2
    modulus = _modulus(plain_count)
    if not hits:
        return
    draws = ceil(0.7 * plain_count) + 16  # M * ln 2 are needed on the mean
    while True:
        drawn = _remainders(_states(seeds, draws), modulus)
        # The first draw of every cell: written backwards, so that the first one stays.
        first = np.full((count, modulus), draws, dtype=np.int32)
        when = np.repeat(np.arange(draws - 1, -1, -1, dtype=np.int32), count)
        first.reshape(-1)[_cells(drawn[::-1], modulus)] = when
        first = first[:, :plain_count]
        last = np.partition(first, hits - 1, axis=1)[:, hits - 1 : hits]
        if bool((last < draws).all()):
            break
        draws += draws // 4 + 16
    lines[:] = first <= last


def _cells(drawn: _States, modulus: int) -> _Index:
    """Places of the draws in a flat (lines, modulus) array, in the order of the draws."""
    return (np.arange(drawn.shape[1], dtype=np.intp) * modulus + drawn).reshape(-1)


def _modulus(plain_count: int) -> int:
    return plain_count + (plain_count & (plain_count - 1) == 0)


def _remainders(states: _States, modulus: int) -> _States:
    # numpy divides by a scalar with vector instructions, but does not take the remainder so.
    remainders: _States = states - (states // np.uint32(modulus)) * np.uint32(modulus)
    return remainders


def _states(seeds: NDArray[np.int64], steps: int) -> _States:
    """The generator's states after step 1..steps for every seed: shape (steps, seeds)."""
    if int(seeds.max()) >> _PRBS_BITS:
        return _states_stepwise(seeds, steps)
    # Bits come out as s[t + 23] = s[t] ^ s[t + 5], and state t is bits t .. t + 22: the first 23 states need 46 bits.
    bits = np.empty((2 * _PRBS_BITS, len(seeds)), dtype=np.uint32)
    bits[:_PRBS_BITS] = seeds >> np.arange(_PRBS_BITS)[:, None] & 1
    for at, new in ((_PRBS_BITS, _PRBS_BITS - _PRBS_TAP), (2 * _PRBS_BITS - _PRBS_TAP, _PRBS_TAP)):
        tap = at - _PRBS_BITS + _PRBS_TAP
        bits[at : at + new] = bits[at - _PRBS_BITS : at - _PRBS_BITS + new] ^ bits[tap : tap + new]
    two = bits[:-1] | bits[1:] << 1
    four = two[:-2] | two[2:] << 2
    eight = four[:-4] | four[4:] << 4
    sixteen = eight[:-8] | eight[8:] << 8
    states = np.empty((max(steps, _PRBS_BITS), len(seeds)), dtype=np.uint32)
    states[:_PRBS_BITS] = sixteen[1 : _PRBS_BITS + 1] | eight[16 : _PRBS_BITS + 16] << 15
    # The states obey the same rule as the bits, and with both distances doubled as often as is wanted.
    known, scale = _PRBS_BITS, 1
    while known < steps:
        while _PRBS_BITS * scale * 2 <= known:
            scale *= 2
        new = min((_PRBS_BITS - _PRBS_TAP) * scale, steps - known)
        at = known - _PRBS_BITS * scale
        tap = at + _PRBS_TAP * scale
        np.bitwise_xor(states[at : at + new], states[tap : tap + new], out=states[known : known + new])
        known += new
    return states[:steps]


def _states_stepwise(seeds: NDArray[np.int64], steps: int) -> _States:
    """The same, step by step: a seed above 23 bits carries out of the generator's top bit, which is not linear."""
    states = np.empty((steps, len(seeds)), dtype=np.uint32)
    state = seeds.astype(np.uint32)
    for step in range(steps):
        state = (state >> 1) + (((state ^ state >> _PRBS_TAP) & 1) << _PRBS_TOP)
        states[step] = state
    return states


def _group_size(lines: int) -> int:
    """Plain fragments per table: where making tables and looking up in them cost the least together."""
    return min(range(1, 9), key=lambda k: ((1 << k) / 2 + lines) / k)
