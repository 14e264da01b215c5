"""TS004 Fragmented Data Block Transport, versions 1 and 2: bytes <-> commands.

The two versions share CIDs and lengths but not the order of FragSessionStatusAns: the version must be known from
PackageVersionAns, it cannot be seen in the bytes. Coding of fragments is in `radios.lorawan.fec`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from radios.lorawan.packages.codec import (
    FRAG_INDEX_MAX,
    Command,
    Decoded,
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    by_version,
    decode_commands,
    encode_commands,
    exactly,
    flags,
    in_range,
    only_in_v2,
    unsigned,
)

__all__ = [
    "DEFAULT_PORT",
    "DOWNLINK",
    "FRAGMENT_OVERHEAD",
    "N_MAX",
    "PACKAGE_ID",
    "UPLINK",
    "VERSIONS",
    "DataFragment",
    "DownlinkCommand",
    "FragDataBlockReceivedAns",
    "FragDataBlockReceivedReq",
    "FragSessionDeleteAns",
    "FragSessionDeleteReq",
    "FragSessionSetupAns",
    "FragSessionSetupReq",
    "FragSessionStatusAns",
    "FragSessionStatusReq",
    "PackageVersionAns",
    "PackageVersionReq",
    "UplinkCommand",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

PACKAGE_ID = 3
DEFAULT_PORT = 201
VERSIONS = (1, 2)
N_MAX = 16383
"""Highest counter of a fragment, plain or coded (14 bits)."""
FRAGMENT_OVERHEAD = 3
"""Bytes of DataFragment before its data."""

_INDEX_SHIFT = 14


@dataclass(frozen=True, slots=True)
class FragSessionStatusReq(Command):
    """Down, unicast or multicast."""

    CID: ClassVar[int] = 0x01
    frag_index: int
    participants: bool  # True: every node answers; False: only those that still miss fragments

    def payload(self, version: int) -> bytes:
        return bytes((int(self.participants) | _index(self.frag_index) << 1,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(frag_index=value >> 1 & 3, participants=bool(value & 1))


@dataclass(frozen=True, slots=True)
class FragSessionStatusAns(Command):
    """Up. What `nb_frag_received` and `missing_frag` count differs between device libraries."""

    CID: ClassVar[int] = 0x01
    frag_index: int
    nb_frag_received: int
    missing_frag: int
    memory_error: bool = False  # version 1 calls it NotEnoughMatrixMemory
    mic_error: bool = False  # version 2
    session_does_not_exist: bool = False  # version 2

    def payload(self, version: int) -> bytes:
        only_in_v2(version, mic_error=self.mic_error, session_does_not_exist=self.session_does_not_exist)
        received = in_range("nb_frag_received", self.nb_frag_received, 0, N_MAX) | _index(self.frag_index) << 14
        counts = received.to_bytes(2, "little") + unsigned("missing_frag", self.missing_frag, 1)
        status = bytes((flags(self.memory_error, self.mic_error, self.session_does_not_exist),))
        return counts + status if version == 1 else status + counts

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        data = reader.take(4)
        counts, status = (data[:3], data[3] & 1) if version == 1 else (data[1:], data[0])
        received = int.from_bytes(counts[:2], "little")
        return cls(
            frag_index=received >> _INDEX_SHIFT,
            nb_frag_received=received & N_MAX,
            missing_frag=counts[2],
            memory_error=bool(status & 1),
            mic_error=bool(status & 2),
            session_does_not_exist=bool(status & 4),
        )


@dataclass(frozen=True, slots=True)
class FragSessionSetupReq(Command):
    """Down, unicast. Repeated after the first data it erases what the node has."""

    CID: ClassVar[int] = 0x02
    frag_index: int
    mc_group_bit_mask: int  # bit n: multicast group n may deliver; 0: unicast only
    nb_frag: int  # plain fragments (M)
    frag_size: int  # bytes
    block_ack_delay: int  # answers spread over up to 2^(n + 4) s
    padding: int  # zero bytes at the end of the last fragment
    descriptor: bytes  # 4 bytes, chosen by the application
    fragmentation_matrix: int = 0  # version 2: FragAlgo
    ack_reception: bool = False  # version 2: the node says FragDataBlockReceivedReq
    session_cnt: int | None = None  # version 2, and required there: above the last one of this node and index
    mic: bytes | None = None  # version 2, and required there: 4 bytes over the block without padding

    def payload(self, version: int) -> bytes:
        mask = in_range("mc_group_bit_mask", self.mc_group_bit_mask, 0, 15)
        control = (
            in_range("block_ack_delay", self.block_ack_delay, 0, 7)
            | in_range("fragmentation_matrix", self.fragmentation_matrix, 0, 7) << 3
            | int(self.ack_reception) << 6
        )
        head = (
            bytes((mask | _index(self.frag_index) << 4,))
            + in_range("nb_frag", self.nb_frag, 0, N_MAX).to_bytes(2, "little")
            + unsigned("frag_size", self.frag_size, 1)
            + bytes((control,))
            + unsigned("padding", self.padding, 1)
            + exactly("descriptor", self.descriptor, 4)
        )
        if version == 1:
            only_in_v2(
                version,
                ack_reception=self.ack_reception,
                session_cnt=self.session_cnt is not None,
                mic=self.mic is not None,
            )
            return head
        if self.session_cnt is None or self.mic is None:
            raise ValueError(f"session_cnt and mic are required in version {version}")
        return head + unsigned("session_cnt", self.session_cnt, 2) + exactly("mic", self.mic, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        data = reader.take(10 if version == 1 else 16)
        return cls(
            frag_index=data[0] >> 4 & 3,
            mc_group_bit_mask=data[0] & 15,
            nb_frag=int.from_bytes(data[1:3], "little"),
            frag_size=data[3],
            block_ack_delay=data[4] & 7,
            padding=data[5],
            descriptor=data[6:10],
            fragmentation_matrix=data[4] >> 3 & 7,
            ack_reception=version > 1 and bool(data[4] & 0x40),
            session_cnt=None if version == 1 else int.from_bytes(data[10:12], "little"),
            mic=None if version == 1 else data[12:16],
        )


@dataclass(frozen=True, slots=True)
class FragSessionSetupAns(Command):
    """Up. Any flag set means that the session was not made."""

    CID: ClassVar[int] = 0x02
    frag_index: int
    encoding_unsupported: bool = False
    not_enough_memory: bool = False
    frag_index_unsupported: bool = False
    wrong_descriptor: bool = False
    session_cnt_replay: bool = False  # version 2

    @property
    def accepted(self) -> bool:
        return not (
            self.encoding_unsupported
            or self.not_enough_memory
            or self.frag_index_unsupported
            or self.wrong_descriptor
            or self.session_cnt_replay
        )

    def payload(self, version: int) -> bytes:
        only_in_v2(version, session_cnt_replay=self.session_cnt_replay)
        status = flags(
            self.encoding_unsupported,
            self.not_enough_memory,
            self.frag_index_unsupported,
            self.wrong_descriptor,
            self.session_cnt_replay,
        )
        return bytes((status | _index(self.frag_index) << 6,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(
            frag_index=value >> 6,
            encoding_unsupported=bool(value & 1),
            not_enough_memory=bool(value & 2),
            frag_index_unsupported=bool(value & 4),
            wrong_descriptor=bool(value & 8),
            session_cnt_replay=version > 1 and bool(value & 16),
        )


@dataclass(frozen=True, slots=True)
class FragSessionDeleteReq(Command):
    """Down, unicast."""

    CID: ClassVar[int] = 0x03
    frag_index: int

    def payload(self, version: int) -> bytes:
        return bytes((_index(self.frag_index),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(frag_index=reader.unsigned(1) & 3)


@dataclass(frozen=True, slots=True)
class FragSessionDeleteAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x03
    frag_index: int
    session_does_not_exist: bool = False

    def payload(self, version: int) -> bytes:
        return bytes((_index(self.frag_index) | int(self.session_does_not_exist) << 2,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(frag_index=value & 3, session_does_not_exist=bool(value & 4))


@dataclass(frozen=True, slots=True)
class FragDataBlockReceivedReq(Command):
    """Up, version 2, when AckReception was asked: the node holds the block and has checked its MIC."""

    CID: ClassVar[int] = 0x04
    frag_index: int
    mic_error: bool = False

    def payload(self, version: int) -> bytes:
        only_in_v2(version, FragDataBlockReceivedReq=True)
        return bytes((_index(self.frag_index) | int(self.mic_error) << 2,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(frag_index=value & 3, mic_error=bool(value & 4))


@dataclass(frozen=True, slots=True)
class FragDataBlockReceivedAns(Command):
    """Down, version 2: stops the node's repetitions of FragDataBlockReceivedReq."""

    CID: ClassVar[int] = 0x04
    frag_index: int

    def payload(self, version: int) -> bytes:
        only_in_v2(version, FragDataBlockReceivedAns=True)
        return bytes((_index(self.frag_index),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(frag_index=reader.unsigned(1) & 3)


@dataclass(frozen=True, slots=True)
class DataFragment(Command):
    """Down, unicast or multicast, alone in its frame: its data goes to the frame's end."""

    CID: ClassVar[int] = 0x08
    ALONE: ClassVar[bool] = True
    frag_index: int
    n: int  # 1..NbFrag plain, above that coded
    data: bytes

    def payload(self, version: int) -> bytes:
        index_and_n = in_range("n", self.n, 0, N_MAX) | _index(self.frag_index) << _INDEX_SHIFT
        return index_and_n.to_bytes(2, "little") + self.data

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        index_and_n = reader.unsigned(2)
        return cls(frag_index=index_and_n >> _INDEX_SHIFT, n=index_and_n & N_MAX, data=reader.rest())


UplinkCommand = (
    PackageVersionAns | FragSessionStatusAns | FragSessionSetupAns | FragSessionDeleteAns | FragDataBlockReceivedReq
)
DownlinkCommand = (
    PackageVersionReq
    | FragSessionStatusReq
    | FragSessionSetupReq
    | FragSessionDeleteReq
    | FragDataBlockReceivedAns
    | DataFragment
)

UPLINK: Mapping[int, Mapping[int, type[UplinkCommand]]] = {
    **by_version((1,), PackageVersionAns, FragSessionStatusAns, FragSessionSetupAns, FragSessionDeleteAns),
    **by_version(
        (2,),
        PackageVersionAns,
        FragSessionStatusAns,
        FragSessionSetupAns,
        FragSessionDeleteAns,
        FragDataBlockReceivedReq,
    ),
}
DOWNLINK: Mapping[int, Mapping[int, type[DownlinkCommand]]] = {
    **by_version(
        (1,), PackageVersionReq, FragSessionStatusReq, FragSessionSetupReq, FragSessionDeleteReq, DataFragment
    ),
    **by_version(
        (2,),
        PackageVersionReq,
        FragSessionStatusReq,
        FragSessionSetupReq,
        FragSessionDeleteReq,
        FragDataBlockReceivedAns,
        DataFragment,
    ),
}


def encode(
    commands: UplinkCommand | DownlinkCommand | Sequence[UplinkCommand | DownlinkCommand], version: int = 1
) -> bytes:
    """One frame of one or more commands. ValueError names the field and its range."""
    return encode_commands(commands, version, VERSIONS)


def decode_uplink(data: bytes, version: int = 1) -> Decoded[UplinkCommand]:
    """What a node sent in one frame."""
    return decode_commands(data, version, UPLINK)


def decode_downlink(data: bytes, version: int = 1) -> Decoded[DownlinkCommand]:
    """What was sent to a node in one frame."""
    return decode_commands(data, version, DOWNLINK)


def _index(frag_index: int) -> int:
    return in_range("frag_index", frag_index, 0, FRAG_INDEX_MAX)
