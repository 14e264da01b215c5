"""The duty-cycle ledgers of all gateways, one for each sub-band, and their records. PURE."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from radios.errors import Unsupported
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.regions import Region, SubBand
from radios.radio import Record

VERSION = 1


class AirBook:
    """A sub-band is opened by the first `of`, and then kept for every gateway that is known."""

    def __init__(self, plan: Region, frequency_hz: int) -> None:
        """`frequency_hz`: of the multicasts."""
        self._plan = plan
        self._multicast = plan.sub_band(frequency_hz)
        self._bands: dict[str, SubBand] = {}
        self._ledgers: dict[str, dict[str, DutyCycleLedger]] = {}  # by sub-band and gateway
        self._gateways: set[str] = set()
        self.of(frequency_hz)

    def know(self, gateways: Iterable[str]) -> None:
        """These may send for us."""
        self._gateways.update(gateways)
        for name in self._ledgers:
            for gateway in self._gateways:
                self._opened(name, gateway)

    def knows(self, gateway: str) -> bool:
        return gateway in self._gateways

    def of(self, frequency_hz: int) -> Mapping[str, DutyCycleLedger]:
        """By gateway, growing with the gateways known. Unsupported outside the region's sub-bands."""
        band = self._plan.sub_band(frequency_hz)
        self._bands[band.name] = band
        self._ledgers.setdefault(band.name, {})
        for gateway in self._gateways:
            self._opened(band.name, gateway)
        return MappingProxyType(self._ledgers[band.name])

    def ledger(self, gateway: str, frequency_hz: int) -> DutyCycleLedger | None:
        """None for a gateway that is not known, or outside the region's sub-bands."""
        try:
            return self.of(frequency_hz).get(gateway)
        except Unsupported:
            return None

    def records(self) -> list[Record]:
        """Of what was ever sent."""
        return [
            Record("network", f"air/{gateway}/{name}", VERSION, ledger.to_bytes())
            for name, ledgers in self._ledgers.items()
            for gateway, ledger in ledgers.items()
            if not ledger.empty
        ]

    def restore(self, record: Record, now: float) -> None:
        """ValueError when it is no such record."""
        gateway, _, name = record.key.removeprefix("air/").partition("/")
        band = next((band for band in self._plan.sub_bands if band.name == name), None if name else self._multicast)
        if band is None:
            return  # of another region: these gateways are configured anew
        self._bands[band.name] = band
        ledger = DutyCycleLedger.from_bytes(record.value, band.duty_cycle)
        ledger.found_at(now)
        self._gateways.add(gateway)
        self._ledgers.setdefault(band.name, {})[gateway] = ledger

    def _opened(self, name: str, gateway: str) -> None:
        self._ledgers[name].setdefault(gateway, DutyCycleLedger(self._bands[name].duty_cycle))
