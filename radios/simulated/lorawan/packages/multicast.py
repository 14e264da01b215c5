"""TS005, remote multicast setup: port 200. Groups, their keys and counters, class B and C sessions."""

import struct
from dataclasses import dataclass

from radios.simulated.lorawan.crypto import mc_app_s_key, mc_key_from_encrypted, mc_nwk_s_key
from radios.simulated.lorawan.node_clock import NodeClock
from radios.simulated.lorawan.packages.commands import (
    PACKAGE_VERSION,
    Answer,
    package_version_answer,
    split_commands,
)
from radios.simulated.lorawan.phy import Activation
from radios.simulated.lorawan.ping_slots import BEACON_PERIOD_S
from radios.simulated.lorawan.region import DATA_RATES, HIGHEST_HZ, LOWEST_HZ

_STATUS, _SETUP, _DELETE, _CLASS_C, _CLASS_B = 0x01, 0x02, 0x03, 0x04, 0x05
_LENGTHS = {PACKAGE_VERSION: 0, _STATUS: 1, _SETUP: 29, _DELETE: 1, _CLASS_C: 10, _CLASS_B: 10}
_DR_ERROR, _FREQ_ERROR, _GROUP_UNDEFINED, _START_MISSED = 0x04, 0x08, 0x10, 0x20
_ID_ERROR = 0x04


@dataclass(slots=True)
class McGroup:
    """One multicast group; `next_f_cnt` is the lowest counter still taken, below `max_f_cnt`."""

    session: Activation
    next_f_cnt: int
    max_f_cnt: int


@dataclass(frozen=True, slots=True)
class GroupSession:
    """A window [opens_at, closes_at) in true Unix seconds; `periodicity`: of class B's ping slots, None in class C."""

    group: int
    opens_at: float
    closes_at: float
    frequency_hz: int
    data_rate: int
    periodicity: int | None = None


class RemoteMulticast:
    package, port = 2, 200

    def __init__(
        self, clock: NodeClock, version: int, ke_key: bytes, max_groups: int = 4, *, class_b: bool = False
    ) -> None:
        """`class_b`: its sessions are class B ones, and class C is not there."""
        self.version = version
        self.groups: dict[int, McGroup] = {}
        self.sessions: dict[int, GroupSession] = {}
        self.malformed = 0
        self.sessions_opened = 0
        self._clock = clock
        self._ke_key = ke_key
        self._max_groups = max_groups
        self._class_b = class_b

    def receive(self, payload: bytes, now: float, *, multicast: bool) -> list[Answer]:
        parsed = split_commands(payload, _LENGTHS)
        self.malformed += not parsed.complete
        if multicast:
            return []  # everything of this package is unicast only
        return [Answer(self._command(cid, body, now)) for cid, body in parsed.commands]

    def next_deadline(self) -> float | None:
        return min((session.closes_at for session in self.sessions.values()), default=None)

    def handle_timeout(self, now: float) -> list[Answer]:
        self.sessions = {group: s for group, s in self.sessions.items() if now < s.closes_at}
        return []

    def open_session(self, now: float) -> GroupSession | None:
        """The window that is open now, the latest opened when they overlap."""
        opened = [s for s in self.sessions.values() if s.opens_at <= now < s.closes_at]
        return max(opened, key=lambda s: s.opens_at, default=None)

    def _command(self, cid: int, body: bytes, now: float) -> bytes:
        if cid == PACKAGE_VERSION:
            return package_version_answer(self.package, self.version).payload
        if cid == _STATUS:
            return self._status(body[0] & 0x0F)
        if cid == _SETUP:
            return self._set_up(body)
        if cid == _DELETE:
            return self._delete(body[0] & 0x03)
        return self._session_request(cid, body, now)

    def _status(self, mask: int) -> bytes:
        told = {group: held for group, held in sorted(self.groups.items()) if mask >> group & 1}
        answer_mask = sum(1 << group for group in told)
        items = b"".join(bytes([g]) + held.session.dev_addr.to_bytes(4, "little") for g, held in told.items())
        return bytes([_STATUS, answer_mask | len(self.groups) << 4]) + items

    def _set_up(self, body: bytes) -> bytes:
        group = body[0] & 0x03
        if group >= self._max_groups:
            return bytes([_SETUP, group | _ID_ERROR])
        addr, encrypted, min_f_cnt, max_f_cnt = struct.unpack("<I16sII", body[1:])
        key = mc_key_from_encrypted(self._ke_key, encrypted)
        session = Activation(addr, mc_nwk_s_key(key, addr), mc_app_s_key(key, addr))
        self.groups[group] = McGroup(session, min_f_cnt, max_f_cnt)
        self.sessions.pop(group, None)
        return bytes([_SETUP, group])

    def _delete(self, group: int) -> bytes:
        self.sessions.pop(group, None)
        known = self.groups.pop(group, None) is not None
        return bytes([_DELETE, group | (0 if known else 0x04)])

    def _session_request(self, cid: int, body: bytes, now: float) -> bytes:
        group = body[0] & 0x03
        start_gps, span = int.from_bytes(body[1:5], "little"), body[5]
        frequency_hz = int.from_bytes(body[6:9], "little") * 100
        data_rate = body[9]
        gps = self._clock.gps(now)
        # SessionTime is modulo 2^32 seconds: the signed distance to now says past or future.
        to_start = ((start_gps - int(gps) + 2**31) % 2**32) - 2**31
        status = group
        if group not in self.groups:
            status |= _GROUP_UNDEFINED
        wants_b = cid == _CLASS_B
        if data_rate not in DATA_RATES or wants_b is not self._class_b or (wants_b and start_gps % BEACON_PERIOD_S):
            status |= _DR_ERROR  # there is no bit for a class that the node cannot do
        if not LOWEST_HZ <= frequency_hz < HIGHEST_HZ:
            status |= _FREQ_ERROR
        if status == group and to_start < 0:
            status |= _START_MISSED if self.version >= 2 else _GROUP_UNDEFINED
        if status != group:
            return bytes([cid, status])
        opens_at = now + (int(gps) + to_start - gps)
        closes_at = opens_at + float(1 << (span & 0x0F)) * (BEACON_PERIOD_S if wants_b else 1)
        periodicity = span >> 4 & 0x07 if wants_b else None
        self.sessions[group] = GroupSession(group, opens_at, closes_at, frequency_hz, data_rate, periodicity)
        self.sessions_opened += 1
        return bytes([cid, status]) + min(to_start, 0xFFFFFF).to_bytes(3, "little")
