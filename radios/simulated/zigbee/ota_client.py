"""A node's OTA Upgrade client (ZCL 11), behaving as Silicon Labs' does: sans-I/O, time is an argument.

Responsible for asking, keeping, checking and asking again. Not for the reset into the new image: the node does that
when `take_install` says so. What is in flash (`staged`, `target`) survives `power_cycle`.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from radios.simulated.zigbee import ota_requests as requests
from radios.simulated.zigbee.download import Download
from radios.simulated.zigbee.ota_requests import Identity, Page
from radios.simulated.zigbee.ota_terms import OtaCounters, OtaHabits, OtaState, OtaTiming, Status, Target

WAIT_FOREVER = 0xFFFFFFFF
_LONGEST_WAIT_S = 3600.0
_WAIT_ON_NONSENSE_S = 300.0
_UNANSWERED_PAGES = 3  # then it asks by blocks
_UPGRADE = struct.Struct("<HHIII")


@dataclass(slots=True)
class _Pending:
    """What the one timer will do."""

    at: float
    action: Callable[[float], None]


@dataclass(slots=True)
class OtaClient:
    """`receive` takes what follows the ZCL header of a command from the server; commands to send are in `to_send`."""

    eui64: int
    manufacturer: int
    image_type: int
    hardware_version: int | None
    verify: Callable[[bytes], bool]
    rebuild: Callable[[bytes], bytes | None]  # the image that a file in flash is or makes; None: it makes none
    rng: random.Random
    timing: OtaTiming = field(default_factory=OtaTiming)
    habits: OtaHabits = field(default_factory=OtaHabits)
    block_size: int = 50
    slot_size: int = 512 * 1024
    version: int = 0
    minimum_block_period: int = 0  # the attribute: milliseconds, or seconds in cluster revision 2
    specific_answers: list[int] = field(default_factory=list)  # statuses of QuerySpecificFileResponses
    state: OtaState = OtaState.IDLE
    counters: OtaCounters = field(default_factory=OtaCounters)
    _out: list[tuple[int, bytes]] = field(default_factory=list)
    _pending: _Pending | None = None
    _errors: int = 0
    _pages_refused: bool = False
    _pages_unanswered: int = 0
    _install: bytes | None = None
    download: Download = field(init=False)

    def __post_init__(self) -> None:
        self.download = Download(self.manufacturer, self.image_type, self.block_size, self.counters)

    # ---- the outside

    def start(self, now: float, version: int) -> None:
        """The application runs (boot done, self-test passed) and reports `version`: go on with what flash holds, or ask."""
        self.version = version
        delay = self.rng.uniform(*self.timing.boot_query_delay_s)
        if self.target is not None and self.target.version == version:
            self.download.forget()
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
        self.download.page, self._pages_refused, self._pages_unanswered = None, False, 0
        self.minimum_block_period = self.habits.minimum_block_period or 0

    def ask_specific_file(self, version: int) -> None:
        """Send a QuerySpecificFileRequest for a file of this version; the answer's status comes to `specific_answers`."""
        self._send(requests.SPECIFIC_REQUEST, requests.specific_request(self._identity, self.eui64, version))

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
    def target(self) -> Target | None:
        """The image that is being downloaded, or waits to be installed."""
        return self.download.target

    @property
    def staged(self) -> bytearray:
        """Its bytes in flash, up to the first hole."""
        return self.download.staged

    @property
    def awaits_answer(self) -> bool:
        """A sleepy node polls fast while this holds."""
        return self.state in (OtaState.QUERYING, OtaState.DOWNLOADING, OtaState.ENDING)

    @property
    def file_offset(self) -> int:
        return self.download.file_offset

    @property
    def upgrade_status(self) -> int:
        """Attribute ImageUpgradeStatus."""
        if self.target is None:
            return 0
        return {OtaState.ENDING: 2, OtaState.HOLDING: 3, OtaState.COUNTDOWN: 4}.get(self.state, 1)

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
                case 0x09:
                    self.specific_answers.append(payload[0])
                case _:
                    return Status.UNSUP_CLUSTER_COMMAND
        except (struct.error, IndexError):
            return Status.MALFORMED_COMMAND
        return None

    def default_response(self, command: int, status: int, now: float) -> None:
        """The server answered one of our requests with a mere status."""
        if self.state is not OtaState.DOWNLOADING:
            return
        if command == requests.PAGE_REQUEST and status != Status.SUCCESS:
            self._pages_refused = True
            self.download.page = None
            self._later(now + self.timing.think_s, self._ask, OtaState.DOWNLOADING)
        elif command == requests.BLOCK_REQUEST:
            if status in (Status.ABORT, Status.NO_IMAGE_AVAILABLE):
                self._throw_away(now)
            else:
                self.counters.responses_ignored += 1

    # ---- commands from the server

    def _image_notify(self, payload: bytes, now: float, broadcast: bool) -> None:
        if not requests.notify_concerns(payload, self.manufacturer, self.image_type, self.version):
            return
        if broadcast and self.rng.randint(1, 100) > payload[1]:
            return
        if self.state is OtaState.IDLE:
            self._query(now)
        elif self.state is OtaState.PAUSED:
            self._resume(now)

    def _query_response(self, payload: bytes, now: float) -> None:
        if self.state is not OtaState.QUERYING:
            self.counters.responses_ignored += 1
            return
        if payload[0] != Status.SUCCESS:
            self._rest(now)
            return
        manufacturer, image_type, version, size = struct.unpack_from("<HHII", payload, 1)
        if (manufacturer, image_type) != (self.manufacturer, self.image_type) or version == self.version:
            self._rest(now)
            return
        if size > self.slot_size:
            self._end(Status.INSUFFICIENT_SPACE, version)
            self._rest(now)
            return
        whole = self.target == Target(version, size) and len(self.staged) == size
        if not whole:
            self.download.forget()
            self.download.target = Target(version, size)
            self.counters.downloads_started_at_zero += 1
        self._resume(now)

    def _block_response(self, payload: bytes, now: float) -> None:
        if self.state is not OtaState.DOWNLOADING or self.target is None:
            self.counters.responses_ignored += 1
            return
        status = payload[0]
        if status == Status.SUCCESS:
            self._block_data(payload, self.target, now)
        elif status == Status.WAIT_FOR_DATA:
            self._told_to_wait(payload, now)
        elif status in (Status.ABORT, Status.NO_IMAGE_AVAILABLE):
            self._throw_away(now)
        else:
            self.counters.responses_ignored += 1

    def _block_data(self, payload: bytes, target: Target, now: float) -> None:
        end = self.download.take(payload)
        if end is None:
            return
        self._errors = 0
        page = self.download.page
        if len(self.staged) == target.size:
            self._later(now + self.timing.verify_s, self._verify, OtaState.VERIFYING)
        elif page is not None and not page.over and len(self.staged) < page.end:
            patience_s = page.patience_s(end, self.block_size, self.timing.page_slack_s)
            self._later(now + patience_s, self._page_over, OtaState.DOWNLOADING)
        else:
            self._later(now + max(self.timing.think_s, self._block_period_s), self._ask, OtaState.DOWNLOADING)

    def _told_to_wait(self, payload: bytes, now: float) -> None:
        if self.habits.wait_without_period_only and len(payload) > 9:
            raise IndexError  # to such a client the frame is malformed
        current, request = struct.unpack_from("<II", payload, 1)
        delay = float(request if current == 0 else request - current)
        if delay < 0:
            delay = _WAIT_ON_NONSENSE_S
        self.counters.told_to_wait += 1
        self._errors = 0
        if self.habits.minimum_block_period is not None and len(payload) >= 11:
            (period,) = struct.unpack_from("<H", payload, 9)
            self.counters.block_periods_taken += period != self.minimum_block_period
            self.minimum_block_period = period
        wait = min(delay + self._block_period_s, _LONGEST_WAIT_S)
        self.download.page = None
        self._later(now + max(wait, self.timing.think_s), self._ask, OtaState.WAITING)

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
        self._send(requests.QUERY_REQUEST, requests.query_request(self._identity, self.version, self.hardware_version))
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
        target = self.download.aim()
        self._errors = 0
        if len(self.staged) == target.size:
            self._later(now + self.timing.verify_s, self._verify, OtaState.VERIFYING)
            return
        if self.staged:
            self.counters.downloads_resumed += 1
        self._ask(now)

    def _ask(self, now: float) -> None:
        """The next page, or a block: one that a page left out, or because there are no pages."""
        at, page_size = len(self.staged), self.habits.page_size
        if self.download.page is not None and at >= self.download.page.end:
            self.download.page = None
        if self.download.page is None and page_size is not None and not self._pages_refused:
            self._request_page(at, page_size, now)
            return
        period = None if self.habits.minimum_block_period is None else self.minimum_block_period
        version = self.download.aim().version
        self._send(requests.BLOCK_REQUEST, requests.block_request(self._identity, version, at, self.block_size, period))
        self._later(now + self._patience(), self._no_block, OtaState.DOWNLOADING)

    def _request_page(self, at: int, page_size: int, now: float) -> None:
        target, spacing_ms = self.download.aim(), self.habits.page_spacing_ms
        self.download.page = Page(at, min(at + page_size, target.size), spacing_ms / 1000)
        asked = requests.page_request(self._identity, target.version, at, self.block_size, page_size, spacing_ms)
        self._send(requests.PAGE_REQUEST, asked)
        self._later(now + self._patience() + self.download.page.spacing_s, self._page_over, OtaState.DOWNLOADING)

    def _page_over(self, now: float) -> None:
        """No more blocks come by themselves."""
        page = self.download.page
        if page is not None and page.heard:
            page.over = True
            self._pages_unanswered = 0
            self._ask(now)
            return
        self.download.page = None
        self._pages_unanswered += 1
        if self._pages_unanswered >= _UNANSWERED_PAGES:
            self._pages_refused = True
        self._no_block(now)

    def _no_block(self, now: float) -> None:
        self.counters.timeouts += 1
        self._errors += 1
        if self._errors < self.timing.max_errors:
            self._ask(now)
            return
        self.counters.gave_up += 1
        again = self._query if self.habits.query_after_giving_up else self._resume
        self._later(now + self.timing.retry_later_s, again, OtaState.PAUSED)

    def _verify(self, now: float) -> None:
        version = self.download.aim().version
        image = self.rebuild(bytes(self.staged))
        if image is not None and self.download.acceptable(image, self.hardware_version) and self.verify(image):
            self._errors = 0
            self._ask_to_upgrade(now)
            return
        self.counters.images_refused += 1
        self._end(Status.INVALID_IMAGE, version)
        self.download.forget()
        self._rest(now)

    def _ask_to_upgrade(self, now: float) -> None:
        if self.state is OtaState.HOLDING:
            self._errors = 0
        self._end(Status.SUCCESS, self.download.aim().version)
        self._later(now + self.timing.end_retry_s, self._no_end_answer, OtaState.ENDING)

    def _no_end_answer(self, now: float) -> None:
        self.counters.timeouts += 1
        self._errors += 1
        if self._errors < self.timing.end_attempts:
            self._ask_to_upgrade(now)
        elif self.habits.apply_without_answer:
            self._apply(now)
        else:
            self._later(now + self.timing.retry_later_s, self._ask_to_upgrade, OtaState.HOLDING)

    def _apply(self, _now: float) -> None:
        self._install = self.rebuild(bytes(self.staged))
        self.download.forget()
        self.state = OtaState.IDLE

    def _throw_away(self, now: float) -> None:
        self.counters.downloads_thrown_away += 1
        self.download.forget()
        self._rest(now)

    # ---- small things

    @property
    def _identity(self) -> Identity:
        return Identity(self.manufacturer, self.image_type, self.eui64 if self.habits.tells_eui64 else None)

    @property
    def _block_period_s(self) -> float:
        return self.minimum_block_period * (1.0 if self.habits.cluster_revision == 2 else 0.001)

    def _end(self, status: int, version: int) -> None:
        if status != Status.SUCCESS and self.habits.short_end_on_error:
            self._send(requests.END_REQUEST, bytes((status,)))
        else:
            self._send(requests.END_REQUEST, requests.end_request(self._identity, status, version))

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
