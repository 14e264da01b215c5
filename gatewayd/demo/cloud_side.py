"""The demo's cloud: authority, keys, repository, web server, campaigns, collector; all by the publisher's own code."""

import asyncio
import hashlib
import math
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from gatewayd.cloud.messages import Gate, Policy, Release, ReportKind, Rollout, StageBy, Tier, dump
from gatewayd.demo import scenario
from gatewayd.demo.authority import Authority
from gatewayd.demo.verdict import Told
from gatewayd.errors import Bug, Unavailable
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.collector import ReportStore, collect
from gatewayd.publisher.firmware import NO_DELTAS, DeltaPlan, FirmwareFile, ReleaseSpec
from gatewayd.publisher.keys import KeyFolder, KeyKind, ManufacturerSigner, Role, campaign_key, generate_all
from gatewayd.publisher.repository import Repository

GATEWAY = "demo-gateway"
ZIGBEE_CAMPAIGN, LORAWAN_CAMPAIGN = "demo-lamps", "demo-meters"
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Firmware:
    """One release of the demo: what it is, and its image on disk."""

    spec: ReleaseSpec
    image: bytes
    deltas: DeltaPlan = NO_DELTAS


FIRMWARE = (
    Firmware(
        ReleaseSpec(
            name="lamp",
            version="2.0.0",
            sequence=200,
            security_version=2,
            node_version=scenario.ZIGBEE_NEW,
            hardware=(scenario.ZIGBEE_HARDWARE,),
            container="zigbee-ota",
            self_test_s=scenario.SELF_TEST_S,
        ),
        scenario.zigbee_image(scenario.ZIGBEE_NEW),
    ),
    Firmware(
        ReleaseSpec(
            name="meter",
            version="1.3.0",
            sequence=130,
            security_version=1,
            node_version=scenario.LORAWAN_NEW,
            hardware=(scenario.LORAWAN_HARDWARE,),
            container="opaque",
            # In the radio's time, which the demo runs faster.
            self_test_s=600,
        ),
        scenario.lorawan_image(scenario.LORAWAN_NEW),
    ),
)


