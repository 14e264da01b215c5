"""Page requests served, and a node's own block period set. The blocks of a page go out by themselves, each with a leave of its own from the pacing.

They ask for no acknowledgement, as the node asks again for what it missed. A page ends with whatever ends the download or
holds it; a request of the node, for a block or a page, takes the place of the one that runs.
"""

from radios.errors import ImageError
from radios.zigbee.block_period import SET_AT_MOST_EVERY_S, is_worth_setting
from radios.zigbee.ota_commands import ImageBlock, ImageBlockRequest, ImagePageRequest
from radios.zigbee.ota_frames import reply
from radios.zigbee.page import PageRun
from radios.zigbee.session_core import WANTS_IMAGE
from radios.zigbee.session_output import Outgoing, Purpose
from radios.zigbee.session_state import Stage
from radios.zigbee.session_truth import SessionTruth


class SessionPages(SessionTruth):
    """See the module."""

    _page: PageRun | None = None

    def to_send(self, now: float) -> list[Outgoing]:
        frames = super().to_send(now)
        if self._page is not None and self._facts.settled:
            block = self._page_block(self._page, now)
            if block is not None:
                frames.append(block)
        return frames

    def next_deadline(self) -> float | None:
        deadline, page = super().next_deadline(), self._page
        if page is None or page.on_its_way or not self._facts.settled:
            return deadline
        return page.due if deadline is None else min(deadline, page.due)

    def _sets_period(self, request: ImageBlockRequest | ImagePageRequest, now: float) -> bool:
        """Whether the node's block period is so wrong that it is told another before it gets its block."""
        own = request.minimum_block_period if isinstance(request, ImageBlockRequest) else None
        if own is None or self.cluster_revision is None or now - self._period_set_at < SET_AT_MOST_EVERY_S:
            return False
        wanted = self._block_period(request, now)
        if wanted is None or not is_worth_setting(own, wanted):
            return False
        self._period_set_at = now
        return True

    def _page_delivered(self, ok: bool) -> None:
        page = self._page
        if page is not None:
            page.on_its_way = False
            if not ok:
                self._page = None  # the node asks for the rest, and then it is heard

    def _page_block(self, page: PageRun, now: float) -> Outgoing | None:
        if self._stage is not Stage.DOWNLOADING or self._want not in WANTS_IMAGE or page.is_over(now):
            self._page = None
            return None
        if page.on_its_way or page.due > now:
            return None
        if not page.granted:
            grant = self._pacer.ask(self.node, now, self.terms.priority, self.terms.air_share, page=True)
            if grant.serve_at is None:
                self._page = None  # its next request is told to come back
                return None
            page.granted, page.due = True, grant.serve_at
            if page.due > now:
                return None
        offset, length = page.block()
        try:
            data = self._read(offset, length)
        except ImageError:
            self._page = None  # said when the node asks by block
            return None
        page.sent(now, length)
        if page.offset == self.image.ref.size:
            self._pacer.release(self.node)  # it verifies now, if it lacks nothing
        frame = reply(ImageBlock(self._file, offset, data), page.tsn)
        return Outgoing(frame, page.endpoint, Purpose.PAGE, acknowledged=False)
