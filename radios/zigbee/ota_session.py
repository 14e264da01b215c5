"""One node's download as a state machine without I/O: frames, directives and the time go in, frames and facts come out.

The order of use is `receive` (or another input), then `pending_commit`; when that is something, make it durable and say
`committed`; only then does `to_send` give frames out. So no frame can tell a node to act on a state that a crash would
forget. Re-arm one timer with `next_deadline`, call `handle_timeout` when it is past.

Responsible for one node and one transfer. Which file it is, was verified before; how much the mesh takes, `pacing` says.
"""

from typing import Final

from radios.errors import FrameError, ImageError
from radios.radio import Fact, NodeDirective, Want
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
    ClientCommand,
    ImageBlock,
    ImageBlockRefused,
    ImageBlockRequest,
    ImagePageRequest,
    QueryNextImageRequest,
    QueryNextImageResponse,
    QuerySpecificFileRequest,
    QuerySpecificFileResponse,
    Status,
    UpgradeEndRequest,
    UpgradeEndResponse,
)
from radios.zigbee.ota_frames import decode_command, decode_header, knows, reply
from radios.zigbee.session_core import WANTS_IMAGE, Outgoing, Purpose, SessionCore, Timer
from radios.zigbee.session_state import (
    Stage,
)

_FAILURE_CODES: Final = {
    Status.INVALID_IMAGE: "invalid_image",
    Status.INSUFFICIENT_SPACE: "no_space",
    Status.ABORT: "aborted",
    Status.REQUIRE_MORE_IMAGE: "require_more_image",
    Status.NOT_AUTHORIZED: "refused",
}


