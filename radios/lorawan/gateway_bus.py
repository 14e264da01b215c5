"""What gateways truly transmitted of multicast frames, by what the gateway bus says. PURE.

Pairs a DownlinkFrame (McAddr and FCnt are in clear in its PHYPayload) with its DownlinkTxAck by gateway and downlinkId.
Not responsible for MQTT, protobuf or JSON, nor for what is done about a refused frame.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

TX_OK = "OK"
TX_IGNORED = "IGNORED"  # an item that was not tried, because an earlier one was sent

_DATA_DOWN = (0x60, 0xA0)  # MHDR of unconfirmed and confirmed data, LoRaWAN R1
_PHY_LEAST = 12  # MHDR, DevAddr, FCtrl, FCnt, MIC
_PENDING_MOST = 1024  # downlinks without an ack yet; the oldest go, for acks get lost


@dataclass(frozen=True, slots=True)
class FrameKey:
    """A multicast frame on the air. `f_cnt_16`: the low 16 bits of FCnt, all that a frame carries."""

    mc_addr: int
    f_cnt_16: int


@dataclass(frozen=True, slots=True)
class Transmitted:
    """One gateway's word about a frame. `status`: gw.TxAckStatus by name."""

    key: FrameKey
    gateway_id: str
    status: str

    @property
    def sent(self) -> bool:
        return self.status == TX_OK


def frame_key(phy: bytes) -> FrameKey | None:
    """None when the PHYPayload is no data downlink."""
    if len(phy) < _PHY_LEAST or phy[0] not in _DATA_DOWN:
        return None
    return FrameKey(int.from_bytes(phy[1:5], "little"), int.from_bytes(phy[6:8], "little"))


class GatewayBus:
    """Remembers downlinks until their ack. Other DevAddrs' frames are paired too: they use the same air."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[str, int], tuple[FrameKey | None, ...]] = OrderedDict()

    def downlink(self, gateway_id: str, downlink_id: int, phys: Sequence[bytes]) -> None:
        """A DownlinkFrame was given to a gateway; `phys`: the PHYPayload of each of its items."""
        place = gateway_id, downlink_id
        self._pending.pop(place, None)
        self._pending[place] = tuple(frame_key(phy) for phy in phys)
        while len(self._pending) > _PENDING_MOST:
            self._pending.popitem(last=False)

    def ack(self, gateway_id: str, downlink_id: int, statuses: Sequence[str]) -> Transmitted | None:
        """A DownlinkTxAck, its items' statuses in order. None when it is not known what it is about.

        One item is sent at most; where none was, the status is that of the last one tried.
        """
        keys = self._pending.pop((gateway_id, downlink_id), ())
        tried = [(key, status) for key, status in zip(keys, statuses, strict=False) if status != TX_IGNORED]
        chosen = next((pair for pair in tried if pair[1] == TX_OK), tried[-1] if tried else None)
        if chosen is None or chosen[0] is None:
            return None
        return Transmitted(chosen[0], gateway_id, chosen[1])
