"""An NCP that speaks EZSP version 8: commands in, answers and callbacks out, as bytes. No host, no serial line.

Responsible for what EmberZNet would do for the host: network state, messages to and from the mesh, ZDO of the coordinator
itself. Numbers of commands and layouts are those of UG100. A callback carries the sequence of the last answered command:
hosts match answers by sequence alone.
"""

import struct
from collections.abc import Callable

from radios.simulated.zigbee import network_state
from radios.simulated.zigbee.faults import Faults
from radios.simulated.zigbee.frames import PROFILE_ZDO, ApsFrame
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.ncp_neighbours import NcpNeighbours, route_record
from radios.simulated.zigbee.ncp_tables import NcpTables
from radios.simulated.zigbee.network_state import NetworkState
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.zdo import coordinator_answer

VERSION, STACK_TYPE, STACK_VERSION = 8, 2, 0x67A0

SUCCESS, NOT_FOUND, DELIVERY_FAILED, INVALID_CALL, MESSAGE_LIMIT = 0x00, 0x03, 0x66, 0x70, 0x72
NETWORK_UP, NETWORK_DOWN, NOT_JOINED, NETWORK_BUSY, INDEX_OUT_OF_RANGE = 0x90, 0x91, 0x93, 0xA1, 0xB1
_EZSP_INVALID_FRAME_ID, _EZSP_INVALID_VALUE = 0x31, 0x36

_SEND_UNICAST, _GET_EXTENDED_TIMEOUT, _INVALID_COMMAND = 0x0034, 0x007F, 0x0058
_STACK_STATUS, _JOINED, _SCAN_ENERGY, _SCAN_DONE = 0x0019, 0x0024, 0x0048, 0x001C
_MESSAGE_SENT, _INCOMING, _ROUTE_RECORD = 0x003F, 0x0045, 0x0059

_APS_RETRY = 0x0040
_MOST_UNICASTS = 0x03  # configuration: messages on their way at once
_INCOMING_UNICAST, _INCOMING_BROADCAST = 0x00, 0x04
_ADDRESS_REQUESTS = (0x0000, 0x0001)
_NOBODY = b"\xff" * 8
_COUNTERS = 40

_UNICAST = struct.Struct("<BHHHBBHHBBB")
_BROADCAST = struct.Struct("<HHHBBHHBBBB")
_MULTICAST = struct.Struct("<HHBBHHBBBBB")
_INCOMING_FRAME = struct.Struct("<BB3sBHHBBHHBBbHBBB")
_CALLBACK_CONTROL = b"\x90\x01"


Handler = Callable[[bytes], bytes]


