"""What a node's QueryNextImageRequest says of the node itself."""

from radios.errors import FrameError
from radios.radio import NodeId, NodeObservation
from radios.zigbee.nodes import hardware_name
from radios.zigbee.ota_commands import WILDCARD_VERSION, CommandId, QueryNextImageRequest
from radios.zigbee.ota_frames import decode_command, decode_header


def decode_query(frame: bytes) -> QueryNextImageRequest | None:
    """The query in a frame; None when it is another command, or malformed, which the service answers."""
    try:
        header, payload = decode_header(frame)
        if header.command != CommandId.QUERY_NEXT_IMAGE_REQUEST:
            return None
        command = decode_command(header, payload)
    except FrameError:
        return None
    return command if isinstance(command, QueryNextImageRequest) else None


def queried(node: NodeId, query: QueryNextImageRequest, now: float) -> NodeObservation:
    """The observation that it makes."""
    return NodeObservation(
        node,
        now,
        hardware=hardware_name(query.manufacturer, query.image_type),
        hardware_version=query.hardware_version,
        version=None if query.version == WILDCARD_VERSION else query.version,
        joined=True,
    )
