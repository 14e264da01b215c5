"""Which multicast data rate a node can use, and through which gateways, by how its uplinks are heard. PURE.

A gateway sends at least as strongly as a node, so a link that carries uplinks with some decibels to spare carries downlinks
at the same spreading factor. Where no SNR is known, the spreading factor of the last uplink is taken.
"""

from collections.abc import Collection, Mapping

from radios.lorawan.regions import Region

_SMOOTHING = 0.3
_FLOOR_DB_AT_SF7 = -7.5  # what a LoRa receiver still reads; 2.5 dB lower with each step of the spreading factor
_STEP_DB = 2.5
_HEADROOM_DB = 3.0


def smoothed(before: float | None, snr_db: float) -> float:
    return snr_db if before is None else before + _SMOOTHING * (snr_db - before)


def usable(
    plan: Region, ceiling: int, snr_db: Mapping[str, float], uplink_dr: int | None, gateways: Collection[str]
) -> tuple[int, frozenset[str]]:
    """The highest data rate up to `ceiling`, and the gateways that reach the node with it; none of them: not known."""
    heard = {gateway: snr for gateway, snr in snr_db.items() if gateway in gateways}
    if not heard:
        return _by_uplink(plan, ceiling, uplink_dr), frozenset()
    rates = {gateway: _by_snr(plan, ceiling, snr) for gateway, snr in heard.items()}
    best = max(rates.values())
    return best, frozenset(gateway for gateway, rate in rates.items() if rate == best)


def slower(plan: Region, data_rate: int) -> int | None:
    """The next lower data rate that takes frames at all; None: there is none."""
    return max((rate for rate in _rates(plan) if rate < data_rate), default=None)


def _by_snr(plan: Region, ceiling: int, snr_db: float) -> int:
    fitting = [rate for rate in _rates(plan) if rate <= ceiling and snr_db >= _floor_db(plan, rate) + _HEADROOM_DB]
    return max(fitting, default=min(_rates(plan)))


def _by_uplink(plan: Region, ceiling: int, uplink_dr: int | None) -> int:
    modulation = plan.uplinks.get(uplink_dr) if uplink_dr is not None else None
    if modulation is None:
        return ceiling
    factor = modulation.spreading_factor
    fitting = [
        rate for rate in _rates(plan) if rate <= ceiling and plan.downlinks[rate].modulation.spreading_factor >= factor
    ]
    return max(fitting, default=min(_rates(plan)))


def _rates(plan: Region) -> list[int]:
    return [rate for rate, downlink in plan.downlinks.items() if downlink.max_payload]


def _floor_db(plan: Region, rate: int) -> float:
    return _FLOOR_DB_AT_SF7 - _STEP_DB * (plan.downlinks[rate].modulation.spreading_factor - 7)
