"""What gateways truly transmitted, by what the gateway bus says. PURE.

Pairs a downlink given to a gateway (McAddr and FCnt are in clear in its PHYPayload) with the gateway's acknowledgement, by
gateway and downlinkId. Not responsible for MQTT, protobuf or JSON, nor for what is done about a refused frame.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from radios.lorawan.airtime import time_on_air

TX_OK = "OK"
TX_IGNORED = "IGNORED"  # an item that was not tried, because an earlier one was sent
TX_UNKNOWN = ""  # no acknowledgement came
TX_DUTY_CYCLE = "DUTY_CYCLE_OVERFLOW"

_BANDWIDTHS_HZ = (125_000, 250_000, 500_000, 812_500, 1_625_000)  # anything else is not believed
_DATA_DOWN = (0x60, 0xA0)  # MHDR of unconfirmed and confirmed data, LoRaWAN R1
_PHY_LEAST = 12  # MHDR, DevAddr, FCtrl, FCnt, MIC
_PENDING_MOST = 1024  # downlinks without an ack yet; the oldest go, for acks get lost
_ACK_WITHIN_S = 60.0  # class B and GPS-timed downlinks are acknowledged when they are queued, not when they are sent


@dataclass(frozen=True, slots=True)
class FrameKey:
    """A multicast frame on the air. `f_cnt_16`: the low 16 bits of FCnt, all that a frame carries."""

    mc_addr: int
    f_cnt_16: int


@dataclass(frozen=True, slots=True)
class GatewayFrame:
    """One try of a downlink: a PHYPayload, and how it is sent. 0: the bus did not say."""

    phy: bytes
    frequency_hz: int = 0
    spreading_factor: int = 0  # 0: no LoRa
    bandwidth_hz: int = 0

    @property
    def airtime_s(self) -> float:
        """0 when it cannot be known."""
        if self.bandwidth_hz not in _BANDWIDTHS_HZ:
            return 0.0
        try:
            return time_on_air(self.spreading_factor, self.bandwidth_hz, len(self.phy))
        except ValueError:
            return 0.0


@dataclass(frozen=True, slots=True)
class GatewayDownlink:
    """Given to a gateway: it sends the first of the frames that it can."""

    gateway_id: str
    downlink_id: int
    frames: tuple[GatewayFrame, ...]


@dataclass(frozen=True, slots=True)
class GatewayAck:
    """What a gateway did with a downlink's frames, in order: gw.TxAckStatus by name."""

    gateway_id: str
    downlink_id: int
    statuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transmitted:
    """One gateway's word about a frame. `status`: gw.TxAckStatus by name, TX_UNKNOWN when it never said.

    `key` is None when it is no data frame; `frequency_hz` and `airtime_s` are 0 where the bus did not say.
    """

    key: FrameKey | None
    gateway_id: str
    status: str
    frequency_hz: int = 0
    airtime_s: float = 0.0

    @property
    def sent(self) -> bool:
        return self.status == TX_OK

    def about(self, mc_addr: int) -> bool:
        return self.key is not None and self.key.mc_addr == mc_addr

    @property
    def told(self) -> bool:
        return self.status != TX_UNKNOWN


def frame_key(phy: bytes) -> FrameKey | None:
    """None when the PHYPayload is no data downlink."""
    if len(phy) < _PHY_LEAST or phy[0] not in _DATA_DOWN:
        return None
    return FrameKey(int.from_bytes(phy[1:5], "little"), int.from_bytes(phy[6:8], "little"))


class GatewayBus:
    """Remembers downlinks until their ack. Other DevAddrs' frames are paired too: they use the same air."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[str, int], tuple[float, tuple[GatewayFrame, ...]]] = OrderedDict()

    def downlink(self, gateway_id: str, downlink_id: int, frames: Sequence[GatewayFrame], now: float = 0.0) -> None:
        """A downlink was given to a gateway."""
        place = gateway_id, downlink_id
        self._pending.pop(place, None)
        self._pending[place] = now, tuple(frames)
        while len(self._pending) > _PENDING_MOST:
            self._pending.popitem(last=False)

    def ack(self, gateway_id: str, downlink_id: int, statuses: Sequence[str]) -> Transmitted | None:
        """A DownlinkTxAck, its items' statuses in order. None when it is not known what it is about.

        One item is sent at most; where none was, the status is that of the last one tried.
        """
        _, frames = self._pending.pop((gateway_id, downlink_id), (0.0, ()))
        tried = [(frame, status) for frame, status in zip(frames, statuses, strict=False) if status != TX_IGNORED]
        chosen = next((pair for pair in tried if pair[1] == TX_OK), tried[-1] if tried else None)
        return None if chosen is None else _transmitted(gateway_id, *chosen)

    def overdue(self, now: float) -> list[Transmitted]:
        """Downlinks whose ack does not come any more, each told once. Their frames may have been sent."""
        found: list[Transmitted] = []
        while self._pending:
            (gateway_id, _), (given_at, frames) = next(iter(self._pending.items()))
            if now < given_at + _ACK_WITHIN_S:
                break
            self._pending.popitem(last=False)
            word = _transmitted(gateway_id, frames[0], TX_UNKNOWN) if frames else None
            if word is not None:
                found.append(word)
        return found


def _transmitted(gateway_id: str, frame: GatewayFrame, status: str) -> Transmitted | None:
    key, airtime_s = frame_key(frame.phy), frame.airtime_s
    if key is None and not airtime_s:
        return None
    return Transmitted(key, gateway_id, status, frame.frequency_hz, airtime_s)
