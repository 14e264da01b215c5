"""Time on air against known values; the ledger against the rule it keeps: no hour above the duty cycle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import Unsupported
from radios.lorawan.airtime import BUCKET_S, WINDOW_S, DutyCycleLedger, downlink_airtime, time_on_air, uplink_airtime
from radios.lorawan.regions import Modulation, region

T0 = 1_790_000_000.0
HOUR = WINDOW_S


class TestTimeOnAir:
    @pytest.mark.parametrize(("spreading_factor", "expected_ms"), [(7, 61.7), (12, 1482.8)])
    def test_of_an_uplink(self, spreading_factor, expected_ms):
        assert time_on_air(spreading_factor, 125_000, 23, crc=True) * 1e3 == pytest.approx(expected_ms, abs=0.05)

    @pytest.mark.parametrize(
        ("name", "dr", "fragment", "expected_ms"),
        [
            ("EU868", 0, 48, 2793),
            ("EU868", 1, 48, 1479),
            ("EU868", 2, 48, 698),
            ("EU868", 3, 112, 677),
            ("EU868", 4, 219, 646),
            ("EU868", 5, 219, 369),
            ("US915", 8, 50, 616),
            ("US915", 10, 239, 564),
            ("US915", 13, 239, 99),
        ],
    )
    def test_of_a_fragment(self, name, dr, fragment, expected_ms):
        modulation = region(name).downlink(dr).modulation
        assert downlink_airtime(modulation, 3 + fragment) * 1e3 == pytest.approx(expected_ms, abs=0.5)

    def test_of_uplinks_has_the_crc(self):
        modulation = Modulation(7, 125_000)
        assert (
            uplink_airtime(modulation, 10) == time_on_air(7, 125_000, 23, crc=True) > downlink_airtime(modulation, 10)
        )

    def test_of_an_empty_frame_is_the_preamble_and_header(self):
        assert time_on_air(12, 125_000, 0) == pytest.approx(20.25 * 4096 / 125_000)

    @pytest.mark.parametrize("arguments", [(4, 125_000, 1), (13, 125_000, 1), (7, 0, 1), (7, 125_000, 256), (7, 1, -1)])
    def test_of_no_lora_frame_is_refused(self, arguments):
        with pytest.raises(ValueError, match="must be"):
            time_on_air(*arguments)


class TestLedger:
    def test_empty_one_lets_send_at_once(self):
        assert DutyCycleLedger(0.1).earliest(T0, 2.8) == T0

    def test_budget_may_be_spent_in_one_burst(self):
        ledger = DutyCycleLedger(0.1)
        now = T0
        for _ in range(180):
            assert ledger.earliest(now, 2.0) == now
            ledger.add(now, 2.0)
            now += 2.0
        assert ledger.used(now) == pytest.approx(360.0)
        later = ledger.earliest(now, 2.0)
        assert T0 + HOUR <= later <= T0 + HOUR + BUCKET_S + 2.0

    def test_steady_sending_never_waits(self):
        ledger = DutyCycleLedger(0.1)
        now = T0
        for _ in range(200):
            assert ledger.earliest(now, 2.793) == now
            ledger.add(now, 2.793)
            now += 28.2  # so that no hour holds more than 128 of them

    def test_reserve_is_left_to_others(self):
        ledger = DutyCycleLedger(0.01)
        ledger.add(T0, 27.0)
        assert ledger.earliest(T0 + 30, 2.0, reserve=0.25) == T0 + 27.0 + HOUR
        assert ledger.earliest(T0 + 30, 2.0) == T0 + 30

    def test_what_others_sent_counts(self):
        ledger = DutyCycleLedger(0.01)
        ledger.add(T0, 40.0)  # more than allowed
        assert ledger.used(T0 + 100) == 40.0
        assert ledger.earliest(T0 + 100, 1.0) == T0 + 40 + HOUR

    def test_asking_changes_nothing(self):
        ledger = DutyCycleLedger(0.01)
        ledger.add(T0, 30.0)
        ledger.earliest(T0 + 3 * HOUR, 10.0)
        ledger.used(T0 + 3 * HOUR)
        assert ledger.used(T0 + 1) == 30.0

    def test_what_never_fits_is_refused(self):
        with pytest.raises(Unsupported, match="never fits"):
            DutyCycleLedger(0.001).earliest(T0, 3.7)
        with pytest.raises(Unsupported, match="never fits"):
            DutyCycleLedger(0.001).earliest(T0, 2.8, reserve=0.3)

    def test_without_a_limit_sending_back_to_back_is_allowed(self):
        ledger = DutyCycleLedger(1.0)
        now = T0
        for _ in range(800):
            assert ledger.earliest(now, 10.0) == pytest.approx(now)
            ledger.add(now, 10.0)
            now += 10.0

    def test_clock_that_was_set_back_blocks_for_an_hour_at_most(self):
        ledger = DutyCycleLedger(0.01)
        ledger.add(T0 + 30 * HOUR, 36.0)
        assert ledger.earliest(T0, 1.0) == T0 + HOUR
        ledger.add(T0 + 5, 1.0)
        assert ledger.earliest(T0 + 10, 1.0) <= T0 + 10 + HOUR

    @pytest.mark.parametrize("duty_cycle", [0, -0.1, 1.1])
    def test_duty_cycle_that_is_none_is_refused(self, duty_cycle):
        with pytest.raises(ValueError, match="duty_cycle"):
            DutyCycleLedger(duty_cycle)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match="reserve"):
            DutyCycleLedger(0.1).earliest(T0, 1.0, reserve=1.0)
        with pytest.raises(ValueError, match="airtime"):
            DutyCycleLedger(0.1).add(T0, -1.0)


SENDING = st.lists(st.tuples(st.floats(0, 900), st.floats(0.01, 3.0)), max_size=120)


def send_all(ledger: DutyCycleLedger, gaps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Send each as early as allowed after a gap: (begin, airtime)."""
    now = T0
    sent = []
    for gap, airtime in gaps:
        now = ledger.earliest(now + gap, airtime)
        ledger.add(now, airtime)
        sent.append((now, airtime))
        now += airtime
    return sent