class CloudSide:
    """Made in a folder; `serve` and `collecting` run until cancelled."""

    def __init__(self, folder: Path, manufacturer: KeyKind = KeyKind.RSA_4096) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = Authority(folder / "ca", "gatewayd demo, throw-away")
        self.keys: KeyFolder = generate_all(folder / "keys", manufacturer=manufacturer)
        self.repository = Repository.create(folder / "repository", self.keys)
        self.manufacturer: ManufacturerSigner = self.keys.manufacturer()
        self.web_port = 0
        self.signatures: dict[str, Mapping[str, str]] = {}
        self._runner: web.AppRunner | None = None
        self._reports: ReportStore | None = None

    @property
    def reports(self) -> ReportStore:
        if self._reports is None:
            raise Bug("the demo's cloud does not serve yet")
        return self._reports

    def publish(self, firmware: Sequence[Firmware] = FIRMWARE) -> None:
        """Keys and releases into the repository."""
        now = time.time()
        hardware = (scenario.ZIGBEE_HARDWARE, scenario.LORAWAN_HARDWARE)
        self.repository.set_campaign_keys([campaign_key(self.keys.signer(Role.CAMPAIGN), (f"gateway:{GATEWAY}",))])
        self.repository.set_manufacturers(
            [self.manufacturer.manufacturer("Example Works", hardware, now - DAY_S, now + 365 * DAY_S)]
        )
        for one in firmware:
            self.add_release(one)

    def add_release(self, firmware: Firmware) -> Release:
        """Sign as the manufacturer and publish."""
        path = self.folder / f"{firmware.spec.name}-{firmware.spec.version}.bin"
        path.write_bytes(firmware.image)
        release = self.repository.add_release(firmware.spec, FirmwareFile(path, self.manufacturer), firmware.deltas)
        payload = release.payloads[0]
        self.signatures[payload.sha256] = payload.signature.model_dump(mode="json")
        return release

    async def serve(self) -> None:
        """The repository over HTTPS; aiohttp's files answer Range and If-Range. And the store of reports."""
        self._reports = ReportStore(self.folder / "reports.db")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = self.authority.server("web")
        context.load_cert_chain(server.cert, server.key)
        app = web.Application()
        app.router.add_static("/", self.repository.path)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.web_port = self._runner.addresses[0][1]

    def lose_reports(self) -> None:
        """The collector's file is gone; it begins with an empty one."""
        self.reports.close()
        for part in self.folder.glob("reports.db*"):
            part.unlink()
        self._reports = ReportStore(self.folder / "reports.db")

    async def stop_serving(self) -> None:
        """The web server goes away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def close(self) -> None:
        await self.stop_serving()
        if self._reports is not None:
            self._reports.close()

    def broker(self, url: str, protocol: str) -> BrokerSettings:
        client = self.authority.client("cloud")
        return BrokerSettings(url=url, ca=self.authority.ca, cert=client.cert, key=client.key, protocol=protocol)

    async def start_campaigns(self, broker: BrokerSettings) -> None:
        """By the publisher's command, as a person or a pipeline would. Unavailable with what it said."""
        # All take the image at once; what waits for the canary is the install, as it does with multicast anyway.
        await self._start(broker, ZIGBEE_CAMPAIGN, FIRMWARE[0], scenario.ZIGBEE_NODES, failure_ratio=0.5)
        await self._start(broker, LORAWAN_CAMPAIGN, FIRMWARE[1], scenario.LORAWAN_NODES, failure_ratio=0.5)

    async def _start(
        self,
        broker: BrokerSettings,
        campaign: str,
        firmware: Firmware,
        nodes: Sequence[scenario.ZigbeeNode] | Sequence[scenario.LorawanNode],
        failure_ratio: float,
    ) -> None:
        tiers = (Tier(name="canary", nodes=(nodes[0].id,)), Tier(name="all", percent=100.0))
        # One bad node must not stop the others here; the gate still would at more.
        rollout = self.folder / f"{campaign}-rollout.json"
        rollout.write_bytes(
            dump(Rollout(tiers=tiers, stage_by=StageBy.INSTALL, gate=Gate(failure_ratio=failure_ratio)))
        )
        policy = self.folder / f"{campaign}-policy.json"
        policy.write_bytes(dump(Policy(max_attempts=2)))
        command = [sys.executable, "-m", "gatewayd", "publish", "campaign", "start", campaign]
        command += ["--broker", broker.url, "--ca", str(broker.ca), "--cert", str(broker.cert)]
        command += ["--cert-key", str(broker.key), "--mqtt", broker.protocol, "--keys", str(self.keys.folder)]
        command += ["--audience", f"gateway:{GATEWAY}", "--release", firmware.spec.path]
        command += ["--rollout", str(rollout), "--policy", str(policy)]
        command += [word for node in nodes for word in ("--node", node.id)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:  # the demo is ended meanwhile
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise Unavailable(f"campaign {campaign} could not be started: {said.decode(errors='replace').strip()}")

    async def collecting(self, broker: BrokerSettings) -> None:
        await collect(broker, self.reports)

    def told(self) -> dict[str, Told]:
        """The newest report about every node."""
        newest: dict[str, Told] = {}
        for _, report in self.reports.reports():
            if report.kind is ReportKind.NODE and report.node is not None:
                newest[report.node] = Told(report.state, report.code, report.version)
        return newest

    def first_at(self, node: str, states: Sequence[str]) -> float:
        """When the node came to one of the states, by the reports, in Unix seconds; infinite when it never did."""
        told = (report for _, report in self.reports.reports() if report.node == node and report.state in states)
        return min((report.at.timestamp() for report in told), default=math.inf)

    def steps(self) -> list[tuple[str, str]]:
        """Node and state of every report, in the order in which they came."""
        told = (report for _, report in self.reports.reports() if report.kind is ReportKind.NODE)
        return [(report.node, report.state) for report in told if report.node is not None]


def image_digests() -> dict[str, dict[str, str]]:
    """SHA-256 of what should be in the nodes' flash, by radio: new, old, and where one node's old one differs."""

    def digest(image: bytes) -> str:
        return hashlib.sha256(image).hexdigest()

    zigbee = {"new": digest(FIRMWARE[0].image), "old": digest(scenario.zigbee_image(scenario.ZIGBEE_OLD))}
    for lamp in scenario.ZIGBEE_NODES:
        zigbee[f"old:{lamp.name}"] = digest(scenario.zigbee_image(scenario.ZIGBEE_OLD, lamp.image_type))
    lorawan = {"new": digest(FIRMWARE[1].image), "old": digest(scenario.lorawan_image(scenario.LORAWAN_OLD))}
    for meter in scenario.LORAWAN_NODES:
        lorawan[f"old:{meter.name}"] = digest(scenario.lorawan_image(meter.version))
    return {"zigbee": zigbee, "lorawan": lorawan}
