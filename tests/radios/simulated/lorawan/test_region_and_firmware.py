import pytest

from radios.errors import FrameError
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.region import sub_band, time_on_air_s


def test_time_on_air_of_the_protocol_file():
    assert time_on_air_s(23, 5, crc=True) == pytest.approx(0.0617, abs=1e-4)
    assert time_on_air_s(23, 0, crc=True) == pytest.approx(1.4828, abs=1e-4)


@pytest.mark.parametrize(
    ("data_rate", "fragment", "milliseconds"),
    [(0, 48, 2793), (1, 48, 1479), (2, 48, 698), (3, 112, 677), (4, 219, 646), (5, 219, 369)],
)
def test_time_on_air_of_a_fragment(data_rate, fragment, milliseconds):
    assert round(1000 * time_on_air_s(13 + 3 + fragment, data_rate, crc=False)) == milliseconds


def test_sub_bands():
    assert sub_band(869_525_000).duty_cycle == 0.1
    assert sub_band(868_100_000).duty_cycle == 0.01
    assert sub_band(868_650_000).duty_cycle == 0.001


def test_firmware_is_the_same_every_time_and_says_what_it_is():
    image = firmware.build(version=7, hardware=9, size=20_000, seed=1)
    assert len(image) == 20_000
    assert image == firmware.build(version=7, hardware=9, size=20_000, seed=1)
    assert image != firmware.build(version=7, hardware=9, size=20_000, seed=2)
    assert firmware.parse(image) == firmware.Firmware(version=7, hardware=9, length=20_000)


@pytest.mark.parametrize("cut", [0, 15, 19_999])
def test_a_cut_firmware_is_refused(cut):
    with pytest.raises(FrameError):
        firmware.parse(firmware.build(version=7, hardware=9, size=20_000, seed=1)[:cut])
    with pytest.raises(FrameError):
        firmware.parse(b"XXXX" + bytes(100))