class Ncp:
    """`send` gets every EZSP frame for the host; None while there is none."""

    def __init__(self, mesh: Mesh, now: Callable[[], float], network: NetworkState | None, eui64: int) -> None:
        self.network = network
        self.faults = Faults()
        self.send: Callable[[bytes], None] | None = None
        self.network_is_up = False
        self.callbacks_without_host = 0
        self.messages_sent = 0
        self._mesh = mesh
        self._now = now
        self._eui64 = eui64.to_bytes(8, "little")
        self.tables = NcpTables()
        self._neighbours = NcpNeighbours(mesh)
        # In flash beside the network: hosts write it before they form one.
        self._link_keys = network.link_keys if network is not None else []
        self._handlers = self._commands()
        self._aps_counter = 0
        self.reset()

    def reset(self) -> None:
        """RAM is lost; the network in flash is kept, and down until the host asks for it."""
        self.network_is_up = False
        self._negotiated = False
        self._last_answered = 0
        self._security = b""
        self.tables.reset()
        self._on_their_way: set[object] = set()
        self._after: list[Callable[[], None]] = []

    @property
    def eui64(self) -> bytes:
        """Its own, or the one that a host has burnt into it since."""
        return self.tables.custom_eui64 or self._eui64

    @property
    def listening(self) -> bool:
        """Whether a host hears callbacks: it is there, speaks version 8 and has started the network."""
        return self.send is not None and self._negotiated and self.network_is_up

    # ---- from the host

    def receive(self, frame: bytes) -> None:
        """Answer one EZSP command. What is no command of version 8 gets invalidCommand; what is too short, nothing."""
        if len(frame) == 4 and frame[2] == 0:
            self._answer(struct.pack("<BBBBBH", frame[0], 0x80, 0x00, VERSION, STACK_TYPE, STACK_VERSION), frame[0])
            return
        if len(frame) < 5:
            return
        command = frame[3] | frame[4] << 8
        handler = self._handlers.get(command)
        head = bytes((frame[0], 0x80, 0x01))
        if handler is None:
            self._answer(head + struct.pack("<HB", _INVALID_COMMAND, _EZSP_INVALID_FRAME_ID), frame[0])
            return
        try:
            body = handler(frame[5:])
        except (struct.error, IndexError):
            self._answer(head + struct.pack("<HB", _INVALID_COMMAND, _EZSP_INVALID_VALUE), frame[0])
            return
        if command == 0:
            self._negotiated = True
        self._answer(head + frame[3:5] + body, frame[0])
        while self._after:
            self._after.pop(0)()

    # ---- from the mesh

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        payload = frame.payload
        self._callback(
            _INCOMING_FRAME.pack(
                self._last_answered,
                0x90,
                b"\x01\x45\x00",
                _INCOMING_BROADCAST if frame.broadcast else _INCOMING_UNICAST,
                frame.profile,
                frame.cluster,
                frame.source_endpoint,
                frame.destination_endpoint,
                0,
                0,
                frame.counter,
                node.spec.lqi,
                node.spec.rssi_dbm,
                node.nwk,
                0xFF,
                0xFF,
                len(payload),
            )
            + payload
        )

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        self._callback(self._head(_JOINED) + struct.pack("<HQBBH", node.nwk, node.spec.eui64, status, 0, 0x0000))

    def route_recorded(self, node: VirtualNode, relays: tuple[int, ...]) -> None:
        self._callback(self._head(_ROUTE_RECORD) + route_record(node, relays))

    # ---- sending

    def _answer(self, frame: bytes, sequence: int) -> None:
        if self.send is not None:
            self.send(frame)
        self._last_answered = sequence

    def _callback(self, frame: bytes) -> None:
        """Nothing reaches a host that is away or has not started the network: real NCPs drop it too."""
        if self.send is not None and self.listening:
            self.send(frame)
        else:
            self.callbacks_without_host += 1

    def _head(self, command: int) -> bytes:
        return struct.pack("<B2sH", self._last_answered, _CALLBACK_CONTROL, command)

    def _stack_status(self, status: int) -> None:
        def tell() -> None:
            self.network_is_up = True  # so that the callback itself passes
            self._callback(self._head(_STACK_STATUS) + bytes((status,)))
            self.network_is_up = status == NETWORK_UP
            if self.network_is_up:
                self._mesh.network_up(self._now())

        self._after.append(tell)

    # ---- messages

    def _send_unicast(self, body: bytes) -> bytes:
        kind, destination, profile, cluster, source, remote, options, group, _, tag, length = _UNICAST.unpack_from(body)
        payload = body[_UNICAST.size : _UNICAST.size + length]
        if not self.network_is_up or kind != 0:
            return bytes((INVALID_CALL, 0))
        if self.faults.busy:
            self.faults.busy -= 1
            return bytes((NETWORK_BUSY, 0))
        if len(self._on_their_way) >= self.tables.configuration(_MOST_UNICASTS):
            return bytes((MESSAGE_LIMIT, 0))
        counter = self._count_frame()
        told = struct.pack(
            "<BHHHBBHHBBB", 0, destination, profile, cluster, source, remote, options, group, counter, tag, 0
        )

        message = object()
        epoch = self._on_their_way  # a reset forgets what is on its way
        self._on_their_way.add(message)

        def done(arrived: bool) -> None:
            epoch.discard(message)
            if epoch is not self._on_their_way:
                return
            status = SUCCESS if arrived else DELIVERY_FAILED
            self._callback(self._head(_MESSAGE_SENT) + told[:-1] + bytes((status, 0)))

        now = self._now()
        if self.faults.swallowed:
            self.faults.swallowed -= 1
            self._on_their_way.discard(message)
        elif self.faults.undelivered:
            self.faults.undelivered -= 1
            self._mesh.call_at(now, lambda _: done(False))
        elif destination == 0x0000:
            self._mesh.call_at(now, lambda _: self._to_myself(profile, cluster, payload, done))
        else:
            frame = ApsFrame(profile, cluster, source, remote, payload, counter)
            self._mesh.unicast(destination, frame, now, acknowledged=bool(options & _APS_RETRY), done=done)
        return bytes((SUCCESS, counter))

    def _send_broadcast(self, body: bytes) -> bytes:
        destination, profile, cluster, source, remote, *_, length = _BROADCAST.unpack_from(body)
        payload = body[_BROADCAST.size : _BROADCAST.size + length]
        if not self.network_is_up:
            return bytes((INVALID_CALL, 0))
        counter = self._count_frame()
        frame = ApsFrame(profile, cluster, source, remote, payload, counter, broadcast=True)
        # Parents answer address requests for their sleeping children; here the children do it themselves.
        for_all = destination == 0xFFFF or (profile == PROFILE_ZDO and cluster in _ADDRESS_REQUESTS)
        self._mesh.broadcast(frame, self._now(), to_sleepy=for_all)
        return bytes((SUCCESS, counter))

    def _send_multicast(self, body: bytes) -> bytes:
        _MULTICAST.unpack_from(body)
        return bytes((SUCCESS if self.network_is_up else INVALID_CALL, self._count_frame()))

    def _count_frame(self) -> int:
        self.messages_sent += 1
        self._aps_counter = (self._aps_counter + 1) % 256
        if self.network is not None:
            self.network.nwk_frame_counter += 1
        return self._aps_counter

    def _to_myself(self, profile: int, cluster: int, payload: bytes, done: Callable[[bool], None]) -> None:
        done(True)
        if profile != PROFILE_ZDO or cluster & 0x8000 or not payload:
            return
        head = struct.pack("<BHHBBHHB", _INCOMING_UNICAST, PROFILE_ZDO, cluster | 0x8000, 0, 0, 0, 0, self._aps_counter)
        text = payload[:1] + coordinator_answer(cluster, payload, self._neighbours.table(self.network))
        self._callback(self._head(_INCOMING) + head + struct.pack("<BbHBBB", 255, -10, 0, 0xFF, 0xFF, len(text)) + text)

    # ---- network

    def _network_init(self, _body: bytes) -> bytes:
        if self.network is None:
            return bytes((NOT_JOINED,))
        self._stack_status(NETWORK_UP)
        return bytes((SUCCESS,))

    def _form(self, body: bytes) -> bytes:
        if self.network_is_up:
            return bytes((INVALID_CALL,))
        nwk, aps = self.tables.new_counters
        self.network = network_state.form(body, self._security, self.eui64, nwk_counter=nwk, aps_counter=aps)
        self.network.link_keys = self._link_keys
        self._stack_status(NETWORK_UP)
        return bytes((SUCCESS,))

    def _leave(self, _body: bytes) -> bytes:
        if not self.network_is_up:
            return bytes((INVALID_CALL,))
        self.network = None
        self._stack_status(NETWORK_DOWN)
        return bytes((SUCCESS,))

    def _set_security(self, body: bytes) -> bytes:
        self._security = body
        return bytes((SUCCESS,))

    def _parameters(self, _body: bytes) -> bytes:
        if self.network is None or not self.network_is_up:
            return bytes((NOT_JOINED,)) + bytes(21)
        return bytes((SUCCESS, 1)) + self.network.parameters()

    def _security_state(self, _body: bytes) -> bytes:
        if self.network is None:
            return bytes((NOT_JOINED,)) + bytes(10)
        return struct.pack(
            "<BH8s", SUCCESS, 0x0094 if self.network.hashed_link_key else 0x0014, self.network.trust_center
        )

    def _key(self, body: bytes) -> bytes:
        network = self.network
        if network is None or body[0] not in (1, 3):
            return bytes((NOT_FOUND,)) + bytes(36)
        if body[0] == 3:
            fields = (0x0003, 3, network.network_key, network.nwk_frame_counter, 0, network.key_sequence, bytes(8))
        else:
            fields = (0x000A, 1, network.link_key, network.aps_frame_counter, 0, 0, _NOBODY)
        return struct.pack("<BHB16sIIB8s", SUCCESS, *fields)

    def _key_table_entry(self, body: bytes) -> bytes:
        if body[0] >= len(self._link_keys):
            return bytes((INDEX_OUT_OF_RANGE,)) + bytes(36)
        partner, key = self._link_keys[body[0]]
        return struct.pack("<BHB16sIIB8s", SUCCESS, 0x0008, 5, key, 0, 0, 0, partner)

    def _permit(self, body: bytes) -> bytes:
        self._mesh.permit_joining(1e9 if body[0] == 0xFF else body[0], self._now())
        return bytes((SUCCESS,))

    def _remove(self, body: bytes) -> bytes:
        (target,) = struct.unpack_from("<Q", body, 10)
        return bytes((SUCCESS if self._mesh.remove(target, self._now()) else NOT_FOUND,))

    def _scan(self, body: bytes) -> bytes:
        kind, mask, _ = struct.unpack_from("<BIB", body)

        def tell() -> None:
            up, self.network_is_up = self.network_is_up, True
            for channel in range(11, 27):
                if kind == 0 and mask >> channel & 1:
                    self._callback(self._head(_SCAN_ENERGY) + struct.pack("<Bb", channel, -80))
            self._callback(self._head(_SCAN_DONE) + bytes((0, SUCCESS)))
            self.network_is_up = up

        self._after.append(tell)
        return bytes((SUCCESS,))

    # ---- tables

    def _add_link_key(self, body: bytes) -> bytes:
        partner, key = struct.unpack_from("<8sx16s", body)
        self._link_keys[:] = [k for k in self._link_keys if k[0] != partner] + [(partner, key)]
        return bytes((SUCCESS,))

    def _clear_link_keys(self, _body: bytes) -> bytes:
        self._link_keys.clear()
        return bytes((SUCCESS,))

    def _commands(self) -> dict[int, Handler]:
        return {
            _SEND_UNICAST: self._send_unicast,
            _GET_EXTENDED_TIMEOUT: self.tables.get_extended_timeout,
            0x0000: lambda _: struct.pack("<BBH", VERSION, STACK_TYPE, STACK_VERSION),
            0x0002: _succeed,  # addEndpoint
            0x0005: _nothing,  # nop
            0x000B: self.tables.manufacturing_token,
            0x000C: self.tables.burn_manufacturing_token,
            0x0010: _succeed,  # setConcentrator
            0x0015: _nothing,  # setManufacturerCode
            0x0017: self._network_init,
            0x0018: lambda _: bytes((2 if self.network_is_up else 0,)),  # networkState
            0x001A: self._scan,
            0x001D: _succeed,  # stopScan
            0x001E: self._form,
            0x0020: self._leave,
            0x0022: self._permit,
            0x0026: lambda _: self.eui64,
            0x0027: lambda _: b"\x00\x00" if self.network_is_up else b"\xfe\xff",  # getNodeId
            0x0028: self._parameters,
            0x0036: self._send_broadcast,
            0x0038: self._send_multicast,
            0x0039: _succeed,  # sendReply
            0x004A: self._neighbours.child,
            0x0052: self.tables.get_configuration,
            0x0053: self.tables.set_configuration,
            0x0055: _succeed,  # setPolicy
            0x005A: lambda _: bytes(4),  # setSourceRouteDiscoveryMode
            0x005E: lambda _: _NOBODY,  # getAddressTableRemoteEui64
            0x005F: lambda _: b"\xff\xff",  # getAddressTableRemoteNodeId
            0x0060: self._neighbours.node_of,
            0x0061: self._neighbours.eui64_of,
            0x0063: self.tables.get_multicast,
            0x0064: self.tables.set_multicast,
            0x0065: lambda _: bytes(2 * _COUNTERS),  # readAndClearCounters
            0x0066: self._add_link_key,
            0x0068: self._set_security,
            0x0069: self._security_state,
            0x006A: self._key,
            0x0071: self._key_table_entry,
            0x0075: lambda _: b"\xff",  # findKeyTableEntry
            0x0076: _succeed,  # eraseKeyTableEntry
            0x007E: self.tables.set_extended_timeout,
            0x0082: lambda _: bytes((SUCCESS,)) + _NOBODY + b"\xff\xff\x00",  # replaceAddressTableEntry
            0x0099: _succeed,  # setRadioPower
            0x00A8: self._remove,
            0x00AA: self.tables.get_value,
            0x00AB: self.tables.set_value,
            0x00AE: _succeed,  # setSourceRoute
            0x00AF: self.tables.add_transient_key,
            0x00B1: self._clear_link_keys,
            0x00E2: _nothing,  # gpSinkTableClearAll
            0x00F1: lambda _: bytes(2 * _COUNTERS),  # readCounters
        }


def _succeed(_body: bytes) -> bytes:
    return bytes((SUCCESS,))


def _nothing(_body: bytes) -> bytes:
    return b""