class OtaSession(SessionCore):
    """See the module."""

    # -- inputs --------------------------------------------------------------------------------------------------

    def direct(self, directive: NodeDirective, now: float) -> None:
        """The daemon's word on this node in this transfer. An older generation is ignored, the same one reconciles."""
        first = not self._reconciled
        self._reconciled = True
        if directive.generation > self._generation:
            self._generation = directive.generation
            self._adopt(directive, now)
        elif first:
            self._arm(now)

    def receive(self, frame: bytes, endpoint: int, now: float) -> None:
        """A cluster-specific frame of the node's OTA client. Never raises for what is in it."""
        self.heard(now)
        try:
            header, payload = decode_header(frame)
        except FrameError:
            return  # no sequence number, so no answer could be matched
        self._endpoint = endpoint
        if not knows(header):
            self._reply_default(header.command, Status.UNSUP_CLUSTER_COMMAND, header.tsn, now)
            return
        try:
            command = decode_command(header, payload)
        except FrameError:
            self._reply_default(header.command, Status.MALFORMED_COMMAND, header.tsn, now)
            return
        if isinstance(command, ImageBlockRequest):
            self._image_block(command, header.tsn, now)
        elif isinstance(command, ClientCommand):
            self._other_command(command, header.command, header.tsn, now)

    def heard(self, now: float) -> None:
        """Anything came from the node: it is awake. Silence after INSTALLING counts as its reboot."""
        silence = now - self._last_heard
        self._last_heard = now
        if self._stage is Stage.INSTALLING and silence >= self._limits.old_version_after_s:
            self._rebooted = True
        if self._stage is Stage.INSTALLING and not self._told and Timer.INSTALL in self._timers:
            self._timers[Timer.INSTALL] = now  # what found it asleep may reach it now
        if (
            self._stage is Stage.OFFERED
            and Timer.NOTIFY in self._timers
            and now - self._notified_at >= self._limits.notify_heard_interval_s * 2 ** min(self._notifies, 6)
        ):
            self._timers[Timer.NOTIFY] = now

    def rebooted(self, now: float) -> None:
        """The node announced itself or joined again."""
        self._last_heard = now
        if self._stage in (Stage.INSTALLING, Stage.RUNNING):
            self._rebooted = True
            self._notifies = 0
            self._timers[Timer.NOTIFY] = now + 2.0  # for its version, if it does not ask by itself
        elif self._stage is Stage.OFFERED and Timer.NOTIFY in self._timers:
            self._notifies = 0
            self._timers[Timer.NOTIFY] = now + 2.0

    def link_up(self, endpoint: int, now: float) -> None:
        """The radio is there (again): what was sent before may be lost. `endpoint` is where the OTA client is."""
        if self._stage is Stage.OFFERED:
            self._endpoint = endpoint
        if self._reconciled:
            self._arm(now)

    def version_read(self, version: int, now: float) -> None:
        """The node says (query or CurrentFileVersion) which version it runs."""
        if self._stage in (Stage.DROPPING, Stage.DROPPED):
            return
        if self._stage is Stage.RUNNING:
            self._timers.pop(Timer.NOTIFY, None)
        if version == self.image.ref.version:
            if not (self._stage is Stage.RUNNING and self._running_version == version):
                self._runs(version, now)
        elif self._stage is Stage.INSTALLING:
            # Until its reboot the node says the old version although the new one is about to start.
            if self._rebooted:
                self._runs(version, now)
        elif (self._stage is Stage.RUNNING and self._running_version != version) or (
            self._stage is Stage.FAILED and self._code == "lost"
        ):
            self._runs(version, now)

    def refused(self, command: int, status: int, now: float) -> None:
        """The node answered one of our frames with a default response other than SUCCESS."""
        if self._stage in (Stage.OFFERED, Stage.DOWNLOADING):
            self._stalled("refused", now, f"command {command:#04x} answered with status {status:#04x}")

    def delivered(self, frame: Outgoing, ok: bool, now: float) -> None:
        """What became of a frame of `to_send`."""
        if frame.purpose is Purpose.INSTALL and not ok and self._stage is Stage.INSTALLING:
            self._told = False
            retry = min(self._limits.install_retry_s * 2**self._install_tries, self._limits.max_install_retry_s)
            self._install_tries += 1
            self._timers[Timer.INSTALL] = now + retry

    def handle_timeout(self, now: float) -> None:
        """Run what is due."""
        for timer in [timer for timer, at in self._timers.items() if at <= now]:
            if self._timers.get(timer, now + 1) > now:
                continue  # what ran before moved or ended it
            del self._timers[timer]
            if timer is Timer.NOTIFY:
                self._notify_due(now)
            elif timer is Timer.STALL:
                self._pacer.release(self.node)
                self._stalled("silent", now, f"no request for {self._limits.stall_after_s:.0f} s")
                self._timers[Timer.NOTIFY] = now + self._limits.renotify_stalled_after_s
            elif timer is Timer.INSTALL:
                self._install_if_due(now)
            elif timer is Timer.LOST and self._stage is Stage.INSTALLING:
                self._fail("lost", now, f"not back {self._limits.lost_after_s:.0f} s after the install")
            elif timer is Timer.DROP and self._stage is Stage.DROPPING:
                self._dropped(now)

    # -- commands of the node ------------------------------------------------------------------------------------

    def _image_block(self, request: ImageBlockRequest, tsn: int, now: float) -> None:
        limits = self._limits
        size = self.image.ref.size
        if not self._reconciled:
            waited = int(now - self._started_at)
            wait = min(max(limits.unreconciled_wait_s, waited // 4), limits.max_unreconciled_wait_s)
            self._wait(request, wait, tsn, now)
        elif self._stage in (Stage.DROPPING, Stage.DROPPED):
            self._reply(ImageBlockRefused(Status.ABORT), tsn, now)
            if self._stage is Stage.DROPPING:
                self._dropped(now)
        elif request.file != self.image.file or self._stage in (Stage.FAILED, Stage.RUNNING):
            self._reply(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), tsn, now)
            if self._stage is Stage.OFFERED and self._want in WANTS_IMAGE:
                self._timers[Timer.NOTIFY] = now + limits.notify_interval_s  # it holds another file: offer ours
        elif request.offset >= size or request.max_data == 0:
            self._reply_default(0x03, Status.MALFORMED_COMMAND, tsn, now)
        elif self._want is Want.HOLD:
            self._proven(request.offset, now)
            self._wait(request, limits.hold_wait_s, tsn, now)
        elif self._stage is Stage.OFFERED and now >= self.terms.expires_at and request.offset == 0:
            self._reply(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), tsn, now)
            self._stalled("expired", now, "the transfer may start on no further node")
        else:
            self._serve(request, tsn, now)

    def _serve(self, request: ImageBlockRequest, tsn: int, now: float) -> None:
        self._proven(request.offset, now)
        if self._stage is Stage.DOWNLOADING:
            self._timers[Timer.STALL] = now + self._limits.stall_after_s
        grant = self._pacer.ask(self.node, now, self.terms.priority, self.terms.air_share)
        if grant.serve_at is None:
            self._wait(request, grant.come_back_s, tsn, now)
            return
        length = min(request.max_data, self._max_block_bytes, self.image.ref.size - request.offset)
        try:
            data = self._read(request.offset, length)
        except ImageError as error:
            self._stalled("image_unavailable", now, str(error))
            self._wait(request, self._limits.image_unavailable_wait_s, tsn, now)
            return
        frame = reply(ImageBlock(self.image.file, request.offset, data), tsn)
        self._answer = (grant.serve_at, now, Outgoing(frame, self._endpoint, Purpose.BLOCK))

    def _proven(self, offset: int, now: float) -> None:
        """A request for `offset` proves [0, offset): the client asks in order and asks again for what it lost."""
        started = self._restarts
        if self._stage is Stage.OFFERED or (self._stage is Stage.READY and self._restarts):
            self._stage = Stage.DOWNLOADING
            self._notifies = 0
            started = True
        if self._stage is not Stage.DOWNLOADING:
            return  # a late duplicate after the end
        self._timers.pop(Timer.NOTIFY, None)
        confirmed = min(self._confirmed, offset) if self._restarts else max(self._confirmed, offset)
        self._restarts = False
        if started or self._is_worth_telling(confirmed, now):
            self._progress_at = now
            self._progress_told = confirmed
            self._progress = self._make_event(Fact.PROGRESS, now, confirmed=confirmed)
        self._confirmed = confirmed

    def _is_worth_telling(self, confirmed: int, now: float) -> bool:
        """With many nodes each gets few blocks a second: to tell of each block would cost more than to serve it."""
        if confirmed == self._confirmed:
            return False
        limits, since = self._limits, now - self._progress_at
        moved = abs(confirmed - self._progress_told) >= limits.progress_step * self.image.ref.size
        return since >= (limits.progress_interval_s if moved else limits.max_progress_interval_s)

    def _other_command(self, command: ClientCommand, command_id: int, tsn: int, now: float) -> None:
        if isinstance(command, QueryNextImageRequest):
            self._query(command, tsn, now)
        elif isinstance(command, UpgradeEndRequest):
            self._upgrade_end(command, tsn, now)
        elif isinstance(command, ImagePageRequest):
            # The client falls back to block requests, which can be paced and lost one by one.
            self._reply_default(command_id, Status.UNSUP_CLUSTER_COMMAND, tsn, now)
        elif isinstance(command, QuerySpecificFileRequest):
            self._reply(QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE), tsn, now)

    def _query(self, query: QueryNextImageRequest, tsn: int, now: float) -> None:
        file = self.image.file
        same = (query.manufacturer, query.image_type) == (file.manufacturer, file.image_type)
        if same:
            self.version_read(query.version, now)
        offer = self._reconciled and self._want in WANTS_IMAGE
        offer = offer and self._stage in (Stage.OFFERED, Stage.DOWNLOADING, Stage.READY)
        if offer and not same:
            # One node may hold several images and ask for each.
            self._stalled("other_hardware", now, f"asks for {query.manufacturer:04x}-{query.image_type:04x}")
            offer = False
        elif offer and not self._fits(query.hardware_version):
            self._fail("wrong_hardware", now, f"hardware version {query.hardware_version} is not for this image")
            offer = False
        elif offer and self._stage is Stage.OFFERED and now >= self.terms.expires_at:
            self._stalled("expired", now, "the transfer may start on no further node")
            offer = False
        if not offer:
            self._reply(QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE), tsn, now)
            return
        self._restarts = True
        if self._stage is Stage.OFFERED:
            self._timers[Timer.NOTIFY] = now + self._limits.renotify_stalled_after_s
        self._reply(QueryNextImageResponse(Status.SUCCESS, file, self.image.ref.size), tsn, now)

    def _fits(self, hardware_version: int | None) -> bool:
        low, high = self.image.min_hardware, self.image.max_hardware
        return hardware_version is None or low is None or high is None or low <= hardware_version <= high

    def _upgrade_end(self, request: UpgradeEndRequest, tsn: int, now: float) -> None:
        if request.status != Status.SUCCESS or request.file is None:
            self._reply_default(0x06, Status.SUCCESS, tsn, now)
            self._download_failed(request.status, now)
            return
        if request.file != self.image.file or self._stage in (Stage.FAILED, Stage.DROPPED, Stage.DROPPING):
            # Without an answer it might start the image by itself.
            self._reply(UpgradeEndResponse(request.file, 0, WAIT_FOREVER), tsn, now)
            if self._stage is Stage.DROPPING:
                self._dropped(now)
            return
        if self._stage in (Stage.OFFERED, Stage.DOWNLOADING):
            self._timers.clear()
            self._pacer.release(self.node)
            self._stage = Stage.READY
            self._restarts = False
            self._progress = None
            self._confirmed = self.image.ref.size
            self._event(Fact.COMPLETE, now, confirmed=self._confirmed)
            self._event(Fact.READY, now, confirmed=self._confirmed)
        self._install_if_due(now)
        if self._stage is Stage.INSTALLING:
            self._install_answer = (now, tsn)
            self._told = False
            self._timers.pop(Timer.INSTALL, None)
        else:
            self._reply(UpgradeEndResponse(self.image.file, 0, WAIT_FOREVER), tsn, now)

    def _download_failed(self, status: int, now: float) -> None:
        if self._stage not in (Stage.DOWNLOADING, Stage.READY, Stage.INSTALLING):
            return  # a repeat
        self._pacer.release(self.node)
        self._timers.clear()
        self._failures += 1
        self._confirmed = 0
        self._restarts = False
        code = _FAILURE_CODES.get(Status(status) if status in _STATUS_VALUES else Status.FAILURE, "refused")
        if self._failures >= self._limits.max_failures or self._stage is Stage.INSTALLING:
            self._fail(code, now, f"the node ended {self._failures} downloads, last with status {status:#04x}")
            return
        self._stage = Stage.OFFERED
        self._sequence += 1
        self._stalled(code, now, f"the node ended the download with status {status:#04x}; it may start again")
        self._notifies = self._failures
        self._timers[Timer.NOTIFY] = now + self._limits.notify_interval_s * 2**self._failures

    # -- inside --------------------------------------------------------------------------------------------------

    def _adopt(self, directive: NodeDirective, now: float) -> None:
        self._want = directive.want
        self._install_at = directive.install_at.timestamp() if directive.install_at else None
        self._sequence += 1
        for timer in (Timer.NOTIFY, Timer.STALL):
            self._timers.pop(timer, None)
        if self._want is Want.DROP:
            downloading = self._stage is Stage.DOWNLOADING and now - self._last_heard < self._limits.drop_after_s
            self._pacer.release(self.node)
            if downloading:
                self._stage = Stage.DROPPING
                self._timers = {Timer.DROP: now + self._limits.drop_after_s}
            else:
                self._dropped(now)
            return
        if self._want is Want.HOLD:
            self._pacer.release(self.node)
        elif self._stage in (Stage.FAILED, Stage.DROPPED, Stage.DROPPING) or (
            self._stage is Stage.RUNNING and self._running_version != self.image.ref.version
        ):
            self._stage = Stage.DOWNLOADING if self._stage is Stage.DROPPING else Stage.OFFERED
            self._confirmed = self._confirmed if self._stage is Stage.DOWNLOADING else 0
            self._failures = 0
            self._code = ""
            self._running_version = None
            self._rebooted = False
            self._timers.clear()
            self._event(Fact.PREPARING, now)
        elif self._stage is Stage.RUNNING:
            self._event(Fact.RUNNING, now, version=self._running_version)
        self._arm(now)


_STATUS_VALUES: Final = frozenset(status.value for status in Status)
