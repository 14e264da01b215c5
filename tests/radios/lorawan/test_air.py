"""When frames may go: sharing with others, pacing by the hour's budget, quiet hours, and requests before fragments."""

from itertools import pairwise

import pytest

from radios.lorawan.air import RESERVE, AirLimits, MulticastAir, Turn
from radios.lorawan.air_book import AirBook
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.gateway_bus import FrameKey, GatewayAck, GatewayDownlink, GatewayFrame
from radios.lorawan.gateway_watch import GatewayWatch
from radios.lorawan.regions import region
from radios.lorawan.unicast_air import UnicastAir
from radios.quiet_hours import QuietHours
from radios.radio import Record

T0 = 1_800_000_000.0
EU868 = region("EU868")
GATEWAY, OTHER = "00800000a0000001", "00800000a0000002"
RX2_HZ, RX1_HZ = 869_525_000, 868_100_000
SIZE = 222


def pace(limits=None, *, share=1.0, dr=3, minute=0, ledger=None, turn=None):
    ledger = ledger or DutyCycleLedger(0.1)
    air = MulticastAir(
        {GATEWAY: ledger},
        EU868.downlink(dr).modulation,
        turn or Turn(),
        share=share,
        gateway_gap_s=5.0,
        limits=limits or AirLimits(),
        minute_of_day=lambda now: (minute + int((now - T0) // 60)) % 1440,
    )
    return air, ledger


def send(air, seconds, size=115):
    """Start times of all frames that go within so long."""
    now, times = T0, []
    while (now := air.earliest(size, now)) < T0 + seconds:
        air.book(size, now)
        times.append(now)
    return times


def most_in_an_hour(times, airtime):
    return max(sum(t <= u < t + 3600 for u in times) for t in times) * airtime


@pytest.mark.parametrize("burst", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("reserve", [0.1, 0.4])
def test_no_hour_takes_more_than_the_share_less_the_reserve(burst, share, reserve):
    air, _ = pace(AirLimits(air_share=share, reserve=reserve, burst=burst))
    times = send(air, 3 * 3600)
    used, budget = most_in_an_hour(times, air.airtime_s(115)), 360 * (1 - reserve) * share
    assert 0.9 * budget <= used <= budget + (0 if burst else air.airtime_s(115))
    assert len(times) * air.airtime_s(115) >= 2.7 * budget


def test_a_burst_is_over_long_before_the_hour_and_lets_answers_through():
    air, _ = pace(AirLimits(burst=True))
    smooth, _ = pace()
    airtime = air.airtime_s(115)
    within = [t for t in send(air, 1000) if t < T0 + 900]
    assert len(within) * airtime > 300
    assert len(send(smooth, 900)) * airtime < 100
    assert min(b - a for a, b in pairwise(within)) >= 1.99 * airtime


@pytest.mark.parametrize("burst", [False, True])
def test_duration_is_what_pacing_takes(burst):
    for count in (50, 400, 1000):
        air, _ = pace(AirLimits(burst=burst))
        air.expect(count, 115)
        times = send(air, 5 * 3600)
        assert air.duration_s(count, 115) == pytest.approx(times[count - 1] - T0, rel=0.1, abs=120)


def test_the_order_and_the_operator_both_bound_the_share():
    even = pace()[0].spacing_s(115)
    assert pace(share=0.25)[0].spacing_s(115) == pytest.approx(4 * even)
    assert pace(AirLimits(air_share=0.1), share=0.25)[0].spacing_s(115) == pytest.approx(10 * even)


@pytest.mark.parametrize("burst", [False, True])
def test_quiet_hours_leave_the_air_to_others(burst):
    quiet = QuietHours(22 * 60, 2 * 60, 0.1)
    air, _ = pace(AirLimits(burst=burst, quiet_hours=quiet), minute=22 * 60)
    times = send(air, 8 * 3600)
    during = sum(t < T0 + 4 * 3600 for t in times)
    after = sum(t >= T0 + 5 * 3600 for t in times)
    assert 0 < during < after / 5


def test_a_share_too_small_for_one_frame_still_lets_one_go():
    air, _ = pace(AirLimits(air_share=0.02, burst=True), dr=0)
    assert len(send(air, 4 * 3600, 51)) >= 2


def test_other_downlinks_of_the_gateway_slow_the_fragments():
    air, ledger = pace()
    ledger.add(T0, 350.0)
    assert air.earliest(115, T0 + 1) >= T0 + 3600


def test_a_request_goes_before_the_next_fragment():
    turn = Turn()
    air, _ = pace(AirLimits(burst=True), turn=turn)
    air.book(115, T0)
    free = turn.request_at(T0 + 0.1)
    assert free > T0 + 0.1
    assert air.earliest(115, free) > free
    assert turn.request_at(free) == free
    turn.take(free, 4.0)
    assert air.earliest(115, free) == pytest.approx(free + 4.0)


def test_a_request_that_never_comes_back_holds_fragments_up_for_seconds_only():
    turn = Turn()
    air, _ = pace(AirLimits(burst=True), turn=turn)
    air.book(115, T0)
    free = turn.request_at(T0 + 0.1)
    assert air.earliest(115, free) <= free + 2.0


def test_what_was_not_sent_is_given_back():
    ledger = DutyCycleLedger(0.1)
    for second in range(0, 100, 10):
        ledger.add(T0 + second, 2.0)
    ledger.give_back(3.0)
    assert ledger.used(T0 + 100) == pytest.approx(17.0)
    ledger.give_back(100.0)
    assert ledger.used(T0 + 100) == 0


# Ledgers of all gateways and sub-bands.


def book():
    made = AirBook(EU868, RX2_HZ)
    made.know([GATEWAY, OTHER])
    return made


def test_every_gateway_and_sub_band_has_its_own_ledger_in_the_journal():
    made = book()
    made.ledger(GATEWAY, RX2_HZ).add(T0, 3.0)
    made.ledger(OTHER, RX1_HZ).add(T0, 2.0)
    records = made.records()
    assert {r.key for r in records} == {f"air/{GATEWAY}/869.4-869.65", f"air/{OTHER}/868.0-868.6"}
    again = AirBook(EU868, RX2_HZ)
    for record in records:
        again.restore(record, 1e10)
    again.know([GATEWAY, OTHER])
    used = [again.ledger(g, f).used(T0 + 1) for g in (GATEWAY, OTHER) for f in (RX2_HZ, RX1_HZ)]
    assert used == pytest.approx([3.0, 0.0, 0.0, 2.0], abs=0.01)


def test_records_of_before_and_of_elsewhere():
    old = DutyCycleLedger(0.1)
    old.add(T0, 5.0)
    made = AirBook(EU868, RX2_HZ)
    made.restore(Record("network", f"air/{GATEWAY}", 1, old.to_bytes()), 1e10)
    made.restore(Record("network", f"air/{OTHER}/902-928", 1, old.to_bytes()), 1e10)
    assert made.ledger(GATEWAY, RX2_HZ).used(T0) == pytest.approx(5.0, abs=0.01)
    with pytest.raises(ValueError, match="duty cycle record"):
        made.restore(Record("network", f"air/{GATEWAY}/865.0-868.0", 1, b"?"), 1e10)


def test_a_record_from_years_ahead_is_an_hour_of_silence_at_most():
    """A restored store, or one of a program that followed the steps of the clock."""
    ahead = DutyCycleLedger(0.1)
    ahead.add(T0 + 1e8, 360.0)
    made = AirBook(EU868, RX2_HZ)
    made.restore(Record("network", f"air/{GATEWAY}/869.4-869.65", 1, ahead.to_bytes()), T0)
    ledger = made.ledger(GATEWAY, RX2_HZ)
    assert ledger.used(T0 + 3599) == pytest.approx(360.0, abs=0.01)
    assert ledger.earliest(T0 + 5, 1.0) == pytest.approx(T0 + 3600, abs=0.1)
    assert ledger.used(T0 + 3601) == 0.0


# The gateway bus.


class Bus:
    def __init__(self, ours=()):
        self.book = book()
        self.words = []
        self.watch = GatewayWatch(self.book, self._ours)
        self.addresses = set(ours)
        self.downlinks = 0

    def _ours(self, word):
        self.words.append(word)
        return word.key is not None and word.key.mc_addr in self.addresses

    def say(self, *statuses, address=0x01020304, f_cnt=7, at=T0, hz=RX2_HZ, gateway=GATEWAY):
        phy = b"\x60" + address.to_bytes(4, "little") + b"\x00" + f_cnt.to_bytes(2, "little") + bytes(30)
        self.downlinks += 1
        frame = GatewayFrame(phy, hz, 9, 125_000)
        self.watch.hear(GatewayDownlink(gateway, self.downlinks, (frame,)), at)
        if statuses:
            self.watch.hear(GatewayAck(gateway, self.downlinks, statuses), at)
        return frame.airtime_s

    def used(self, hz=RX2_HZ, at=T0, gateway=GATEWAY):
        return self.book.ledger(gateway, hz).used(at)


def test_others_downlinks_enter_the_ledger_of_their_gateway_and_sub_band():
    bus = Bus()
    airtime = bus.say("OK", hz=RX1_HZ)
    assert (bus.used(RX1_HZ), bus.used(RX2_HZ), bus.used(RX1_HZ, gateway=OTHER)) == (pytest.approx(airtime), 0, 0)
    bus.say("TOO_LATE", hz=RX1_HZ, f_cnt=8)
    assert bus.used(RX1_HZ) == pytest.approx(airtime)


def test_a_downlink_without_an_acknowledgement_may_have_been_sent():
    bus = Bus()
    airtime = bus.say()
    assert bus.used() == 0
    bus.say("OK", at=T0 + 100, f_cnt=8)
    assert bus.used(at=T0 + 100) == pytest.approx(2 * airtime)
    assert bus.watch.unacknowledged == 1


def test_own_multicasts_are_booked_once_and_given_back_when_refused():
    bus = Bus(ours=[0x01020304])
    bus.book.ledger(GATEWAY, RX2_HZ).add(T0, 1.0)
    airtime = bus.say("OK")
    assert bus.used() == pytest.approx(1.0)
    bus.say("OK")  # sent again, because the network server heard no acknowledgement
    assert bus.used() == pytest.approx(1.0 + airtime)
    bus.say("COLLISION_PACKET", f_cnt=8)
    assert bus.used() == pytest.approx(1.0)
    bus.say("DUTY_CYCLE_OVERFLOW", f_cnt=9)
    assert bus.used() == pytest.approx(1.0)
    assert bus.words[0].key == FrameKey(0x01020304, 7)


def test_strangers_and_nonsense_on_the_bus_change_nothing():
    bus = Bus()
    bus.say("OK", gateway="00800000a00000ff")
    bus.say("OK", hz=1)
    frame = GatewayFrame(bytes(20), RX2_HZ, 12, 1)
    bus.watch.hear(GatewayDownlink(GATEWAY, 99, (frame,)), T0)
    bus.watch.hear(GatewayAck(GATEWAY, 99, ("OK",)), T0)
    bus.watch.hear(GatewayDownlink(GATEWAY, 100, ()), T0)
    bus.watch.hear(GatewayAck(GATEWAY, 101, ()), T0 + 1000)
    assert bus.used(at=T0 + 1000) == 0
    assert bus.watch.hears


def test_single_downlinks_count_for_every_gateway_unless_the_bus_tells():
    told = [False]
    made = book()
    air = UnicastAir(EU868, rx2=made.of(RX2_HZ), rx1=made.of(RX1_HZ), told_elsewhere=lambda: told[0], reserve=RESERVE)
    air.book(2.0, T0, always_on=False)
    air.book(3.0, T0, always_on=True)
    told[0] = True
    air.book(4.0, T0, always_on=True)
    assert [made.ledger(g, f).used(T0) for g in (GATEWAY, OTHER) for f in (RX1_HZ, RX2_HZ)] == [2.0, 3.0, 2.0, 3.0]
    made.ledger(GATEWAY, RX1_HZ).add(T0, 32.0)
    assert air.earliest(1.0, T0, always_on=False) >= T0 + 3600
    assert air.earliest(1.0, T0, always_on=True) == T0
