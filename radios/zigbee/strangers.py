"""What a node is answered that no transfer knows: nothing is started, and nothing that it downloads is destroyed early.

Until the daemon had the time to say what it wants of every node, a block request is told to wait: another answer would
make the node throw away what it holds. An image that is complete is never told to start by itself.
"""

from collections.abc import Callable
from typing import Final

from radios.errors import FrameError
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
    DefaultResponse,
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
    WaitForData,
)
from radios.zigbee.ota_frames import decode_command, decode_header, default_response, knows, reply
from radios.zigbee.session_state import SessionLimits

RECONCILE_WITHIN_S: Final = 60.0
WAIT_S: Final = 5


def answer_stranger(
    frame: bytes, now: float, started_at: float, limits_for: Callable[[int, int], SessionLimits]
) -> bytes | None:
    """The frame for a node without a transfer; None when nothing is to be said. `limits_for` knows the node's quirks by
    manufacturer and image type."""
    try:
        header, payload = decode_header(frame)
    except FrameError:
        return None  # no sequence number, so no answer could be matched
    if not knows(header):
        return default_response(header.command, Status.UNSUP_CLUSTER_COMMAND, header.tsn)
    try:
        command = decode_command(header, payload)
    except FrameError:
        return default_response(header.command, Status.MALFORMED_COMMAND, header.tsn)
    match command:
        case QueryNextImageRequest():
            return reply(QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE), header.tsn)
        case ImageBlockRequest(file=file, minimum_block_period=period):
            if now - started_at < RECONCILE_WITHIN_S:
                if limits_for(file.manufacturer, file.image_type).wait_short_form:
                    period = None
                return reply(WaitForData(0, WAIT_S, period), header.tsn)
            return reply(ImageBlockRefused(Status.NO_IMAGE_AVAILABLE), header.tsn)
        case ImagePageRequest():
            return default_response(header.command, Status.UNSUP_CLUSTER_COMMAND, header.tsn)
        case UpgradeEndRequest(Status.SUCCESS, file) if file is not None:
            return reply(UpgradeEndResponse(file, 0, WAIT_FOREVER), header.tsn)
        case UpgradeEndRequest():
            return default_response(header.command, Status.SUCCESS, header.tsn)
        case QuerySpecificFileRequest():
            return reply(QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE), header.tsn)
        case DefaultResponse() | _:
            return None
