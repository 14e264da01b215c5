"""The commands of the OTA Upgrade cluster as data (ZCL8 11.13), in the specification's names. Their bytes: `ota_frames`."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

OTA_CLUSTER_ID: Final = 0x0019
WAIT_FOREVER: Final = 0xFFFFFFFF  # upgrade time of UpgradeEndResponse: wait until told
WILDCARD_VERSION: Final = 0xFFFFFFFF
WILDCARD_U16: Final = 0xFFFF  # manufacturer code or image type: any
IEEE_BYTES: Final = 8


class Status(IntEnum):
    """ZCL status codes that the cluster uses."""

    SUCCESS = 0x00
    FAILURE = 0x01
    NOT_AUTHORIZED = 0x7E
    MALFORMED_COMMAND = 0x80
    UNSUP_CLUSTER_COMMAND = 0x81
    INVALID_FIELD = 0x85
    INVALID_VALUE = 0x87
    INSUFFICIENT_SPACE = 0x89
    TIMEOUT = 0x94
    ABORT = 0x95
    INVALID_IMAGE = 0x96
    WAIT_FOR_DATA = 0x97
    NO_IMAGE_AVAILABLE = 0x98
    REQUIRE_MORE_IMAGE = 0x99


class CommandId(IntEnum):
    IMAGE_NOTIFY = 0x00
    QUERY_NEXT_IMAGE_REQUEST = 0x01
    QUERY_NEXT_IMAGE_RESPONSE = 0x02
    IMAGE_BLOCK_REQUEST = 0x03
    IMAGE_PAGE_REQUEST = 0x04
    IMAGE_BLOCK_RESPONSE = 0x05
    UPGRADE_END_REQUEST = 0x06
    UPGRADE_END_RESPONSE = 0x07
    QUERY_SPECIFIC_FILE_REQUEST = 0x08
    QUERY_SPECIFIC_FILE_RESPONSE = 0x09


DEFAULT_RESPONSE_ID: Final = 0x0B  # of the global commands


@dataclass(frozen=True, slots=True)
class Header:
    """ZCL header (ZCL8 2.4.1). `manufacturer` is the code of a manufacturer-specific frame."""

    tsn: int
    command: int
    cluster_specific: bool = True
    server_to_client: bool = False
    disable_default_response: bool = False
    manufacturer: int | None = None


@dataclass(frozen=True, slots=True)
class ImageNotify:
    """00, to the node. Each of manufacturer, image type and version needs the one before it (payload type 0 to 3)."""

    jitter: int  # 1..100: percentage of nodes that answer a broadcast
    manufacturer: int | None = None
    image_type: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class QueryNextImageRequest:
    """01, from the node: what it runs."""

    manufacturer: int
    image_type: int
    version: int
    hardware_version: int | None = None


@dataclass(frozen=True, slots=True)
class FileId:
    """The image that a frame speaks of."""

    manufacturer: int
    image_type: int
    version: int

    def covers(self, manufacturer: int, image_type: int) -> bool:
        """Whether a file of this identity, wildcards included, is for such a client."""
        return self.manufacturer in (manufacturer, WILDCARD_U16) and self.image_type in (image_type, WILDCARD_U16)


@dataclass(frozen=True, slots=True)
class QueryNextImageResponse:
    """02, to the node. `file` and `size` (whole file, header included) only with SUCCESS."""

    status: int
    file: FileId | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class ImageBlockRequest:
    """03, from the node. `minimum_block_period` is present when the node knows that attribute."""

    file: FileId
    offset: int
    max_data: int
    ieee: bytes | None = None  # 8 bytes as on the wire
    minimum_block_period: int | None = None


@dataclass(frozen=True, slots=True)
class ImagePageRequest:
    """04, from the node: `page_size` bytes, one block every `response_spacing_ms`."""

    file: FileId
    offset: int
    max_data: int
    page_size: int
    response_spacing_ms: int
    ieee: bytes | None = None


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """05 with SUCCESS, to the node."""

    file: FileId
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WaitForData:
    """05 with WAIT_FOR_DATA, to the node: ask again after `request_s - current_s` seconds.

    Some nodes take only the form without `minimum_block_period`.
    """

    current_s: int
    request_s: int
    minimum_block_period: int | None = 0


@dataclass(frozen=True, slots=True)
class ImageBlockRefused:
    """05 with any other status (ABORT, NO_IMAGE_AVAILABLE), to the node: it throws its bytes away."""

    status: int


@dataclass(frozen=True, slots=True)
class UpgradeEndRequest:
    """06, from the node. `file` is missing in the one-byte form that some nodes send with a failure."""

    status: int
    file: FileId | None = None


@dataclass(frozen=True, slots=True)
class UpgradeEndResponse:
    """07, to the node. With `current_s` 0, `upgrade_s` is an offset: 0 now, WAIT_FOREVER until told."""

    file: FileId
    current_s: int
    upgrade_s: int


@dataclass(frozen=True, slots=True)
class QuerySpecificFileRequest:
    """08, from the node."""

    ieee: bytes
    file: FileId
    stack_version: int


@dataclass(frozen=True, slots=True)
class QuerySpecificFileResponse:
    """09, to the node. `file` and `size` only with SUCCESS."""

    status: int
    file: FileId | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class DefaultResponse:
    """Global command 0B, either direction: `status` of the command with id `command`."""

    command: int
    status: int


ClientCommand = (
    QueryNextImageRequest | ImageBlockRequest | ImagePageRequest | UpgradeEndRequest | QuerySpecificFileRequest
)
ServerCommand = (
    ImageNotify
    | QueryNextImageResponse
    | ImageBlock
    | WaitForData
    | ImageBlockRefused
    | UpgradeEndResponse
    | QuerySpecificFileResponse
)
Command = ClientCommand | ServerCommand | DefaultResponse
