"""LoRaWAN: the fragment encoder here; what a delivery costs in `lorawan_rounds`, `lorawan_pace` and `lorawan_scale`."""

import random

import numpy as np
from numpy.typing import NDArray

from radios.lorawan.fec import Encoder, matrix_lines
from tests.benchmarks.lorawan_pace import pace
from tests.benchmarks.lorawan_rounds import rounds
from tests.benchmarks.lorawan_scale import scale
from tests.benchmarks.result import Bench, Result, Target, median_ms

# plain fragments, bytes of one, coded fragments, most times the baseline
FEC_CASES = ((500, 48, 100, 1.6), (1000, 100, 200, 1.3), (2134, 48, 400, 1.6))


def fec() -> list[Result]:
    """All coded fragments of a block, line generation included and nothing kept between runs, one thread.

    The baseline only adds up the right rows, in memory and as 64 bit words, with their indices prebuilt.
    """
    return [result for case in FEC_CASES for result in _fec_case(*case)]


def _fec_case(plain_count: int, fragment_size: int, coded_count: int, most: float) -> list[Result]:
    block = random.Random(plain_count).randbytes(plain_count * fragment_size)
    counters = range(plain_count + 1, plain_count + coded_count + 1)
    v1, v2 = (
        Encoder(lambda offset, length: block[offset : offset + length], len(block), fragment_size, version)
        for version in (1, 2)
    )
    rows = _rows64(block, fragment_size)
    indices = [np.flatnonzero(line) for line in matrix_lines(np.arange(1, coded_count + 1), plain_count, 1)]

    def baseline() -> list[NDArray[np.uint64]]:
        return [np.bitwise_xor.reduce(np.take(rows, index, axis=0)) for index in indices]

    expected = [row.view(np.uint8)[:fragment_size].tobytes() for row in baseline()]
    if v1.fragments(counters) != expected:
        raise AssertionError("the encoder and the baseline differ")
    ours, theirs, second = median_ms(lambda: v1.fragments(counters), baseline, lambda: v2.fragments(counters))
    what = f"FEC M={plain_count} x {fragment_size} B + {coded_count} coded"
    peers = {"numpy XOR of prebuilt indices": theirs, "ChirpStack (Rust)": None}
    return [
        Result(f"{what}, v1 / baseline", ours / theirs, "x", Target("<=", most)),
        Result(f"{what}, v1", ours, "ms", peers=peers),
        Result(f"{what}, v2", second, "ms", peers={"ChirpStack (Rust)": None}),
    ]


def _rows64(block: bytes, fragment_size: int) -> NDArray[np.uint64]:
    padded = np.zeros((len(block) // fragment_size, -(-fragment_size // 8) * 8), dtype=np.uint8)
    padded[:, :fragment_size] = np.frombuffer(block, dtype=np.uint8).reshape(-1, fragment_size)
    return padded.view(np.uint64)


BENCHES: tuple[Bench, ...] = (fec, rounds, pace, scale)
