"""TS004, fragmented data block transport: port 201. Sessions, status answers in the styles found in the field."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from radios.simulated.lorawan.crypto import data_block_mic
from radios.simulated.lorawan.fragment_decoder import FragmentDecoder, Taken
from radios.simulated.lorawan.packages.commands import (
    PACKAGE_VERSION,
    Answer,
    package_version_answer,
    split_commands,
)

_STATUS, _SETUP, _DELETE, _BLOCK_RECEIVED, _DATA_FRAGMENT = 0x01, 0x02, 0x03, 0x04, 0x08
_ENCODING_UNSUPPORTED, _NOT_ENOUGH_MEMORY, _FRAG_INDEX_UNSUPPORTED, _WRONG_DESCRIPTOR = 0x01, 0x02, 0x04, 0x08
_SESSION_CNT_REPLAY = 0x10
_MEMORY_ERROR, _MIC_ERROR, _SESSION_DOES_NOT_EXIST = 0x01, 0x02, 0x04
_BLOCK_RECEIVED_TRIES = 3
_BLOCK_RECEIVED_SPACING_S = 60.0


class StatusStyle(StrEnum):
    """How FragSessionStatusAns is filled in."""

    SPEC = "spec"  # fragments received; missing ones, saturated at 255
    LBM = "lbm"  # last counter - lost; missing counts down, low byte only; 1 after a loss-free plain pass
    LORAMAC = "loramac"  # last counter; lost plain ones, never goes down, low byte only


@dataclass(slots=True)
class FragSession:
    index: int
    group_mask: int
    decoder: FragmentDecoder
    padding: int
    block_ack_delay: int
    descriptor: bytes
    ack_reception: bool = False
    session_cnt: int | None = None
    mic: bytes | None = None
    block: bytes | None = None  # set when the decoder is done, right or wrong
    mic_error: bool = False
    told: int = 0  # FragDataBlockReceivedReq sent
    tell_at: float | None = None
    settled: bool = False  # nothing more is taken


@dataclass(slots=True)
class FragmentCounters:
    sessions_set_up: int = 0
    fragments_received: int = 0
    fragments_dropped: int = 0
    bytes_received_twice: int = 0
    coded_by_unicast: int = 0  # of those received
    statuses_told: int = 0  # FragSessionStatusAns
    blocks_told: int = 0  # FragDataBlockReceivedReq
    malformed: int = 0


class Fragmentation:
    """One session at a time, whatever its index. `slot_erased` and `block_done` tell the bootloader."""

    package, port = 3, 201

    def __init__(
        self,
        version: int,
        *,
        style: StatusStyle,
        redundancy_limit: int,
        flash_bytes: int,
        fragment_bytes_most: int,
        int_key: bytes,
        counters: FragmentCounters,
        seen: set[tuple[int, bytes]],
        slot_erased: Callable[[], None],
        block_done: Callable[[bytes], None],
    ) -> None:
        self.version = version
        self.session: FragSession | None = None
        self.counters = counters
        self._style = style
        self._redundancy_limit = redundancy_limit
        self._flash_bytes = flash_bytes
        self._fragment_bytes_most = fragment_bytes_most
        self._int_key = int_key
        self._seen = seen
        self._slot_erased = slot_erased
        self._block_done = block_done
        self._last_session_cnt: dict[int, int] = {}
        setup_bytes = 10 if version == 1 else 16
        self._lengths = {PACKAGE_VERSION: 0, _STATUS: 1, _SETUP: setup_bytes, _DELETE: 1}
        if version >= 2:
            self._lengths[_BLOCK_RECEIVED] = 1

    def receive(self, payload: bytes, now: float, *, multicast: bool) -> list[Answer]:
        if payload[:1] == bytes([_DATA_FRAGMENT]):  # never together with other commands
            self._data_fragment(payload[1:], now, multicast=multicast)
            return []
        parsed = split_commands(payload, self._lengths)
        self.counters.malformed += not parsed.complete
        answers: list[Answer] = []
        for cid, body in parsed.commands:
            if cid == _STATUS:
                answers += self._status(body[0], multicast=multicast)
            elif cid == _BLOCK_RECEIVED:
                self._block_received_answer(body[0])
            elif multicast:
                continue  # set-up, deletion and version are unicast only
            elif cid == PACKAGE_VERSION:
                answers.append(package_version_answer(self.package, self.version))
            elif cid == _SETUP:
                answers.append(Answer(bytes([_SETUP, self._set_up(body)])))
            else:
                answers.append(Answer(bytes([_DELETE, self._delete(body[0] & 0x03)])))
        return answers

    def next_deadline(self) -> float | None:
        return self.session.tell_at if self.session else None

    def handle_timeout(self, now: float) -> list[Answer]:
        """FragDataBlockReceivedReq, up to three times, until it is answered."""
        session = self.session
        if session is None or session.tell_at is None or now < session.tell_at:
            return []
        session.told += 1
        self.counters.blocks_told += 1
        spread_s = _spread_s(session)
        again = session.told < _BLOCK_RECEIVED_TRIES
        session.tell_at = now + spread_s + _BLOCK_RECEIVED_SPACING_S if again else None
        status = session.index | (0x04 if session.mic_error else 0)
        return [Answer(bytes([_BLOCK_RECEIVED, status]), spread_s)]

    def _set_up(self, body: bytes) -> int:
        index = body[0] >> 4 & 0x03
        nb_frag, frag_size, control, padding = struct.unpack("<HBBB", body[1:6])
        descriptor, rest = body[6:10], body[10:]
        status = index << 6
        if control >> 3 & 0x07:
            status |= _ENCODING_UNSUPPORTED
        if nb_frag * frag_size > self._flash_bytes or nb_frag > 16383 or frag_size > self._fragment_bytes_most:
            status |= _NOT_ENOUGH_MEMORY
        if not nb_frag or not frag_size or padding >= frag_size:
            status |= _WRONG_DESCRIPTOR
        session_cnt = int.from_bytes(rest[:2], "little") if rest else None
        if session_cnt is not None and session_cnt <= self._last_session_cnt.get(index, -1):
            status |= _SESSION_CNT_REPLAY
        if status != index << 6:
            return status
        self._slot_erased()
        self.counters.sessions_set_up += 1
        self.session = FragSession(
            index=index,
            group_mask=body[0] & 0x0F,
            decoder=FragmentDecoder(nb_frag, frag_size, version=self.version, redundancy_limit=self._redundancy_limit),
            padding=padding,
            block_ack_delay=control & 0x07,
            descriptor=descriptor,
            ack_reception=bool(rest) and bool(control & 0x40),
            session_cnt=session_cnt,
            mic=rest[2:6] or None,
        )
        return status

    def _delete(self, index: int) -> int:
        if self.session is None or self.session.index != index:
            return index | 0x04
        self.session = None
        return index

    def _data_fragment(self, body: bytes, now: float, *, multicast: bool) -> None:
        session = self.session
        if session is None or len(body) < 2:
            return
        head = int.from_bytes(body[:2], "little")
        counter, data = head & 0x3FFF, body[2:]
        if head >> 14 != session.index or len(data) != session.decoder.frag_size:
            self.counters.malformed += 1
            return
        if session.session_cnt is not None:
            self._last_session_cnt[session.index] = session.session_cnt
        if (counter, data) in self._seen:
            self.counters.bytes_received_twice += len(data)
        self._seen.add((counter, data))
        if session.settled:
            return
        taken = session.decoder.receive(counter, data)
        if taken in (Taken.STORED, Taken.USEFUL):
            self.counters.fragments_received += 1
            self.counters.coded_by_unicast += not multicast and counter > session.decoder.nb_frag
        else:
            self.counters.fragments_dropped += 1
        if session.decoder.complete:
            self._complete(session, now)
        elif taken is Taken.OVERFLOW and self._style is StatusStyle.LORAMAC and session.block is None:
            self._complete(session, now)  # LoRaMac-node takes its own memory error for the end: a wrong image

    def _complete(self, session: FragSession, now: float) -> None:
        decoder = session.decoder
        if session.block is None:
            session.block = bytes(decoder.memory[: len(decoder.memory) - session.padding])
            self._block_done(session.block)
        if self._style is StatusStyle.LBM and not decoder.overflowed and not decoder.coding:
            return  # SWL2001#101: a loss-free plain pass is not noticed before one coded fragment came
        session.settled = True
        if session.mic is not None and session.session_cnt is not None:
            mic = data_block_mic(self._int_key, session.session_cnt, session.index, session.descriptor, session.block)
            session.mic_error = mic != session.mic
            if session.ack_reception:
                session.tell_at = now

    def _block_received_answer(self, body: int) -> None:
        if self.session is not None and self.session.index == body & 0x03:
            self.session.tell_at = None

    def _status(self, request: int, *, multicast: bool) -> list[Answer]:
        index, participants = request >> 1 & 0x03, request & 0x01
        session = self.session
        if session is None or session.index != index:
            missing_session = bytes([_STATUS, _SESSION_DOES_NOT_EXIST, 0, index << 6, 0])
            return [Answer(missing_session)] if self.version >= 2 and not multicast else []
        if not participants and session.settled and not session.decoder.overflowed:
            return []
        self.counters.statuses_told += 1
        received, missing = self._count(session)
        head = (received & 0x3FFF) | index << 14
        error = _MEMORY_ERROR if session.decoder.overflowed else 0
        if self.version == 1:
            answer = struct.pack("<BHBB", _STATUS, head, missing, error)
        else:
            error |= _MIC_ERROR if session.mic_error else 0
            answer = struct.pack("<BBHB", _STATUS, error, head, missing)
        return [Answer(answer, _spread_s(session) if multicast else 0.0)]

    def _count(self, session: FragSession) -> tuple[int, int]:
        decoder = session.decoder
        if self._style is StatusStyle.LORAMAC:
            return decoder.last_counter, decoder.lost & 0xFF
        if self._style is StatusStyle.SPEC:
            return decoder.received, min(decoder.missing, 255)
        unnoticed = decoder.complete and not session.settled
        return decoder.last_counter - decoder.lost, (1 if unnoticed else decoder.missing) & 0xFF


def _spread_s(session: FragSession) -> float:
    return float(16 << session.block_ack_delay)
