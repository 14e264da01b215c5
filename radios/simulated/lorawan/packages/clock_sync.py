"""TS003, application layer clock synchronisation: port 202."""

import struct

from radios.simulated.lorawan.node_clock import NodeClock
from radios.simulated.lorawan.packages.commands import (
    PACKAGE_VERSION,
    Answer,
    package_version_answer,
    split_commands,
)

_APP_TIME, _PERIODICITY, _FORCE_RESYNC = 0x01, 0x02, 0x03
_LENGTHS = {PACKAGE_VERSION: 0, _APP_TIME: 5, _PERIODICITY: 1, _FORCE_RESYNC: 1}
_RESYNC_INTERVAL_S = 30.0


class ClockSync:
    package, port = 1, 202

    def __init__(self, clock: NodeClock, version: int, period_s: float | None, now: float) -> None:
        self.version = version
        self.corrections = 0
        self.malformed = 0
        self._clock = clock
        self._period_s = period_s
        self._next_at = None if period_s is None else now + period_s
        self._resyncs = 0
        self._token = 0

    def receive(self, payload: bytes, now: float, *, multicast: bool) -> list[Answer]:
        del multicast
        parsed = split_commands(payload, _LENGTHS)
        self.malformed += not parsed.complete
        answers: list[Answer] = []
        for cid, body in parsed.commands:
            if cid == PACKAGE_VERSION:
                answers.append(package_version_answer(self.package, self.version))
            elif cid == _APP_TIME:
                self._app_time_answer(body, now)
            elif cid == _PERIODICITY:
                self._period_s = float(128 << (body[0] & 0x0F))
                self._next_at = now + self._period_s
                answers.append(Answer(struct.pack("<BBI", _PERIODICITY, 0, int(self._clock.gps(now)) & 0xFFFFFFFF)))
            else:
                self._resyncs = body[0] & 0x07
                if self._resyncs:
                    self._next_at = now
        return answers

    def next_deadline(self) -> float | None:
        return self._next_at

    def handle_timeout(self, now: float) -> list[Answer]:
        """AppTimeReq when one is due. An answer is required only after a forced resync: else none means no error."""
        if self._next_at is None or now < self._next_at:
            return []
        forced = self._resyncs > 0
        self._resyncs = max(0, self._resyncs - 1)
        if self._resyncs:
            self._next_at = now + _RESYNC_INTERVAL_S
        else:
            self._next_at = None if self._period_s is None else now + self._period_s
        param = self._token | (0x10 if forced else 0)
        return [Answer(struct.pack("<BIB", _APP_TIME, int(self._clock.gps(now)) & 0xFFFFFFFF, param))]

    def _app_time_answer(self, body: bytes, now: float) -> None:
        correction, param = struct.unpack("<iB", body)
        if param & 0x0F != self._token:
            return  # an answer to an older request, held up in a queue
        self._token = (self._token + 1) & 0x0F
        self._clock.correct(correction, now)
        self.corrections += 1
        self._resyncs = 0
