"""The demo's nodes as a process of their own: `python -m gatewayd.demo.site` with a JSON line of settings on stdin.

It outlives the daemon, as nodes do. On stdout it writes JSON lines: first where the radios are, then every `snapshot_s`, and
after each command, what every node holds; when stdin closes, what is in every node's flash, and it ends. Until then stdin
takes commands (`Controls`); how many have been obeyed is in every snapshot.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gatewayd.cloud.messages import ManufacturerSignature
from gatewayd.demo import scenario
from gatewayd.errors import Refused
from gatewayd.trust.signature import verify_digest
from radios.clock import ScaledClock
from radios.simulated.chirpstack.mqtt import MqttSettings
from radios.simulated.chirpstack.network import NetworkSettings
from radios.simulated.chirpstack.site import LorawanSite
from radios.simulated.lorawan import firmware as lorawan_firmware
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from radios.simulated.lorawan.region import RX2_FREQUENCY_HZ, sub_band
from radios.simulated.lorawan.spec import NodeSpec as LorawanSpec
from radios.simulated.zigbee.channel import Channel
from radios.simulated.zigbee.cut_frames import CutFrames
from radios.simulated.zigbee.foreground import Foreground
from radios.simulated.zigbee.node_spec import NodeSpec as ZigbeeSpec
from radios.simulated.zigbee.ota_terms import OtaHabits
from radios.simulated.zigbee.site import ZigbeeSite

NEW_DONGLE_EUI64 = 0x00_0D_6F_FF_FE_51_4D_99
GATEWAY_ID = "0016c001ff000001"
GATEWAY_BUS_PREFIX = "eu868"
MULTICAST_BAND = sub_band(RX2_FREQUENCY_HZ).name
TENANT_ID = "52f14cd4-c6f1-4fbd-8f87-4025e1d49242"
APPLICATION_ID = "3a1c1a9e-6e1f-4d0a-9f58-6f0c3a9a4d11"
GEN_APP_KEY = bytes(range(16))


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """Read from the first line of stdin."""

    zigbee_scale: float
    lorawan_scale: float
    origin: float  # Unix seconds at which scaled and real time agree
    mqtt_host: str
    mqtt_port: int
    api_token: str
    public_key: str  # the manufacturer's, base64 DER SubjectPublicKeyInfo
    signatures: Mapping[str, Mapping[str, str]]  # digest of an image -> ManufacturerSignature: the trailer of the image
    zigbee_nodes: Sequence[scenario.ZigbeeNode] = scenario.ZIGBEE_NODES
    lorawan_nodes: Sequence[scenario.LorawanNode] = scenario.LORAWAN_NODES
    shared_channel: bool = False  # the Zigbee nodes' frames wait for each other
    reports_per_s: float = 0.0  # of all Zigbee nodes together, on their clock, from the first image block on
    snapshot_s: float = 0.5

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        values = json.loads(line)
        values["zigbee_nodes"] = [scenario.ZigbeeNode(**node) for node in values["zigbee_nodes"]]
        values["lorawan_nodes"] = [scenario.LorawanNode(**node) for node in values["lorawan_nodes"]]
        return cls(**values)


class Bootloader:
    """What the nodes' bootloaders share: the manufacturer's public key."""

    def __init__(self, settings: SiteSettings) -> None:
        public = load_der_public_key(base64.b64decode(settings.public_key))
        assert isinstance(public, RSAPublicKey | EllipticCurvePublicKey)  # noqa: S101 - the demo made it
        self._public = public
        self._signatures = {
            digest: ManufacturerSignature.model_validate_json(json.dumps(value))
            for digest, value in settings.signatures.items()
        }

    def accepts(self, image: bytes) -> bool:
        """Whether the manufacturer has signed exactly these bytes."""
        digest = hashlib.sha256(image).digest()
        signature = self._signatures.get(digest.hex())
        if signature is None:
            return False
        try:
            verify_digest(self._public, signature, digest)
        except Refused:
            return False
        return True

    def version_of(self, image: bytes) -> int | None:
        """The version that a signed LoRaWAN image names."""
        return lorawan_firmware.parse(image).version if self.accepts(image) else None


def zigbee_spec(node: scenario.ZigbeeNode, bootloader: Bootloader) -> ZigbeeSpec:
    return ZigbeeSpec(
        eui64=node.eui64,
        manufacturer_code=scenario.MANUFACTURER_CODE,
        image_type=node.image_type,
        version=scenario.ZIGBEE_OLD,
        image=scenario.zigbee_image(scenario.ZIGBEE_OLD, node.image_type),
        manufacturer="Example Lighting",
        model=node.name,
        battery_percent=node.battery_percent,
        sleepy=node.sleepy,
        hops=node.hops,
        loss=node.loss,
        mac_loss=node.mac_loss,
        fast_poll_s=0.1,  # a node that polls once in 250 ms needs half a minute of the demo for this image
        seed=1,
        verify=bootloader.accepts,
        habits=OtaHabits(
            page_size=1000 if node.pages else None, minimum_block_period=0 if node.offers_block_period else None
        ),
        joined=not node.joins,
        check_in_s=node.check_in_s,
        forgets_configuration=node.forgets_configuration,
        self_test_fails=node.self_test_fails,
        tells_reset_cause=node.tells_reset_cause,
        delta_formats=tuple(node.delta_formats),
    )


def lorawan_spec(node: scenario.LorawanNode) -> LorawanSpec:
    return LorawanSpec(
        dev_eui=f"{node.dev_eui:016x}",
        gen_app_key=hashlib.sha256(GEN_APP_KEY + node.dev_eui.to_bytes(8, "big")).digest()[:16],
        image=scenario.lorawan_image(node.version),
        version=node.version,
        hardware=scenario.LORAWAN_HW,
        name=node.name,
        device_class=node.device_class,
        package_versions=_packages(node),
        status_style=StatusStyle(node.status_style),
        downlink_loss=node.loss,
        uplink_loss=node.loss / 2,
        mains=node.battery_percent is None,
        battery_percent=node.battery_percent,
        self_test_fails=node.self_test_fails,
        tells_reset_cause=node.tells_reset_cause,
        uplink_interval_s=node.uplink_interval_s,
        snr_db=node.snr_db,
        data_rate=node.data_rate,
        group_frames_most=node.group_frames_most,
        tags={"owner": "demo", **dict(node.tags)},
        delta_formats=tuple(node.delta_formats),
        seed=1,
    )


def _packages(node: scenario.LorawanNode) -> dict[int, int]:
    """Versions by package id; 0: the node has none."""
    multicast = node.package_version if node.multicast else 0
    found = {0: 1, 2: multicast, 3: node.package_version, 4: 1 if node.firmware_management else 0}
    return found if node.multi_package else {package: version for package, version in found.items() if package}


def flash(zigbee: ZigbeeSite, lorawan: LorawanSite) -> dict[str, str]:
    """SHA-256 of what every node runs."""
    running = {name: node.running_image for name, node in zigbee.nodes.items()}
    running |= {str(name): node.running_image for name, node in lorawan.nodes.items()}
    return {name: hashlib.sha256(image).hexdigest() for name, image in running.items()}


def arrived(reports: Foreground) -> dict[str, list[int]]:
    """Reports that have reached the dongle: the ZCL sequences by node."""
    found: dict[str, list[int]] = {}
    for message in reports.messages:
        if message.latency_s is not None and math.isfinite(message.latency_s) and message.sequence is not None:
            found.setdefault(message.node, []).append(message.sequence)
    return found


class Controls:
    """What tests do to the dongle while the site runs, or "look", which asks for a snapshot: {"do": ...} lines on stdin."""

    def __init__(self, site: ZigbeeSite) -> None:
        self._site = site
        self.obeyed = 0
        self.news = asyncio.Event()  # stdin said something, or is closed

    async def obey(self, line: bytes) -> None:
        """KeyError or ValueError when that is none of them."""
        dongle = self._site.dongle
        match json.loads(line)["do"]:
            case "unplug":
                dongle.unplug()
            case "plug":
                await dongle.start()
            case "reset":
                dongle.reset_ncp()
            case "replace":  # by one that comes from the factory, in the same socket
                await self._site.replace_dongle(NEW_DONGLE_EUI64)
            case "look":
                pass
            case other:
                raise ValueError(f"the site cannot {other!r}")
        self.obeyed += 1
        self.news.set()


def dongle(site: ZigbeeSite) -> dict[str, object]:
    """What the dongle is, and which network it holds; its key as a digest."""
    network = site.dongle.ncp.network
    held = None
    if network is not None:
        secret = network.network_key + network.extended_pan_id + bytes((network.channel,))
        held = hashlib.sha256(secret + network.pan_id.to_bytes(2, "little")).hexdigest()
    return {
        "eui64": site.dongle.ncp.eui64[::-1].hex(),
        "network": held,
        "frame_counter": 0 if network is None else network.nwk_frame_counter,
        "connections": site.dongle.connections,
        "install_codes": sorted(f"zigbee:{eui64[::-1].hex()}" for eui64 in site.dongle.ncp.tables.transient_keys),
    }


def air(channel: Channel | None) -> dict[str, object]:
    """What the shared channel has carried."""
    if channel is None:
        return {}
    return {"busy_s": round(channel.busy_s, 1), "transmissions": channel.transmissions, "retries": channel.retries}


def network(site: LorawanSite) -> dict[str, float]:
    """What the LoRaWAN network server and its gateway have done."""
    groups, gateway = site.network.multicast, site.network.air.gateways[GATEWAY_ID]
    return {
        "groups": len(groups.groups),
        "f_cnts_reused": groups.f_cnts_reused,
        "multicasts_refused": groups.dropped_refused,
        "over_duty_cycle": gateway.statuses["DUTY_CYCLE_OVERFLOW"],
        "air_s": gateway.airtime_s,
        "air_of_hour_s": gateway.airtime_in_window_s(MULTICAST_BAND, site.network.agenda.now),
    }


async def _obey(reader: asyncio.StreamReader, controls: Controls) -> None:
    """Until stdin is closed."""
    try:
        while line := await reader.readline():
            await controls.obey(line)
    finally:
        controls.news.set()


def _say(document: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    settings = SiteSettings.from_json(await reader.readline())
    bootloader = Bootloader(settings)
    zigbee_site = ZigbeeSite(
        [zigbee_spec(node, bootloader) for node in settings.zigbee_nodes],
        ScaledClock(settings.zigbee_scale, settings.origin),
        channel=Channel(seed=1) if settings.shared_channel else None,
    )
    lorawan_site = LorawanSite(
        [lorawan_spec(node) for node in settings.lorawan_nodes],
        ScaledClock(settings.lorawan_scale, settings.origin),
        verify=bootloader.version_of,
        settings=NetworkSettings(
            tenant_id=TENANT_ID,
            application_id=APPLICATION_ID,
            gateway_ids=[GATEWAY_ID],
            status_interval_s=300.0,
            refused_share=0.02,
            ack_loss=0.02,
            app_layer={f"{node.dev_eui:016x}": node.app_layer for node in settings.lorawan_nodes},
        ),
        api_token=settings.api_token,
        mqtt=MqttSettings(settings.mqtt_host, settings.mqtt_port, gateway_prefix=GATEWAY_BUS_PREFIX),
    )
    async with zigbee_site, lorawan_site:
        _say({"zigbee": zigbee_site.url, "lorawan": lorawan_site.grpc_target})
        reports = Foreground(zigbee_site.mesh, settings.reports_per_s or 1.0, seed=1, down_share=0.0)
        broken = [
            CutFrames(zigbee_site.mesh, zigbee_site.nodes[node.id])
            for node in settings.zigbee_nodes
            if node.sends_cut_frames
        ]
        controls = Controls(zigbee_site)
        closed = asyncio.create_task(_obey(reader, controls), name="site-controls")
        while not closed.done():
            if any(node.ota.staged for node in zigbee_site.nodes.values()):
                if settings.reports_per_s:
                    reports.start(zigbee_site.clock.now())
                for frames in broken:
                    frames.start(zigbee_site.clock.now())
            controls.news.clear()
            _say(
                {
                    "obeyed": controls.obeyed,
                    "nodes": {**zigbee_site.snapshot(), **lorawan_site.snapshot()},
                    "reports": arrived(reports),
                    "dongle": dongle(zigbee_site),
                    "network": network(lorawan_site),
                    "air": air(zigbee_site.mesh.channel),
                    "cut_frames": sum(frames.arrived for frames in broken),
                    "headless_frames": sum(frames.headless for frames in broken),
                }
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(controls.news.wait(), settings.snapshot_s)
        closed.result()
        _say(
            {"nodes": {**zigbee_site.snapshot(), **lorawan_site.snapshot()}, "flash": flash(zigbee_site, lorawan_site)}
        )


if __name__ == "__main__":
    asyncio.run(main())
