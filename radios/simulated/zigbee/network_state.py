"""What an NCP keeps in its own flash: the network it formed, its keys and frame counters."""

import hashlib
import struct
from dataclasses import dataclass, field

_PARAMETERS = struct.Struct("<8sHBBBHBI")
_SECURITY = struct.Struct("<H16s16sB8s")
_HAVE_TRUST_CENTER_EUI64 = 0x0040
COORDINATOR_EUI64 = 0x00_0D_6F_FF_FE_51_4D_00


@dataclass(slots=True)
class NetworkState:
    """The network. Survives resets of the NCP and hosts that come and go."""

    extended_pan_id: bytes
    pan_id: int
    tx_power_dbm: int
    channel: int
    join_method: int
    manager: int
    update_id: int
    channels: int
    network_key: bytes
    link_key: bytes
    key_sequence: int
    trust_center: bytes
    hashed_link_key: bool
    nwk_frame_counter: int = 0
    aps_frame_counter: int = 0
    link_keys: list[tuple[bytes, bytes]] = field(default_factory=list)  # EUI64, key

    def parameters(self) -> bytes:
        """EmberNetworkParameters."""
        return _PARAMETERS.pack(
            self.extended_pan_id,
            self.pan_id,
            self.tx_power_dbm,
            self.channel,
            self.join_method,
            self.manager,
            self.update_id,
            self.channels,
        )


def form(parameters: bytes, security: bytes, coordinator: bytes, *, nwk_counter: int, aps_counter: int) -> NetworkState:
    """A network from EmberNetworkParameters and EmberInitialSecurityState. struct.error when either is too short."""
    extended, pan, power, channel, method, manager, update, channels = _PARAMETERS.unpack_from(parameters)
    bitmask, link_key, network_key, sequence, center = _SECURITY.unpack_from(security)
    return NetworkState(
        extended_pan_id=extended,
        pan_id=pan,
        tx_power_dbm=power,
        channel=channel,
        join_method=method,
        manager=manager,
        update_id=update,
        channels=channels,
        network_key=network_key,
        link_key=link_key,
        key_sequence=sequence,
        trust_center=center if bitmask & _HAVE_TRUST_CENTER_EUI64 and any(center) else coordinator,
        hashed_link_key=bool(bitmask & 0x0080),
        nwk_frame_counter=nwk_counter,
        aps_frame_counter=aps_counter,
    )


def ready_made(seed: str = "site", coordinator: int = COORDINATOR_EUI64) -> NetworkState:
    """A network that was formed long ago; its keys come from the seed (a simulation keeps no secrets)."""
    secret = hashlib.shake_256(f"network of {seed}".encode()).digest(42)
    return NetworkState(
        extended_pan_id=secret[:8],
        pan_id=int.from_bytes(secret[8:10], "little") & 0x3FFF or 1,
        tx_power_dbm=8,
        channel=15,
        join_method=0,
        manager=0,
        update_id=0,
        channels=1 << 15,
        network_key=secret[10:26],
        link_key=secret[26:42],
        key_sequence=0,
        trust_center=coordinator.to_bytes(8, "little"),
        hashed_link_key=True,
        nwk_frame_counter=1000,
    )
