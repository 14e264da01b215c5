"""A page that a node asked for: which block goes out next and when it is over. Pure; who sends it, `session_pages`."""

from dataclasses import dataclass

from radios.zigbee.ota_commands import ImagePageRequest

MAX_PAGE_S = 30.0  # a page that takes longer is cut: the node asks for the rest by block requests


@dataclass(slots=True)
class PageRun:
    """Blocks of [offset, end) in order, one every `spacing_s` at least. What was sent proves nothing."""

    offset: int
    end: int
    block_bytes: int
    spacing_s: float
    until: float
    tsn: int
    endpoint: int
    due: float
    granted: bool = True  # the pacing gave leave for the next block at `due`
    on_its_way: bool = False  # a block is: never two of one node in the dongle

    def block(self) -> tuple[int, int]:
        """Offset and length of the next one."""
        return self.offset, min(self.block_bytes, self.end - self.offset)

    def sent(self, now: float, length: int) -> None:
        self.offset += length
        self.due = now + self.spacing_s
        self.granted = False
        self.on_its_way = True

    def is_over(self, now: float) -> bool:
        return self.offset >= self.end or now >= self.until


def page_run(
    request: ImagePageRequest, size: int, block_bytes: int, tsn: int, endpoint: int, due: float, now: float
) -> PageRun:
    """The run for a request, its first block granted for `due`, whose offset is within the file of `size` bytes. `block_bytes`: the most that a block holds."""
    return PageRun(
        request.offset,
        min(request.offset + request.page_size, size),
        min(request.max_data, block_bytes),
        request.response_spacing_ms / 1000,
        now + MAX_PAGE_S,
        tsn,
        endpoint,
        due,
    )
