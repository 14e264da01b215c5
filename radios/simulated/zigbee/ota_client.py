"""A node's OTA Upgrade client (ZCL 11), behaving as Silicon Labs' does: sans-I/O, time is an argument.

Responsible for asking, keeping, checking and asking again. Not for the reset into the new image: the node does that
when `take_install` says so. What is in flash (`staged`, `target`) survives `power_cycle`.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from radios.errors import ContractError
from radios.simulated.zigbee.firmware import FirmwareError, parse_ota_file
from radios.simulated.zigbee.ota_terms import OtaCounters, OtaState, OtaTiming, Target

IMAGE_NOTIFY, QUERY_REQUEST, QUERY_RESPONSE = 0x00, 0x01, 0x02
BLOCK_REQUEST, BLOCK_RESPONSE, END_REQUEST, END_RESPONSE = 0x03, 0x05, 0x06, 0x07

SUCCESS, MALFORMED_COMMAND, UNSUP_CLUSTER_COMMAND = 0x00, 0x80, 0x81
INSUFFICIENT_SPACE, ABORT, INVALID_IMAGE, WAIT_FOR_DATA, NO_IMAGE_AVAILABLE = 0x89, 0x95, 0x96, 0x97, 0x98

WAIT_FOREVER = 0xFFFFFFFF
_UNKNOWN_U32 = 0xFFFFFFFF
_LONGEST_WAIT_S = 3600.0
_WAIT_ON_NONSENSE_S = 300.0
_QUERY = struct.Struct("<BHHI")
_BLOCK = struct.Struct("<BHHIIB")
_BLOCK_DATA = struct.Struct("<BHHIIB")
_END = struct.Struct("<BHHI")
_UPGRADE = struct.Struct("<HHIII")


@dataclass(slots=True)
class _Pending:
    """What the one timer will do."""

    at: float
    action: Callable[[float], None]


@dataclass(slots=True)
class OtaClient:
    """`receive` takes what follows the ZCL header of a command from the server; commands to send are in `to_send`."""

    manufacturer: int
    image_type: int
    hardware_version: int | None
    verify: Callable[[bytes], bool]
    rng: random.Random
    timing: OtaTiming = field(default_factory=OtaTiming)
    block_size: int = 50
    slot_size: int = 512 * 1024
    apply_without_answer: bool = False  # UpgradeTimeoutPolicy 0
    query_after_giving_up: bool = False  # forgetful clients: a new query, so they start again at 0
    version: int = 0
    state: OtaState = OtaState.IDLE
    target: Target | None = None
    staged: bytearray = field(default_factory=bytearray)
    counters: OtaCounters = field(default_factory=OtaCounters)
    _out: list[tuple[int, bytes]] = field(default_factory=list)
    _pending: _Pending | None = None
    _errors: int = 0
    _minimum_block_period_s: float = 0.0
    _install: bytes | None = None
    _held_once: dict[int, int] = field(default_factory=dict)

    # ---- the outside

    def start(self, now: float, version: int) -> None:
        """The application runs (boot done, self-test passed) and reports `version`: go on with what flash holds, or ask."""
        self.version = version
        delay = self.rng.uniform(*self.timing.boot_query_delay_s)
        if self.target is not None and self.target.version == version:
            self._forget()
        if self.target is None:
            self._later(now + delay, self._query, OtaState.IDLE)
        else:
            self._later(now + min(delay, 1.0), self._resume, OtaState.PAUSED)

    def power_cycle(self) -> None:
        """RAM is lost; flash is kept. Nothing happens until `start`."""
        self.state = OtaState.IDLE
        self._pending = None
        self._out.clear()
        self._errors = 0
        self._install = None

    def to_send(self) -> list[tuple[int, bytes]]:
        """Command and payload of what is to be sent now; drained."""
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        return None if self._pending is None else self._pending.at

    def handle_timeout(self, now: float) -> None:
        if self._pending is not None and now >= self._pending.at:
            action = self._pending.action
            self._pending = None
            action(now)

    def take_install(self) -> bytes | None:
        """The verified image to start now, once."""
        image, self._install = self._install, None
        return image

    @property
    def awaits_answer(self) -> bool:
        """A sleepy node polls fast while this holds."""
        return self.state in (OtaState.QUERYING, OtaState.DOWNLOADING, OtaState.ENDING)

    @property
    def file_offset(self) -> int:
        return len(self.staged) if self.target is not None else _UNKNOWN_U32

    @property
    def downloaded_version(self) -> int:
        return self.target.version if self.target is not None else _UNKNOWN_U32

    @property
    def upgrade_status(self) -> int:
        """Attribute ImageUpgradeStatus."""
        match self.state:
            case OtaState.DOWNLOADING | OtaState.WAITING | OtaState.PAUSED | OtaState.VERIFYING:
                return 1
            case OtaState.ENDING:
                return 2
            case OtaState.HOLDING:
                return 3
            case OtaState.COUNTDOWN:
                return 4
            case _:
                return 0

    def receive(self, command: int, payload: bytes, now: float, *, broadcast: bool = False) -> int | None:
        """Take a command of the server. The status for a default response, or None when none is due."""
        try:
            match command:
                case 0x05:
                    self._block_response(payload, now)
                case 0x00:
                    self._image_notify(payload, now, broadcast)
                case 0x02:
                    self._query_response(payload, now)
                case 0x07:
                    self._end_response(payload, now)
                case _:
                    return UNSUP_CLUSTER_COMMAND
        except (struct.error, IndexError):
            return MALFORMED_COMMAND
        return None

    def default_response(self, command: int, status: int, now: float) -> None:
        """The server answered one of our requests with a mere status."""
        if command == BLOCK_REQUEST and self.state is OtaState.DOWNLOADING:
            if status in (ABORT, NO_IMAGE_AVAILABLE):
                self._throw_away(now)
            else:
                self.counters.responses_ignored += 1

    # ---- commands from the server

    def _image_notify(self, payload: bytes, now: float, broadcast: bool) -> None:
        kind, jitter = payload[0], payload[1]
        manufacturer, image_type, version = struct.unpack("<HHI", payload[2:].ljust(8, b"\xff")[:8])
        if kind >= 1 and manufacturer not in (self.manufacturer, 0xFFFF):
            return
        if kind >= 2 and image_type not in (self.image_type, 0xFFFF):
            return
        if kind >= 3 and version == self.version:
            return
        if broadcast and self.rng.randint(1, 100) > jitter:
            return
        if self.state is OtaState.IDLE:
            self._query(now)
        elif self.state is OtaState.PAUSED:
            self._resume(now)

    def _query_response(self, payload: bytes, now: float) -> None:
        if self.state is not OtaState.QUERYING:
            self.counters.responses_ignored += 1
            return
        if payload[0] != SUCCESS:
            self._rest(now)
            return
        manufacturer, image_type, version, size = struct.unpack_from("<HHII", payload, 1)
        if (manufacturer, image_type) != (self.manufacturer, self.image_type) or version == self.version:
            self._rest(now)
            return
        if size > self.slot_size:
            self._send(END_REQUEST, _END.pack(INSUFFICIENT_SPACE, manufacturer, image_type, version))
            self._rest(now)
            return
        whole = self.target == Target(version, size) and len(self.staged) == size
        if not whole:
            self._forget()
            self.target = Target(version, size)
            self.counters.downloads_started_at_zero += 1
        self._resume(now)

    def _block_response(self, payload: bytes, now: float) -> None:
        if self.state is not OtaState.DOWNLOADING or self.target is None:
            self.counters.responses_ignored += 1
            return
        status = payload[0]
        if status == SUCCESS:
            self._block_data(payload, self.target, now)
        elif status == WAIT_FOR_DATA:
            self._told_to_wait(payload, now)
        elif status in (ABORT, NO_IMAGE_AVAILABLE):
            self._throw_away(now)
        else:
            self.counters.responses_ignored += 1

    def _block_data(self, payload: bytes, target: Target, now: float) -> None:
        _, manufacturer, image_type, version, offset, length = _BLOCK_DATA.unpack_from(payload)
        data = payload[_BLOCK_DATA.size :]
        at = len(self.staged)
        if (
            (manufacturer, image_type, version) != (self.manufacturer, self.image_type, target.version)
            or offset != at
            or len(data) != length
            or not 0 < length <= self.block_size
            or at + length > target.size
        ):
            self.counters.responses_ignored += 1
            return
        self.staged += data
        at += length
        counters = self.counters
        counters.blocks_received += 1
        counters.bytes_received += length
        held = self._held_once.get(version, 0)
        if at > held:
            self._held_once[version] = at
        counters.bytes_received_twice += max(0, min(held, at) - offset)
        self._errors = 0
        if at == target.size:
            self._later(now + self.timing.verify_s, self._verify, OtaState.VERIFYING)
        else:
            self._later(
                now + max(self.timing.think_s, self._minimum_block_period_s), self._request_block, OtaState.DOWNLOADING
            )

    def _told_to_wait(self, payload: bytes, now: float) -> None:
        current, request = struct.unpack_from("<II", payload, 1)
        delay = float(request if current == 0 else request - current)
        if delay < 0:
            delay = _WAIT_ON_NONSENSE_S
        self.counters.told_to_wait += 1
        self._errors = 0
        wait = min(delay + self._minimum_block_period_s, _LONGEST_WAIT_S)
        self._later(now + max(wait, self.timing.think_s), self._request_block, OtaState.WAITING)

    def _end_response(self, payload: bytes, now: float) -> None:
        manufacturer, image_type, version, current, upgrade = _UPGRADE.unpack_from(payload)
        if self.target is None or self.state not in (OtaState.ENDING, OtaState.HOLDING, OtaState.COUNTDOWN):
            self.counters.responses_ignored += 1
            return
        if (
            manufacturer not in (self.manufacturer, 0xFFFF)
            or image_type not in (self.image_type, 0xFFFF)
            or version not in (self.target.version, 0xFFFFFFFF)
        ):
            self.counters.responses_ignored += 1
            return
        if upgrade == WAIT_FOREVER:
            self._later(now + self.timing.hold_interval_s, self._ask_to_upgrade, OtaState.HOLDING)
            return
        delay = float(upgrade if current == 0 else upgrade - current)
        self._later(now + max(0.0, delay), self._apply, OtaState.COUNTDOWN)

    # ---- what the timer does

    def _query(self, now: float) -> None:
        if self.state is not OtaState.QUERYING:
            self._errors = 0
        payload = _QUERY.pack(
            0 if self.hardware_version is None else 1, self.manufacturer, self.image_type, self.version
        )
        if self.hardware_version is not None:
            payload += struct.pack("<H", self.hardware_version)
        self._send(QUERY_REQUEST, payload)
        self._later(now + self._patience(), self._no_answer_to_query, OtaState.QUERYING)

    def _no_answer_to_query(self, now: float) -> None:
        self.counters.timeouts += 1
        self._errors += 1
        if self._errors >= self.timing.max_errors:
            self.counters.gave_up += 1
            self._later(now + self.timing.retry_later_s, self._query, OtaState.IDLE)
        else:
            self._query(now)

    def _resume(self, now: float) -> None:
        """Go on where flash ends."""
        target = self._aim()
        self._errors = 0
        if len(self.staged) == target.size:
            self._later(now + self.timing.verify_s, self._verify, OtaState.VERIFYING)
            return
        if self.staged:
            self.counters.downloads_resumed += 1
        self._request_block(now)

    def _request_block(self, now: float) -> None:
        self._send(
            BLOCK_REQUEST,
            _BLOCK.pack(0, self.manufacturer, self.image_type, self._aim().version, len(self.staged), self.block_size),
        )
        self._later(now + self._patience(), self._no_block, OtaState.DOWNLOADING)

    def _no_block(self, now: float) -> None:
        self.counters.timeouts += 1
        self._errors += 1
        if self._errors < self.timing.max_errors:
            self._request_block(now)
            return
        self.counters.gave_up += 1
        again = self._query if self.query_after_giving_up else self._resume
        self._later(now + self.timing.retry_later_s, again, OtaState.PAUSED)

    def _verify(self, now: float) -> None:
        image, version = bytes(self.staged), self._aim().version
        if self._acceptable(image):
            self._errors = 0
            self._ask_to_upgrade(now)
            return
        self.counters.images_refused += 1
        self._send(END_REQUEST, _END.pack(INVALID_IMAGE, self.manufacturer, self.image_type, version))
        self._forget()
        self._rest(now)

    def _acceptable(self, image: bytes) -> bool:
        try:
            file = parse_ota_file(image)
        except FirmwareError:
            return False
        if (file.manufacturer, file.image_type, file.version) != (
            self.manufacturer,
            self.image_type,
            self._aim().version,
        ):
            return False
        if file.hardware_versions is not None and self.hardware_version is not None:
            low, high = file.hardware_versions
            if not low <= self.hardware_version <= high:
                return False
        return self.verify(image)

    def _ask_to_upgrade(self, now: float) -> None:
        if self.state is OtaState.HOLDING:
            self._errors = 0
        self._send(END_REQUEST, _END.pack(SUCCESS, self.manufacturer, self.image_type, self._aim().version))
        self._later(now + self.timing.end_retry_s, self._no_end_answer, OtaState.ENDING)

    def _no_end_answer(self, now: float) -> None:
        self.counters.timeouts += 1
        self._errors += 1
        if self._errors < self.timing.end_attempts:
            self._ask_to_upgrade(now)
        elif self.apply_without_answer:
            self._apply(now)
        else:
            self._later(now + self.timing.retry_later_s, self._ask_to_upgrade, OtaState.HOLDING)

    def _apply(self, _now: float) -> None:
        self._install = bytes(self.staged)
        self._forget()
        self.state = OtaState.IDLE

    def _throw_away(self, now: float) -> None:
        self.counters.downloads_thrown_away += 1
        self._forget()
        self._rest(now)

    # ---- small things

    def _aim(self) -> Target:
        if self.target is None:
            raise ContractError("the OTA client has no target in a state that needs one")
        return self.target

    def _forget(self) -> None:
        self.target = None
        self.staged = bytearray()

    def _rest(self, now: float) -> None:
        self._later(now + self.timing.query_interval_s, self._query, OtaState.IDLE)

    def _later(self, at: float, action: Callable[[float], None], state: OtaState) -> None:
        self.state = state
        self._pending = _Pending(at, action)

    def _patience(self) -> float:
        return self.rng.uniform(*self.timing.response_timeout_s)

    def _send(self, command: int, payload: bytes) -> None:
        self.counters.requests_sent += 1
        self._out.append((command, payload))
