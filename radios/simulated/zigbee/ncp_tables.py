"""What an NCP keeps in RAM at its host's word: configuration, values, groups, peers that sleep. EZSP bodies in and out."""

import struct

SUCCESS, INVALID_CALL, INDEX_OUT_OF_RANGE = 0x00, 0x70, 0xB1
INVALID_ID = 0x37  # EzspStatus

_CONFIG_MULTICAST_TABLE_SIZE = 0x06
_DEFAULTS = {
    0x01: 255,
    0x03: 32,
    0x05: 16,
    0x06: 16,
    0x0C: 2,
    0x0D: 5,
    0x11: 32,
    0x12: 7680,
    0x1A: 200,
    0x1E: 12,
    0x2D: 1,
}
_CUSTOM_EUI64 = 0x0C
_VALUE_NWK_COUNTER, _VALUE_APS_COUNTER = 0x23, 0x24


class NcpTables:
    """Every method takes the body of a command and returns that of its answer; too short a body raises IndexError or struct.error."""

    def __init__(self) -> None:
        self.custom_eui64: bytes | None = None  # in flash that is written once
        self.reset()

    def reset(self) -> None:
        """RAM is lost."""
        self.new_counters = [0, 0]  # NWK and APS frame counters for the next network
        self.transient_keys: dict[bytes, bytes] = {}  # of nodes that may join with their install code, by EUI64
        self._values: dict[int, bytes] = {}
        self._configuration = dict(_DEFAULTS)
        self._multicast: dict[int, bytes] = {}
        self._slow: set[bytes] = set()

    def get_extended_timeout(self, body: bytes) -> bytes:
        return b"\x01" if body in self._slow else b"\x00"

    def set_extended_timeout(self, body: bytes) -> bytes:
        (self._slow.add if body[8] else self._slow.discard)(body[:8])
        return b""

    def get_value(self, body: bytes) -> bytes:
        match body[0]:
            case 0x03:
                return bytes((SUCCESS, 1, 200))
            case 0x11:
                return bytes((SUCCESS, 7)) + struct.pack("<HBBBBB", 0, 6, 7, 10, 0, 0xAA)
        found = self._values.get(body[0])
        return bytes((INVALID_ID, 0)) if found is None else bytes((SUCCESS, len(found))) + found

    def set_value(self, body: bytes) -> bytes:
        value = body[2 : 2 + body[1]]
        if body[0] in (_VALUE_NWK_COUNTER, _VALUE_APS_COUNTER):
            self.new_counters[body[0] - _VALUE_NWK_COUNTER] = int.from_bytes(value, "little")
        self._values[body[0]] = value
        return bytes((SUCCESS,))

    def configuration(self, identifier: int) -> int:
        return self._configuration.get(identifier, 0)

    def get_configuration(self, body: bytes) -> bytes:
        return struct.pack("<BH", SUCCESS, self._configuration.get(body[0], 0))

    def set_configuration(self, body: bytes) -> bytes:
        identifier, value = struct.unpack_from("<BH", body)
        self._configuration[identifier] = value
        return bytes((SUCCESS,))

    def manufacturing_token(self, body: bytes) -> bytes:
        sizes = {0x00: 8, 0x01: 16, 0x02: 16, _CUSTOM_EUI64: 8}
        if body[0] == _CUSTOM_EUI64 and self.custom_eui64 is not None:
            return bytes((8,)) + self.custom_eui64
        return bytes((sizes.get(body[0], 2),)) + b"\xff" * sizes.get(body[0], 2)

    def burn_manufacturing_token(self, body: bytes) -> bytes:
        """Only the EUI64, and once."""
        value = body[2 : 2 + body[1]]
        if body[0] != _CUSTOM_EUI64 or len(value) != 8 or self.custom_eui64 is not None:
            return bytes((INVALID_CALL,))
        self.custom_eui64 = value
        return bytes((SUCCESS,))

    def add_transient_key(self, body: bytes) -> bytes:
        partner, key = struct.unpack_from("<8s16s", body)
        self.transient_keys[partner] = key
        return bytes((SUCCESS,))

    def get_multicast(self, body: bytes) -> bytes:
        if body[0] >= self._configuration[_CONFIG_MULTICAST_TABLE_SIZE]:
            return bytes((INDEX_OUT_OF_RANGE,)) + bytes(4)
        return bytes((SUCCESS,)) + self._multicast.get(body[0], bytes(4))

    def set_multicast(self, body: bytes) -> bytes:
        self._multicast[body[0]] = body[1:5].ljust(4, b"\0")
        return bytes((SUCCESS,))
