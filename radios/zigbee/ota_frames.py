"""The OTA Upgrade cluster on the wire: bytes <-> the dataclasses of `ota_commands`, and the default response.

Responsible for the form of frames only. What a frame means for a download is said in `ota_session`, which bytes reach
this module in `tap`. All fields are little endian. Bytes after a known command are ignored, as ZCL asks of receivers.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from radios.errors import FrameError
from radios.zigbee.ota_commands import (
    DEFAULT_RESPONSE_ID,
    IEEE_BYTES,
    ClientCommand,
    Command,
    CommandId,
    DefaultResponse,
    FileId,
    Header,
    ImageBlock,
    ImageBlockRefused,
    ImageBlockRequest,
    ImageNotify,
    ImagePageRequest,
    QueryNextImageRequest,
    QueryNextImageResponse,
    QuerySpecificFileRequest,
    QuerySpecificFileResponse,
    ServerCommand,
    Status,
    UpgradeEndRequest,
    UpgradeEndResponse,
    WaitForData,
)

_CLUSTER_SPECIFIC = 0x01
_FRAME_TYPE_MASK = 0x03
_MANUFACTURER_SPECIFIC = 0x04
_SERVER_TO_CLIENT = 0x08
_DISABLE_DEFAULT_RESPONSE = 0x10


def decode_header(data: bytes) -> tuple[Header, bytes]:
    """The header and the payload behind it. FrameError when the bytes end within the header."""
    if len(data) < 3:
        raise FrameError(f"ZCL header: 3 bytes at least, got {len(data)}")
    control = data[0]
    kind = control & _FRAME_TYPE_MASK
    if kind > _CLUSTER_SPECIFIC:
        raise FrameError(f"ZCL header: reserved frame type {kind}")
    manufacturer = None
    at = 1
    if control & _MANUFACTURER_SPECIFIC:
        if len(data) < 5:
            raise FrameError(f"ZCL header: 5 bytes with a manufacturer code, got {len(data)}")
        manufacturer = data[1] | data[2] << 8
        at = 3
    header = Header(
        data[at],
        data[at + 1],
        kind == _CLUSTER_SPECIFIC,
        bool(control & _SERVER_TO_CLIENT),
        bool(control & _DISABLE_DEFAULT_RESPONSE),
        manufacturer,
    )
    return header, data[at + 2 :]


def encode_header(header: Header) -> bytes:
    control = (
        (_CLUSTER_SPECIFIC if header.cluster_specific else 0)
        | (_SERVER_TO_CLIENT if header.server_to_client else 0)
        | (_DISABLE_DEFAULT_RESPONSE if header.disable_default_response else 0)
    )
    if header.manufacturer is None:
        return bytes((control, header.tsn, header.command))
    return struct.pack("<BHBB", control | _MANUFACTURER_SPECIFIC, header.manufacturer, header.tsn, header.command)


def decode_command(header: Header, payload: bytes) -> Command:
    """The command of a frame. FrameError names the command and what is wrong; also for a command the cluster lacks."""
    if not header.cluster_specific:
        if header.command == DEFAULT_RESPONSE_ID:
            return DefaultResponse(*_take("DefaultResponse", _TWO_BYTES, payload))
        raise FrameError(f"global command {header.command:#04x} is not part of this codec")
    decoder = (_FROM_SERVER if header.server_to_client else _FROM_CLIENT).get(header.command)
    if decoder is None:
        raise FrameError(f"OTA command {header.command:#04x} does not exist in this direction")
    return decoder(payload)


def knows(header: Header) -> bool:
    """Whether the cluster has this command in this direction."""
    return header.command in (_FROM_SERVER if header.server_to_client else _FROM_CLIENT)


def encode_command(command: Command) -> tuple[int, bytes]:
    """Command id and payload. FrameError when a field does not fit its place."""
    try:
        return _encode(command)
    except struct.error as error:
        raise FrameError(f"{type(command).__name__}: {error}") from None


def reply(command: ServerCommand, tsn: int) -> bytes:
    """A whole frame from the server to the client; the client sends no default response for it."""
    command_id, payload = encode_command(command)
    return bytes((_CLUSTER_SPECIFIC | _SERVER_TO_CLIENT | _DISABLE_DEFAULT_RESPONSE, tsn, command_id)) + payload


def request(command: ClientCommand, tsn: int) -> bytes:
    """A whole frame from the client to the server."""
    command_id, payload = encode_command(command)
    return bytes((_CLUSTER_SPECIFIC, tsn, command_id)) + payload


def default_response(command: int, status: int, tsn: int) -> bytes:
    """A whole default response from the server to the client."""
    return bytes((_SERVER_TO_CLIENT | _DISABLE_DEFAULT_RESPONSE, tsn, DEFAULT_RESPONSE_ID, command, status))


_BYTE = struct.Struct("<B")
_TWO_BYTES = struct.Struct("<BB")
_U16 = struct.Struct("<H")
_FILE = struct.Struct("<HHL")
_QUERY = struct.Struct("<BHHL")
_BLOCK_REQUEST = struct.Struct("<BHHLLB")
_PAGE_REQUEST = struct.Struct("<BHHLLBHH")
_IMAGE_AVAILABLE = struct.Struct("<BHHLL")
_BLOCK = struct.Struct("<BHHLLB")
_WAIT = struct.Struct("<BLL")
_WAIT_WITH_PERIOD = struct.Struct("<BLLH")
_END_REQUEST = struct.Struct("<BHHL")
_END_RESPONSE = struct.Struct("<HHLLL")
_SPECIFIC_FILE = struct.Struct("<8sHHLH")

_HARDWARE_VERSION_PRESENT = 0x01  # field control of QueryNextImageRequest
_IEEE_PRESENT = 0x01  # field control of block and page requests
_PERIOD_PRESENT = 0x02


def _take(name: str, form: struct.Struct, payload: bytes, at: int = 0) -> tuple[int, ...]:
    if len(payload) < at + form.size:
        raise FrameError(f"{name}: {at + form.size} payload bytes needed, got {len(payload)}")
    return form.unpack_from(payload, at)


def _query_next_image_request(payload: bytes) -> QueryNextImageRequest:
    control, manufacturer, image_type, version = _take("QueryNextImageRequest", _QUERY, payload)
    hardware = None
    if control & _HARDWARE_VERSION_PRESENT:
        (hardware,) = _take("QueryNextImageRequest", _U16, payload, _QUERY.size)
    return QueryNextImageRequest(manufacturer, image_type, version, hardware)


def _image_block_request(payload: bytes) -> ImageBlockRequest:
    name = "ImageBlockRequest"
    control, manufacturer, image_type, version, offset, max_data = _take(name, _BLOCK_REQUEST, payload)
    at = _BLOCK_REQUEST.size
    ieee = period = None
    if control & _IEEE_PRESENT:
        ieee = _ieee(name, payload, at)
        at += IEEE_BYTES
    if control & _PERIOD_PRESENT:
        (period,) = _take(name, _U16, payload, at)
    return ImageBlockRequest(FileId(manufacturer, image_type, version), offset, max_data, ieee, period)


def _image_page_request(payload: bytes) -> ImagePageRequest:
    name = "ImagePageRequest"
    control, manufacturer, image_type, version, offset, max_data, page, spacing = _take(name, _PAGE_REQUEST, payload)
    ieee = _ieee(name, payload, _PAGE_REQUEST.size) if control & _IEEE_PRESENT else None
    return ImagePageRequest(FileId(manufacturer, image_type, version), offset, max_data, page, spacing, ieee)


def _upgrade_end_request(payload: bytes) -> UpgradeEndRequest:
    (status,) = _take("UpgradeEndRequest", _BYTE, payload)
    if status != Status.SUCCESS and len(payload) == 1:
        return UpgradeEndRequest(status)  # field evidence: sent short with failures
    _, manufacturer, image_type, version = _take("UpgradeEndRequest", _END_REQUEST, payload)
    return UpgradeEndRequest(status, FileId(manufacturer, image_type, version))


def _query_specific_file_request(payload: bytes) -> QuerySpecificFileRequest:
    ieee = _ieee("QuerySpecificFileRequest", payload, 0)
    manufacturer, image_type, version = _take("QuerySpecificFileRequest", _FILE, payload, 8)
    (stack,) = _take("QuerySpecificFileRequest", _U16, payload, 16)
    return QuerySpecificFileRequest(ieee, FileId(manufacturer, image_type, version), stack)


def _image_notify(payload: bytes) -> ImageNotify:
    kind, jitter = _take("ImageNotify", _TWO_BYTES, payload)
    if kind > 3:
        raise FrameError(f"ImageNotify: reserved payload type {kind}")
    fields: list[int] = []
    at = _TWO_BYTES.size
    for form in (_U16, _U16, struct.Struct("<L"))[:kind]:
        fields += _take("ImageNotify", form, payload, at)
        at += form.size
    return ImageNotify(jitter, *fields)


def _image_available(name: str, payload: bytes) -> tuple[int, FileId | None, int]:
    (status,) = _take(name, _BYTE, payload)
    if status != Status.SUCCESS:
        return status, None, 0
    _, manufacturer, image_type, version, size = _take(name, _IMAGE_AVAILABLE, payload)
    return status, FileId(manufacturer, image_type, version), size


def _query_next_image_response(payload: bytes) -> QueryNextImageResponse:
    return QueryNextImageResponse(*_image_available("QueryNextImageResponse", payload))


def _query_specific_file_response(payload: bytes) -> QuerySpecificFileResponse:
    return QuerySpecificFileResponse(*_image_available("QuerySpecificFileResponse", payload))


def _image_block_response(payload: bytes) -> ImageBlock | WaitForData | ImageBlockRefused:
    name = "ImageBlockResponse"
    (status,) = _take(name, _BYTE, payload)
    if status == Status.WAIT_FOR_DATA:
        if len(payload) == _WAIT.size:
            _, current, request_time = _take(name, _WAIT, payload)
            return WaitForData(current, request_time, None)
        _, current, request_time, period = _take(name, _WAIT_WITH_PERIOD, payload)
        return WaitForData(current, request_time, period)
    if status != Status.SUCCESS:
        return ImageBlockRefused(status)
    _, manufacturer, image_type, version, offset, length = _take(name, _BLOCK, payload)
    data = payload[_BLOCK.size : _BLOCK.size + length]
    if len(data) < length:
        raise FrameError(f"{name}: {length} bytes of data announced, {len(data)} present")
    return ImageBlock(FileId(manufacturer, image_type, version), offset, data)


def _upgrade_end_response(payload: bytes) -> UpgradeEndResponse:
    manufacturer, image_type, version, current, upgrade = _take("UpgradeEndResponse", _END_RESPONSE, payload)
    return UpgradeEndResponse(FileId(manufacturer, image_type, version), current, upgrade)


def _ieee(name: str, payload: bytes, at: int) -> bytes:
    ieee = payload[at : at + IEEE_BYTES]
    if len(ieee) < IEEE_BYTES:
        raise FrameError(f"{name}: {IEEE_BYTES} bytes of IEEE address needed, {len(ieee)} present")
    return ieee


_FROM_CLIENT: Final[Mapping[int, Callable[[bytes], Command]]] = {
    int(CommandId.QUERY_NEXT_IMAGE_REQUEST): _query_next_image_request,
    int(CommandId.IMAGE_BLOCK_REQUEST): _image_block_request,
    int(CommandId.IMAGE_PAGE_REQUEST): _image_page_request,
    int(CommandId.UPGRADE_END_REQUEST): _upgrade_end_request,
    int(CommandId.QUERY_SPECIFIC_FILE_REQUEST): _query_specific_file_request,
}
_FROM_SERVER: Final[Mapping[int, Callable[[bytes], Command]]] = {
    int(CommandId.IMAGE_NOTIFY): _image_notify,
    int(CommandId.QUERY_NEXT_IMAGE_RESPONSE): _query_next_image_response,
    int(CommandId.IMAGE_BLOCK_RESPONSE): _image_block_response,
    int(CommandId.UPGRADE_END_RESPONSE): _upgrade_end_response,
    int(CommandId.QUERY_SPECIFIC_FILE_RESPONSE): _query_specific_file_response,
}


def _encode(command: Command) -> tuple[int, bytes]:
    match command:
        case ImageBlock(file, offset, data):
            head = _BLOCK.pack(0, file.manufacturer, file.image_type, file.version, offset, len(data))
            return CommandId.IMAGE_BLOCK_RESPONSE, head + data
        case ImageBlockRequest(file, offset, max_data, ieee, period):
            control = (_IEEE_PRESENT if ieee is not None else 0) | (_PERIOD_PRESENT if period is not None else 0)
            head = _BLOCK_REQUEST.pack(control, file.manufacturer, file.image_type, file.version, offset, max_data)
            tail = b"" if period is None else _U16.pack(period)
            return CommandId.IMAGE_BLOCK_REQUEST, head + _ieee_bytes(ieee) + tail
        case WaitForData(current, request_time, period):
            tail = b"" if period is None else _U16.pack(period)
            return CommandId.IMAGE_BLOCK_RESPONSE, _WAIT.pack(Status.WAIT_FOR_DATA, current, request_time) + tail
        case ImageBlockRefused(status):
            if status in (Status.SUCCESS, Status.WAIT_FOR_DATA):
                raise FrameError(f"ImageBlockRefused: {Status(status).name} is no refusal")
            return CommandId.IMAGE_BLOCK_RESPONSE, _BYTE.pack(status)
        case QueryNextImageRequest(manufacturer, image_type, version, hardware):
            control = _HARDWARE_VERSION_PRESENT if hardware is not None else 0
            head = _QUERY.pack(control, manufacturer, image_type, version)
            return CommandId.QUERY_NEXT_IMAGE_REQUEST, head + (b"" if hardware is None else _U16.pack(hardware))
        case QueryNextImageResponse(status, found, size):
            return CommandId.QUERY_NEXT_IMAGE_RESPONSE, _pack_available(status, found, size)
        case QuerySpecificFileResponse(status, found, size):
            return CommandId.QUERY_SPECIFIC_FILE_RESPONSE, _pack_available(status, found, size)
        case UpgradeEndRequest(status, ended):
            if ended is not None:
                fields = _END_REQUEST.pack(status, ended.manufacturer, ended.image_type, ended.version)
                return CommandId.UPGRADE_END_REQUEST, fields
            if status == Status.SUCCESS:
                raise FrameError("UpgradeEndRequest: SUCCESS needs the file")
            return CommandId.UPGRADE_END_REQUEST, _BYTE.pack(status)
        case UpgradeEndResponse(file, current, upgrade):
            return CommandId.UPGRADE_END_RESPONSE, _END_RESPONSE.pack(
                file.manufacturer, file.image_type, file.version, current, upgrade
            )
        case ImagePageRequest(file, offset, max_data, page_size, spacing, ieee):
            control = _IEEE_PRESENT if ieee is not None else 0
            head = _PAGE_REQUEST.pack(
                control, file.manufacturer, file.image_type, file.version, offset, max_data, page_size, spacing
            )
            return CommandId.IMAGE_PAGE_REQUEST, head + _ieee_bytes(ieee)
        case QuerySpecificFileRequest(ieee, file, stack):
            return CommandId.QUERY_SPECIFIC_FILE_REQUEST, _SPECIFIC_FILE.pack(
                _ieee_bytes(ieee), file.manufacturer, file.image_type, file.version, stack
            )
        case ImageNotify(jitter, manufacturer, image_type, version):
            return CommandId.IMAGE_NOTIFY, _pack_notify(jitter, manufacturer, image_type, version)
        case DefaultResponse(about, status):
            return DEFAULT_RESPONSE_ID, _TWO_BYTES.pack(about, status)


def _pack_available(status: int, file: FileId | None, size: int) -> bytes:
    if status != Status.SUCCESS:
        return _BYTE.pack(status)
    if file is None:
        raise FrameError("image response: SUCCESS needs the file")
    return _IMAGE_AVAILABLE.pack(status, file.manufacturer, file.image_type, file.version, size)


def _pack_notify(jitter: int, manufacturer: int | None, image_type: int | None, version: int | None) -> bytes:
    if not 1 <= jitter <= 100:
        raise FrameError(f"ImageNotify: jitter is 1 to 100, not {jitter}")
    if manufacturer is None:
        kind, fields = 0, b""
    elif image_type is None:
        kind, fields = 1, _U16.pack(manufacturer)
    elif version is None:
        kind, fields = 2, struct.pack("<HH", manufacturer, image_type)
    else:
        kind, fields = 3, _FILE.pack(manufacturer, image_type, version)
    return bytes((kind, jitter)) + fields


def _ieee_bytes(ieee: bytes | None) -> bytes:
    if ieee is None:
        return b""
    if len(ieee) != IEEE_BYTES:
        raise FrameError(f"an IEEE address has {IEEE_BYTES} bytes, not {len(ieee)}")
    return ieee
