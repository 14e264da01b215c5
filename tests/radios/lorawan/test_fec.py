"""Fragments against vectors, against the rule of TS004 step by step, and through a decoder of this test's own."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import ImageError
from radios.lorawan.fec import Encoder, matrix_lines

HUNDRED = bytes(range(100))


class Source:
    """A block that remembers how it was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def encoder(data: bytes, fragment_size: int, version: int) -> Encoder:
    return Encoder(Source(data).read, len(data), fragment_size, version)


def line_by_rule(number: int, plain_count: int, version: int) -> list[int]:
    """One line of the matrix, draw by draw as TS004 says it."""
    modulus = plain_count + (1 if plain_count & (plain_count - 1) == 0 else 0)
    x = 1 + 1001 * number
    line = [0] * plain_count
    hits = 0
    while hits < plain_count // 2:
        place = plain_count
        while place >= plain_count:
            x = (x >> 1) + (((x ^ x >> 5) & 1) << 22)
            place = x % modulus
        hits += 1 if version == 1 or not line[place] else 0
        line[place] = 1
    return line


def decode(fragments: dict[int, bytes], plain_count: int, version: int) -> bytes | None:
    """The padded block by Gaussian elimination on integers; None while the fragments are not enough."""
    pivots: dict[int, tuple[int, int]] = {}
    for n, data in fragments.items():
        if n <= plain_count:
            mask = 1 << (n - 1)
        else:
            mask = sum(bit << at for at, bit in enumerate(line_by_rule(n - plain_count, plain_count, version)))
        value = int.from_bytes(data, "big")
        while mask:
            top = mask.bit_length() - 1
            if top not in pivots:
                pivots[top] = (mask, value)
                break
            mask ^= pivots[top][0]
            value ^= pivots[top][1]
    if len(pivots) < plain_count:
        return None
    size = len(next(iter(fragments.values())))
    solved: dict[int, int] = {}
    for at in range(plain_count):  # every pivot holds only lower columns besides its own
        mask, value = pivots[at]
        for lower in range(at):
            if mask >> lower & 1:
                value ^= solved[lower]
        solved[at] = value
    return b"".join(solved[at].to_bytes(size, "big") for at in range(plain_count))


class TestVectors:
    @pytest.mark.parametrize(
        ("version", "first", "second"),
        [(1, "262622222e2e22222626", "5455565758596a6b7c7d"), (2, "686952535c5d76777071", "5455565758596a6b7c7d")],
    )
    def test_of_other_implementations(self, version, first, second):
        coded = encoder(HUNDRED, 10, version).fragments((11, 12))
        assert [data.hex() for data in coded] == [first, second]

    def test_plain_fragments_are_the_block(self):
        assert encoder(HUNDRED, 10, 1).fragments(range(1, 11)) == [HUNDRED[at : at + 10] for at in range(0, 100, 10)]

    def test_last_plain_fragment_is_padded_with_zeros(self):
        made = encoder(HUNDRED, 48, 1)
        assert (made.plain_count, made.padding) == (3, 44)
        assert made.fragment(3) == HUNDRED[96:] + bytes(44)


