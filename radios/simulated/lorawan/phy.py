"""What goes over the simulated air: downlinks as real PHYPayloads, uplinks as plain records (link layer left out)."""

from dataclasses import dataclass

from radios.errors import FrameError
from radios.simulated.lorawan.crypto import crypt_downlink_payload, downlink_mic

_UNCONFIRMED_DATA_DOWN = 0x60
_CONFIRMED_DATA_DOWN = 0xA0
_ACK = 0x20
_F_PENDING = 0x10
_MIN_BYTES = 12  # MHDR, DevAddr, FCtrl, FCnt, MIC
PHY_OVERHEAD_BYTES = 13  # the above and FPort


@dataclass(frozen=True, slots=True)
class Activation:
    """The session that a join makes, known to the node and the network server."""

    dev_addr: int
    nwk_s_key: bytes
    app_s_key: bytes


@dataclass(frozen=True, slots=True)
class Downlink:
    """One LoRa frame towards the nodes."""

    phy: bytes
    frequency_hz: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class Uplink:
    """One data uplink of a node, already decrypted."""

    dev_eui: str
    f_cnt: int
    f_port: int
    payload: bytes
    frequency_hz: int
    data_rate: int
    ack: bool = False


@dataclass(frozen=True, slots=True)
class JoinRequest:
    dev_eui: str
    frequency_hz: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class DownlinkHeader:
    """A downlink as far as it can be read without keys."""

    dev_addr: int
    confirmed: bool
    ack: bool
    f_pending: bool
    f_cnt_16: int
    f_port: int | None
    frm_payload: bytes
    message: bytes  # what the MIC is over
    mic: bytes

    def verify(self, nwk_s_key: bytes, f_cnt: int) -> bool:
        return downlink_mic(nwk_s_key, self.dev_addr, f_cnt, self.message) == self.mic

    def decrypt(self, app_s_key: bytes, f_cnt: int) -> bytes:
        return crypt_downlink_payload(app_s_key, self.dev_addr, f_cnt, self.frm_payload)


def build_downlink(
    session: Activation,
    f_cnt: int,
    f_port: int,
    payload: bytes,
    *,
    confirmed: bool = False,
    f_pending: bool = False,
) -> bytes:
    """PHYPayload of a data downlink without FOpts."""
    mhdr = _CONFIRMED_DATA_DOWN if confirmed else _UNCONFIRMED_DATA_DOWN
    f_ctrl = _F_PENDING if f_pending else 0
    message = (
        bytes([mhdr])
        + session.dev_addr.to_bytes(4, "little")
        + bytes([f_ctrl])
        + (f_cnt & 0xFFFF).to_bytes(2, "little")
        + bytes([f_port])
        + crypt_downlink_payload(session.app_s_key, session.dev_addr, f_cnt, payload)
    )
    return message + downlink_mic(session.nwk_s_key, session.dev_addr, f_cnt, message)


def parse_downlink(phy: bytes) -> DownlinkHeader:
    """FrameError unless it is a data downlink."""
    if len(phy) < _MIN_BYTES:
        raise FrameError(f"PHYPayload of {len(phy)} bytes is shorter than {_MIN_BYTES}")
    if phy[0] not in (_UNCONFIRMED_DATA_DOWN, _CONFIRMED_DATA_DOWN):
        raise FrameError(f"MHDR {phy[0]:02x} is no data downlink")
    f_ctrl = phy[5]
    body = phy[8 + (f_ctrl & 0x0F) : -4]
    return DownlinkHeader(
        dev_addr=int.from_bytes(phy[1:5], "little"),
        confirmed=phy[0] == _CONFIRMED_DATA_DOWN,
        ack=bool(f_ctrl & _ACK),
        f_pending=bool(f_ctrl & _F_PENDING),
        f_cnt_16=int.from_bytes(phy[6:8], "little"),
        f_port=body[0] if body else None,
        frm_payload=body[1:],
        message=phy[:-4],
        mic=phy[-4:],
    )


def full_f_cnt(f_cnt_16: int, lowest: int) -> int:
    """The smallest 32-bit counter >= `lowest` with these low 16 bits."""
    return lowest + ((f_cnt_16 - lowest) & 0xFFFF)
