"""One node's download as a state machine without I/O: frames, directives and the time go in, frames and facts come out.

The order of use is `receive` (or another input), then `pending_commit`; when that is something, make it durable and say
`committed`; only then does `to_send` give frames out. So no frame can tell a node to act on a state that a crash would
forget. Re-arm one timer with `next_deadline`, call `handle_timeout` when it is past.

Responsible for one node and one transfer. Which file it is, was verified before; how much the mesh takes, `pacing` says.
"""

from typing import Final

from radios.backoff import growing_s
from radios.errors import FrameError, ImageError
from radios.radio import Fact, NodeDirective, Want
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
    ClientCommand,
    FileId,
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
from radios.zigbee.page import page_run
from radios.zigbee.session_core import NEVER, WANTS_IMAGE, Timer
from radios.zigbee.session_output import Outgoing, Purpose
from radios.zigbee.session_pages import SessionPages
from radios.zigbee.session_state import Stage

_FAILURE_CODES: Final = {
    Status.INVALID_IMAGE: "invalid_image",
    Status.INSUFFICIENT_SPACE: "no_space",
    Status.ABORT: "aborted",
    Status.REQUIRE_MORE_IMAGE: "require_more_image",
    Status.NOT_AUTHORIZED: "refused",
}


class OtaSession(SessionPages):
    """See the module."""

    # -- inputs --------------------------------------------------------------------------------------------------

    def direct(self, directive: NodeDirective, now: float) -> None:
        """The daemon's word on this node in this transfer. An older generation is ignored, the same one reconciles."""
        first = not self._reconciled
        self._reconciled = True
        refused, self._install_refused = self._install_refused, False
        if directive.generation > self._facts.generation:
            self._facts.generation = directive.generation
            self._adopt(directive, now)
        elif first:
            self._arm(now)
        elif refused and directive.generation == self._facts.generation:
            self._install_if_due(now)

    def receive(self, frame: bytes, endpoint: int, now: float) -> None:
        """A cluster-specific frame of the node's OTA client. Never raises for what is in it."""
        self.heard(now)
        self._last_command = now
        try:
            header, payload = decode_header(frame)
        except FrameError:
            return  # no sequence number, so no answer could be matched
        self._answers.to = endpoint
        if not knows(header):
            self._answers.default(header.command, Status.UNSUP_CLUSTER_COMMAND, header.tsn, now)
            return
        try:
            command = decode_command(header, payload)
        except FrameError:
            self._answers.default(header.command, Status.MALFORMED_COMMAND, header.tsn, now)
            return
        if isinstance(command, ImageBlockRequest):
            self._image_block(command, header.tsn, now)
        elif isinstance(command, ClientCommand):
            self._other_command(command, header.command, header.tsn, now)

    def invited(self, now: float) -> None:
        """The pacer keeps a place for the node: it is offered the image now."""
        if self._stage is Stage.OFFERED and Timer.NOTIFY in self._timers:
            self._timers[Timer.NOTIFY] = now
        else:
            self._pacer.release(self.node)

    def link_up(self, endpoint: int, now: float) -> None:
        """The radio is there (again): what was sent before may be lost. `endpoint` is where the OTA client is."""
        self.located(endpoint)
        if self._reconciled:
            self._arm(now)

    def located(self, endpoint: int) -> None:
        """Where the OTA client is, as the node's interview says."""
        if self._stage is Stage.OFFERED:
            self._endpoint = endpoint

    def refused(self, command: int, status: int, now: float) -> None:
        """The node answered one of our frames with a default response other than SUCCESS."""
        if self._stage in (Stage.OFFERED, Stage.DOWNLOADING):
            self._stalled("refused", now, f"command {command:#04x} answered with status {status:#04x}")

    def refuse_install(self, now: float) -> bool:
        """The daemon did not take the commit. If it was to begin the installation, the node is told nothing and waits for
        the next directive; unless the commit without it fails too, which is a journal that fails and no refusal.

        It waits for hours at most: a disk that was full for a moment is no reason for the daemon to say anything new.
        """
        if self._stage is Stage.INSTALLING and self._facts.take_back(Fact.INSTALLING):
            self._stage, self._install_refused = Stage.READY, True
            self._timers = {Timer.INSTALL: now + self._limits.refused_s}
            if self._install_answer is not None:  # without an answer it might start the image by itself
                self._answers.reply(UpgradeEndResponse(self._file, 0, WAIT_FOREVER), self._install_answer[1], now)
            return True
        if self._install_refused:
            self._install_refused = False
            self._answers.withdraw()
            self._timers[Timer.INSTALL] = now
        return False

    def delivered(self, frame: Outgoing, ok: bool, now: float) -> None:
        """What became of a frame of `to_send`."""
        if frame.purpose is Purpose.NOTIFY and not ok:
            self._notified_at = NEVER  # it sleeps: as soon as it is heard, it is told
        if frame.purpose is Purpose.PAGE:
            self._page_delivered(ok)
        if frame.purpose is not Purpose.INSTALL or self._stage is not Stage.INSTALLING:
            return
        if ok:
            if not self._reached:  # its time begins; later frames are for one that asked again
                self._reached = True
                self._timers[Timer.LOST] = self._starts_at(now) + self._limits.lost_after_s
        else:
            self._told = False
            self._told_at = None
            if self.sleeps and not self._reached and not self._inherited:
                self._may_be_told = False  # it slept; one that listens may have lost the acknowledgement alone
            limits = self._limits
            retry = growing_s(limits.install_retry_s, 2.0, self._install_tries, limits.max_install_retry_s)
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
                self._notifies = 0
                self._timers[Timer.NOTIFY] = now + self._limits.renotify_stalled_after_s
            elif timer is Timer.INSTALL:
                self._install_refused = False
                self._install_if_due(now)
            elif timer is Timer.LOST and self._stage is Stage.INSTALLING:
                self._lost_if_told(now)
            elif timer is Timer.DROP and self._stage is Stage.DROPPING:
                self._dropped(now)

    # -- commands of the node ------------------------------------------------------------------------------------

    def _image_block(self, request: ImageBlockRequest | ImagePageRequest, tsn: int, now: float) -> None:
        limits = self._limits
        page = request if isinstance(request, ImagePageRequest) else None
        self._page = None  # the node asks: it waits for nothing of an earlier page
        size = self.image.ref.size
        if not self._reconciled:
            waited = int(now - self._started_at)
            wait = min(max(limits.unreconciled_wait_s, waited // 4), limits.max_unreconciled_wait_s)
            self._wait(request, wait, tsn, now)
        elif self._stage in (Stage.DROPPING, Stage.DROPPED):
            self._answers.reply(ImageBlockRefused(Status.ABORT), tsn, now)
            if self._stage is Stage.DROPPING:
                self._dropped(now)
        elif self._stage in (Stage.FAILED, Stage.RUNNING) or not self._is_ours(request.file):
            mine = self.image.file.covers(request.file.manufacturer, request.file.image_type)
            if mine:
                self._answers.reply(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), tsn, now)
            else:
                self._answers.aside(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), tsn)
            if mine and self._stage is Stage.OFFERED and self._want in WANTS_IMAGE:
                self._timers[Timer.NOTIFY] = now + limits.notify_interval_s  # it holds another file: offer ours
        elif request.offset >= size or request.max_data == 0 or (page is not None and page.page_size == 0):
            self._answers.default(0x03 if page is None else 0x04, Status.MALFORMED_COMMAND, tsn, now)
        elif self._want is Want.HOLD:
            self._proven(request.offset, now)
            self._wait(request, limits.hold_wait_s, tsn, now)
        elif self._stage is Stage.OFFERED and self._expired(now) and request.offset == 0:
            self._answers.reply(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), tsn, now)
            self._stalled("expired", now, "the transfer may start on no further node")
        else:
            self._serve(request, tsn, now)

    def _serve(self, request: ImageBlockRequest | ImagePageRequest, tsn: int, now: float) -> None:
        self._proven(request.offset, now)
        if self._stage is Stage.DOWNLOADING:
            self._timers[Timer.STALL] = now + self._limits.stall_after_s
        page = isinstance(request, ImagePageRequest)
        if not page and self._sets_period(request, now):
            self._wait(request, 0, tsn, now)
            return
        again = not page and request.offset == self._served_offset
        grant = self._pacer.ask(self.node, now, self.terms.priority, self.terms.air_share, again=again, page=page)
        if grant.serve_at is None:
            self._wait(request, grant.come_back_s, tsn, now)
            return
        if isinstance(request, ImagePageRequest):
            self._answers.withdraw()
            size, most = self.image.ref.size, self._limits.max_block_bytes
            self._page = page_run(request, size, most, tsn, self._answers.to, grant.serve_at, now)
            return
        length = min(request.max_data, self._limits.max_block_bytes, self.image.ref.size - request.offset)
        try:
            data = self._read(request.offset, length)
        except ImageError as error:
            self._stalled("image_unavailable", now, str(error))
            self._wait(request, self._limits.image_unavailable_wait_s, tsn, now)
            return
        self._served_offset = request.offset
        if request.offset + length == self.image.ref.size:
            self._pacer.release(self.node)  # it verifies now, which may take long
        frame = reply(ImageBlock(self._file, request.offset, data), tsn)
        block = Outgoing(frame, self._endpoint, Purpose.BLOCK, grant.acknowledged)
        self._answers.put(block, grant.serve_at, now)

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
        moved = confirmed != self._confirmed
        if started or (moved and self._facts.is_due(confirmed, self.image.ref.size, self._limits, now)):
            self._facts.progressed(confirmed, now)
        self._confirmed = confirmed

    def _other_command(self, command: ClientCommand, command_id: int, tsn: int, now: float) -> None:
        if isinstance(command, QueryNextImageRequest):
            self._query(command, tsn, now)
        elif isinstance(command, UpgradeEndRequest):
            self._upgrade_end(command, tsn, now)
        elif isinstance(command, ImagePageRequest):
            if self._limits.page_requests:
                self._image_block(command, tsn, now)
            else:  # the client falls back to block requests
                self._answers.default(command_id, Status.UNSUP_CLUSTER_COMMAND, tsn, now)
        elif isinstance(command, QuerySpecificFileRequest):
            self._answers.aside(QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE), tsn)

    def _query(self, query: QueryNextImageRequest, tsn: int, now: float) -> None:
        offer = self._reconciled and self._want in WANTS_IMAGE
        offer = offer and self._stage in (Stage.OFFERED, Stage.DOWNLOADING, Stage.READY)
        if not self._is_ours(FileId(query.manufacturer, query.image_type, self._file.version)):
            # A node may hold several images and ask for each; what it says of one says nothing of the others.
            if offer and self._stage is Stage.OFFERED and not self._client_known:
                self._stalled("other_hardware", now, f"asks for {query.manufacturer:04x}-{query.image_type:04x}")
            self._answers.aside(QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE), tsn)
            return
        self.version_read(query.version, now)
        offer = offer and self._stage in (Stage.OFFERED, Stage.DOWNLOADING, Stage.READY)
        if offer and not self._fits(query.hardware_version):
            self._fail("wrong_hardware", now, f"hardware version {query.hardware_version} is not for this image")
            offer = False
        elif offer and self._stage is Stage.OFFERED and self._expired(now):
            self._stalled("expired", now, "the transfer may start on no further node")
            offer = False
        if not offer:
            self._answers.reply(QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE), tsn, now)
            return
        self._restarts = True
        if self._stage is Stage.OFFERED or Timer.NOTIFY in self._timers:
            self._timers[Timer.NOTIFY] = now + self._limits.renotify_stalled_after_s
        self._answers.reply(QueryNextImageResponse(Status.SUCCESS, self._file, self.image.ref.size), tsn, now)

    def _is_ours(self, file: FileId) -> bool:
        """Whether the node speaks of the file that is to be delivered. Its names replace wildcards: a client checks that an
        answer names what it asked for (ZCL8 11.13.5)."""
        if file != self._file:
            header = self.image.file
            if file.version != header.version or not header.covers(file.manufacturer, file.image_type):
                return False
            self._file = file
        self._endpoint = self._answers.to
        self._client_known = True
        return True

    def _fits(self, hardware_version: int | None) -> bool:
        """A client need not tell its hardware version, and most do not. Those are offered the file: they find the range in
        its header and refuse it themselves, while a refusal here would shut out every client that leaves the field out.
        """
        low, high = self.image.min_hardware, self.image.max_hardware
        return hardware_version is None or low is None or high is None or low <= hardware_version <= high

    def _upgrade_end(self, request: UpgradeEndRequest, tsn: int, now: float) -> None:
        ours = request.file is None or self._is_ours(request.file)
        if request.status != Status.SUCCESS or request.file is None:
            self._answers.default(0x06, Status.SUCCESS, tsn, now)
            if ours:
                self._download_failed(request.status, now)
            return
        if not ours or self._stage in (Stage.FAILED, Stage.DROPPED, Stage.DROPPING):
            # Without an answer it might start the image by itself.
            self._answers.reply(UpgradeEndResponse(request.file, 0, WAIT_FOREVER), tsn, now)
            if self._stage is Stage.DROPPING:
                self._dropped(now)
            return
        self._completed(now)
        self._install_if_due(now)
        if self._stage is Stage.INSTALLING and self._may_start_again():  # it holds it, so it has not started it
            self._install_answer = (now, tsn)
            self._told = False
            self._timers.pop(Timer.INSTALL, None)
        else:
            self._answers.reply(UpgradeEndResponse(self._file, 0, WAIT_FOREVER), tsn, now)

    def _download_failed(self, status: int, now: float) -> None:
        offered = self._stage is Stage.OFFERED and self._restarts  # it may refuse an image for its size alone
        if not offered and self._stage not in (Stage.DOWNLOADING, Stage.READY, Stage.INSTALLING):
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
        self._facts.changed()
        self._stalled(code, now, f"the node ended the download with status {status:#04x}; it may start again")
        self._notifies = self._failures
        self._timers[Timer.NOTIFY] = now + self._limits.notify_interval_s * 2**self._failures

    # -- inside --------------------------------------------------------------------------------------------------

    def _adopt(self, directive: NodeDirective, now: float) -> None:
        self._want = directive.want
        self._install_at = directive.install_at.timestamp() if directive.install_at else None
        self._start = None
        self._facts.changed()
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
            self._facts.event(Fact.PREPARING, now)
        elif self._stage is Stage.RUNNING:
            self._facts.event(Fact.RUNNING, now, version=self._running_version)
        self._arm(now)


_STATUS_VALUES: Final = frozenset(status.value for status in Status)