class TestMatrix:
    # Powers of two draw again; line numbers from 8380 on start above 23 bits.
    @pytest.mark.parametrize("plain_count", [1, 2, 3, 4, 5, 8, 10, 31, 32, 33, 64, 200, 256, 257])
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("numbers", [range(1, 40), (1, 7, 1000, 8379), (1, 8379, 8380, 8381, 9001, 16382)])
    def test_is_the_rule_of_the_specification(self, plain_count, version, numbers):
        got = matrix_lines(np.array(numbers), plain_count, version)
        assert got.tolist() == [line_by_rule(number, plain_count, version) for number in numbers]

    @pytest.mark.parametrize("plain_count", [2, 7, 64, 500, 1024])
    def test_v2_has_exactly_half_of_the_fragments_in_a_line_and_v1_fewer(self, plain_count):
        numbers = np.arange(1, 60)
        assert set(matrix_lines(numbers, plain_count, 2).sum(axis=1)) == {plain_count // 2}
        assert matrix_lines(numbers, plain_count, 1).sum(axis=1).max() <= plain_count // 2

    def test_many_lines_are_the_same_as_one_by_one(self):
        together = matrix_lines(np.arange(1, 301), 700, 1)
        assert all((together[n - 1] == matrix_lines(np.array([n]), 700, 1)[0]).all() for n in (1, 93, 94, 300))


class TestRebuild:
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize(
        ("size", "fragment_size", "loss"),
        [
            (1, 1, 0.0),
            (100, 10, 0.3),
            (1000, 48, 0.2),
            (4096, 64, 0.1),
            (5003, 50, 0.3),
            (9999, 222, 0.25),
            (3000, 13, 0.1),
        ],
    )
    def test_block_comes_back_after_losses(self, version, size, fragment_size, loss):
        rng = random.Random(size * 10 + version)
        data = rng.randbytes(size)
        made = encoder(data, fragment_size, version)
        m = made.plain_count
        ns = [n for n in range(1, 2 * m + 40) if rng.random() >= loss] if loss else list(range(1, m + 1))
        got = dict(zip(ns, made.fragments(ns), strict=True))
        kept: dict[int, bytes] = {}
        for n, fragment in got.items():
            kept[n] = fragment
            if len(kept) >= m and (block := decode(kept, m, version)) is not None:
                break
        else:
            pytest.fail("never enough")
        assert block == data + bytes(made.padding)
        assert len(kept) - m <= 14  # few more than the plain ones

    @pytest.mark.parametrize("version", [1, 2])
    def test_far_counters_alone_rebuild_too(self, version):
        data = random.Random(5).randbytes(1500)
        made = encoder(data, 50, version)
        ns = [*range(8400, 8425), *range(16360, 16384)]
        assert decode(dict(zip(ns, made.fragments(ns), strict=True)), made.plain_count, version) == data

    def test_a_lost_fragment_is_not_rebuilt_from_plain_ones(self):
        made = encoder(HUNDRED, 10, 1)
        assert decode({n: made.fragment(n) for n in range(1, 10)}, 10, 1) is None


class TestBatches:
    @given(
        st.binary(min_size=1, max_size=700),
        st.integers(1, 64),
        st.sampled_from((1, 2)),
        st.lists(st.integers(1, 16383), max_size=40),
    )
    def test_are_the_fragments_one_by_one_in_the_order_asked(self, data, fragment_size, version, ns):
        made = encoder(data, fragment_size, version)
        assert made.fragments(ns) == [made.fragment(n) for n in ns]

    def test_of_hundreds_are_the_sums_of_their_lines(self):
        data = random.Random(1).randbytes(300 * 20)
        made = encoder(data, 20, 1)
        plain = np.frombuffer(data, np.uint8).reshape(300, 20)
        lines = matrix_lines(np.arange(1, 701), 300, 1)
        expected = [np.bitwise_xor.reduce(plain[line == 1], axis=0).tobytes() for line in lines]
        assert made.fragments(range(301, 1001)) == expected

    def test_nothing_asked_is_nothing(self):
        assert encoder(HUNDRED, 10, 1).fragments([]) == []


class TestReading:
    def test_plain_fragment_reads_only_itself(self):
        source = Source(bytes(1000))
        Encoder(source.read, 1000, 48, 1).fragment(21)
        assert source.reads == [(960, 40)]

    def test_coded_fragments_read_every_byte_once_in_bounded_pieces(self):
        source = Source(random.Random(2).randbytes(300_001))
        Encoder(source.read, 300_001, 219, 1).fragments(range(2000, 2100))
        assert max(length for _, length in source.reads) <= 1 << 17
        seen = sorted(source.reads)
        assert seen[0][0] == 0
        assert all(at + length == following for (at, length), (following, _) in itertools.pairwise(seen))
        assert sum(seen[-1]) == 300_001

    @pytest.mark.parametrize("n", [3, 11, 12])
    def test_short_read_is_an_image_error(self, n):
        made = Encoder(lambda offset, length: HUNDRED[offset : offset + length - 1], 100, 10, 1)
        with pytest.raises(ImageError, match="the block gave"):
            made.fragment(n)


class TestRefused:
    @pytest.mark.parametrize("n", [-1, 0, 16384])
    def test_counter_outside(self, n):
        with pytest.raises(ValueError, match=r"n must be 1\.\.16383"):
            encoder(HUNDRED, 10, 1).fragment(n)

    @pytest.mark.parametrize(
        ("size", "fragment_size", "version", "message"),
        [
            (0, 10, 1, "size must be at least 1"),
            (10, 0, 1, "fragment_size must be"),
            (10, 256, 1, "fragment_size must be"),
            (10, 1, 3, "version must be"),
            (16384, 1, 1, "16384 fragments, more than 16383"),
        ],
    )
    def test_session_that_cannot_be(self, size, fragment_size, version, message):
        with pytest.raises(ValueError, match=message):
            Encoder(lambda _offset, length: bytes(length), size, fragment_size, version)
