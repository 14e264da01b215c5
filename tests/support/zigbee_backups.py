"""Coordinator backups in the two flavours that are found in the wild, with keys made up here."""

from typing import Any

NETWORK_KEY = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
LINK_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
HASHED_KEY = "99887766554433221100ffeeddccbbaa"
COORDINATOR = "000d6ffffe777777"
NODE = "00124b0000000001"
CHANNEL, PAN_ID, EXTENDED_PAN_ID = 20, "5d2e", "1122334455667788"
COUNTER = 123_456


def zigbee2mqtt(coordinator: str = COORDINATOR, **more: Any) -> dict[str, Any]:
    """As zigbee-herdsman's ember adapter writes it: a date, no network part, addresses without leading zeros."""
    return {
        "metadata": {
            "format": "zigpy/open-coordinator-backup",
            "version": 1,
            "source": "zigbee-herdsman@4.1.0",
            "internal": {"date": "2026-11-20T08:15:30.123Z", "ezspVersion": 13},
        },
        "stack_specific": {"ezsp": {"hashed_tclk": HASHED_KEY}},
        "coordinator_ieee": coordinator,
        "pan_id": PAN_ID,
        "extended_pan_id": EXTENDED_PAN_ID,
        "security_level": 5,
        "nwk_update_id": 0,
        "channel": CHANNEL,
        "channel_mask": [CHANNEL],
        "network_key": {"key": NETWORK_KEY, "sequence_number": 0, "frame_counter": COUNTER},
        "devices": [
            {"nwk_address": "abc", "ieee_address": NODE, "is_child": False},
            {
                "nwk_address": "2f01",
                "ieee_address": "00124B0000000002",
                "is_child": True,
                "link_key": {"key": LINK_KEY, "rx_counter": 7, "tx_counter": 8},
            },
            {"nwk_address": None, "ieee_address": "00124b0000000003", "is_child": False},
        ],
        **more,
    }


def zha(coordinator: str = COORDINATOR, **more: Any) -> dict[str, Any]:
    """As zigpy writes it for ZHA: the node, the network and the trust center's key within."""
    document = zigbee2mqtt(coordinator, **more)
    document["metadata"] |= {
        "source": "bellows@0.45.0",
        "internal": {
            "creation_time": "2026-11-20T08:15:30.123456+00:00",
            "node": {
                "ieee": coordinator,
                "nwk": "0000",
                "type": "coordinator",
                "model": "stick",
                "manufacturer": "x",
                "version": "7.4",
            },
            "network": {
                "tc_link_key": {"key": "5a6967426565416c6c69616e63653039", "frame_counter": 77},
                "tc_address": coordinator,
                "nwk_manager": "0000",
            },
            "link_key_seqs": {"00124B0000000002": 0},
            "route_table": {},
            "tx_power": 8,
            "ezsp": {"stack_version": 13},
        },
    }
    document["devices"][0]["nwk_address"] = "0abc"
    return document