@given(SENDING, st.sampled_from((0.001, 0.01, 0.1)))
def test_no_hour_is_above_the_duty_cycle(gaps, duty_cycle):
    sent = send_all(DutyCycleLedger(duty_cycle), gaps)
    for begin, airtime in sent:
        until = begin + airtime
        in_hour = sum(max(0.0, min(b + a, until) - max(b, until - HOUR)) for b, a in sent)
        assert in_hour <= duty_cycle * HOUR + 1e-6


@given(SENDING, st.floats(0, 2 * HOUR))
def test_record_brings_back_a_ledger_that_allows_no_more(gaps, later):
    ledger = DutyCycleLedger(0.01)
    sent = send_all(ledger, gaps)
    data = ledger.to_bytes()
    again = DutyCycleLedger.from_bytes(data, 0.01)
    now = (sent[-1][0] if sent else T0) + later
    assert len(data) < 4000
    assert again.used(now) == pytest.approx(ledger.used(now), abs=0.01) or again.used(now) > ledger.used(now)
    assert again.earliest(now, 1.0) >= ledger.earliest(now, 1.0) - 1e-6
    assert DutyCycleLedger.from_bytes(again.to_bytes(), 0.01).earliest(now, 1.0) >= ledger.earliest(now, 1.0) - 1e-6


def test_record_goes_on_with_new_entries():
    ledger = DutyCycleLedger(0.01)
    ledger.add(T0, 30.0)
    again = DutyCycleLedger.from_bytes(ledger.to_bytes(), 0.01)
    again.add(T0 + 60, 6.0)
    assert again.used(T0 + 70) == pytest.approx(36.0)
    assert again.earliest(T0 + 70, 1.0) == pytest.approx(T0 + 30 + HOUR, abs=0.01)


@pytest.mark.parametrize("data", [b"", b"\x01", bytes(11), b"\x02" + bytes(10), b"\x01" + bytes(8) + b"\x01\x00"])
def test_record_that_is_none_is_refused(data):
    with pytest.raises(ValueError, match="a duty cycle record"):
        DutyCycleLedger.from_bytes(data, 0.1)
