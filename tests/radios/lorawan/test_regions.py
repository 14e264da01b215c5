"""Channel plans: data rates, sizes and sub-bands."""

import pytest

from radios.errors import Unsupported
from radios.lorawan.regions import NO_LIMIT, REGIONS, Modulation, region


def sizes(name: str, drs: range, **options: bool) -> list[int]:
    return [region(name).max_payload(dr, **options) for dr in drs]


class TestSizes:
    @pytest.mark.parametrize("name", ["EU868", "AS923", "IN865"])
    def test_of_125_khz_plans(self, name):
        assert sizes(name, range(6)) == [51, 51, 51, 115, 242, 242]
        assert sizes(name, range(6), repeater=True) == [51, 51, 51, 115, 222, 222]

    @pytest.mark.parametrize("name", ["US915", "AU915"])
    def test_of_500_khz_plans(self, name):
        assert sizes(name, range(8, 14)) == [53, 129, 242, 242, 242, 242]
        assert sizes(name, range(8, 14), repeater=True) == [33, 109, 222, 222, 222, 222]

    def test_with_dwell_time(self):
        assert sizes("AS923", range(7), dwell_time=True) == [0, 0, 11, 53, 125, 242, 242]
        assert sizes("AS923", range(7), dwell_time=True, repeater=True) == [0, 0, 11, 53, 125, 222, 222]
        assert sizes("EU868", range(7), dwell_time=True) == sizes("EU868", range(7))


class TestRates:
    def test_modulations(self):
        assert region("EU868").downlink(0).modulation == Modulation(12, 125_000)
        assert region("EU868").downlink(5).modulation == Modulation(7, 125_000)
        assert region("EU868").downlink(6).modulation == Modulation(7, 250_000)
        assert region("US915").downlink(8).modulation == Modulation(12, 500_000)
        assert region("US915").downlink(13).modulation == Modulation(7, 500_000)
        assert region("US915").uplink(0) == Modulation(10, 125_000)
        assert region("US915").uplink(4) == Modulation(8, 500_000)
        assert region("AU915").uplink(0) == Modulation(12, 125_000)
        assert region("AU915").uplink(6) == Modulation(8, 500_000)

    @pytest.mark.parametrize(("name", "dr"), [("EU868", 7), ("US915", 0), ("US915", 14), ("IN865", 6), ("AU915", 5)])
    def test_without_a_downlink_is_refused(self, name, dr):
        with pytest.raises(Unsupported, match=f"{name} has no LoRa downlink data rate {dr}"):
            region(name).max_payload(dr)

    def test_without_an_uplink_is_refused(self):
        with pytest.raises(Unsupported, match="US915 has no LoRa uplink data rate 8"):
            region("US915").uplink(8)


class TestDefaults:
    @pytest.mark.parametrize(
        ("name", "frequency_hz", "dr"),
        [
            ("EU868", 869_525_000, 0),
            ("US915", 923_300_000, 8),
            ("AU915", 923_300_000, 8),
            ("AS923", 923_200_000, 2),
            ("AS923_2", 921_400_000, 2),
            ("AS923_3", 916_600_000, 2),
            ("AS923_4", 917_300_000, 2),
            ("IN865", 866_550_000, 2),
        ],
    )
    def test_rx2(self, name, frequency_hz, dr):
        plan = region(name)
        assert (plan.rx2_frequency_hz, plan.rx2_dr) == (frequency_hz, dr)

    @pytest.mark.parametrize("name", REGIONS)
    def test_rx2_can_be_sent(self, name):
        plan = region(name)
        assert plan.max_payload(plan.rx2_dr) > 0
        assert plan.sub_band(plan.rx2_frequency_hz).duty_cycle > 0

    def test_name_may_be_written_as_people_do(self):
        assert region("eu868") is region("EU868")
        assert region("as923-2") is region("AS923_2")

    def test_unknown_name_is_refused(self):
        with pytest.raises(Unsupported, match="region 'MARS' is not known"):
            region("MARS")


class TestSubBands:
    @pytest.mark.parametrize(
        ("frequency_hz", "duty_cycle"),
        [
            (864_999_999, 0.001),
            (865_000_000, 0.01),
            (868_100_000, 0.01),
            (868_599_999, 0.01),
            (868_900_000, 0.001),
            (869_525_000, 0.1),
            (869_800_000, 0.01),
        ],
    )
    def test_of_eu868(self, frequency_hz, duty_cycle):
        assert region("EU868").sub_band(frequency_hz).duty_cycle == duty_cycle

    @pytest.mark.parametrize(
        "frequency_hz", [862_999_999, 868_600_000, 868_650_000, 869_300_000, 869_650_000, 870_000_000]
    )
    def test_between_is_refused(self, frequency_hz):
        with pytest.raises(Unsupported, match=f"EU868 has no sub-band at {frequency_hz} Hz"):
            region("EU868").sub_band(frequency_hz)

    @pytest.mark.parametrize("name", ["US915", "AU915", "IN865"])
    def test_without_a_limit(self, name):
        assert [band.duty_cycle for band in region(name).sub_bands] == [NO_LIMIT]
