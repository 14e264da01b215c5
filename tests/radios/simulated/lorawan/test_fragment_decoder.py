import random

import pytest

from radios.simulated.lorawan.fragment_decoder import FragmentDecoder, Taken, parity_line

BLOCK = bytes(range(100))


@pytest.mark.parametrize(
    ("version", "number", "expected"),
    [
        (1, 1, "262622222e2e22222626"),
        (2, 1, "686952535c5d76777071"),
        (1, 2, "5455565758596a6b7c7d"),
        (2, 2, "5455565758596a6b7c7d"),
    ],
)
def test_lines_give_the_vectors_of_the_protocol_file(version, number, expected, cutter, encoder):
    fragments = cutter(BLOCK, 10)
    value = 0
    for index in parity_line(number, len(fragments), version):
        value ^= int.from_bytes(fragments[index], "big")
    assert value.to_bytes(10, "big").hex() == expected
    assert encoder(fragments, number, version).hex() == expected


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("nb", "size"), [(7, 5), (64, 48), (128, 20), (200, 48)])
def test_any_loss_is_made_up_by_coded_fragments(version, nb, size, cutter, encoder):
    rng = random.Random(f"{version}/{nb}")
    block = rng.randbytes(nb * size)
    fragments = cutter(block, size)
    decoder = FragmentDecoder(nb, size, version=version, redundancy_limit=nb)
    for counter, data in enumerate(fragments, 1):
        if rng.random() > 0.25:
            decoder.receive(counter, data)
    sent = 0
    while not decoder.complete:
        sent += 1
        assert sent < nb + 60
        if rng.random() > 0.25:
            decoder.receive(nb + sent, encoder(fragments, sent, version))
    assert bytes(decoder.memory) == block
    assert decoder.missing == 0


def test_coded_fragments_alone_are_enough_when_the_matrix_has_room(cutter, encoder):
    fragments = cutter(random.Random(1).randbytes(2000), 50)
    decoder = FragmentDecoder(40, 50, version=1, redundancy_limit=40)
    number = 0
    while not decoder.complete:
        number += 1
        decoder.receive(40 + number, encoder(fragments, number, 1))
    assert bytes(decoder.memory) == b"".join(fragments)


def test_far_and_unordered_counters_are_fine_and_repeats_are_useless(cutter, encoder):
    fragments = cutter(random.Random(2).randbytes(1000), 50)
    decoder = FragmentDecoder(20, 50, version=2, redundancy_limit=20)
    for counter in range(1, 19):
        decoder.receive(counter, fragments[counter - 1])
    taken = [decoder.receive(20 + n, encoder(fragments, n, 2)) for n in (300, 300, 7, 9000, 2, 1, 3)]
    assert taken[1] is Taken.USELESS
    assert decoder.complete
    assert bytes(decoder.memory) == b"".join(fragments)


def test_no_plain_fragment_is_taken_below_the_highest_or_after_a_coded_one(cutter, encoder):
    fragments = cutter(bytes(range(200)), 10)
    decoder = FragmentDecoder(20, 10, version=1, redundancy_limit=20)
    assert decoder.receive(5, fragments[4]) is Taken.STORED
    assert decoder.receive(3, fragments[2]) is Taken.DROPPED
    assert decoder.receive(5, fragments[4]) is Taken.DROPPED
    assert decoder.lost == 4
    assert decoder.receive(21, encoder(fragments, 1, 1)) is Taken.USEFUL
    assert decoder.lost == 19
    assert decoder.receive(6, fragments[5]) is Taken.DROPPED
    assert decoder.missing == 18
    assert decoder.confirmed_fragments == 2


def test_more_lost_than_the_matrix_holds_ends_the_session(cutter, encoder):
    fragments = cutter(bytes(range(200)), 10)
    decoder = FragmentDecoder(20, 10, version=1, redundancy_limit=3)
    decoder.receive(16, fragments[15])
    assert not decoder.overflowed
    assert decoder.receive(21, encoder(fragments, 1, 1)) is Taken.OVERFLOW
    assert decoder.overflowed
    assert not decoder.complete


def test_fragments_of_a_wrong_size_or_counter_are_dropped():
    decoder = FragmentDecoder(4, 10, version=1, redundancy_limit=4)
    assert decoder.receive(1, bytes(9)) is Taken.DROPPED
    assert decoder.receive(0, bytes(10)) is Taken.DROPPED
    assert decoder.receive(16384, bytes(10)) is Taken.DROPPED
    assert decoder.last_counter == 0
