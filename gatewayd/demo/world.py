"""Everything around a daemon, and the daemon: cloud, broker, simulated site, each as real as it gets on one machine.

The demo runs in it, and so do the end-to-end tests.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from gatewayd.demo import scenario
from gatewayd.demo.automation import Automation
from gatewayd.demo.cloud_side import FIRMWARE, GATEWAY, CloudSide, Firmware
from gatewayd.demo.operator import Operator
from gatewayd.demo.processes import Broker, Daemon, Site, free_port
from gatewayd.demo.site import APPLICATION_ID, GATEWAY_BUS_PREFIX, GATEWAY_ID, TENANT_ID, SiteSettings
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.keys import KeyKind

ZIGBEE_SCALE = 4.0
LORAWAN_SCALE = 200.0
LORAWAN_DATA_RATE = 3


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """Scales: how many simulated seconds pass in a real one. No nodes of a kind: no such radio is configured."""

    zigbee_scale: float = ZIGBEE_SCALE
    lorawan_scale: float = LORAWAN_SCALE
    zigbee_nodes: Sequence[scenario.ZigbeeNode] = scenario.ZIGBEE_NODES
    lorawan_nodes: Sequence[scenario.LorawanNode] = scenario.LORAWAN_NODES
    firmware: Sequence[Firmware] = FIRMWARE
    manufacturer: KeyKind = KeyKind.RSA_4096
    quota_mb: int = 64
    trust_refresh_s: int = 3600
    extra_config: str = ""  # tables at the end of the daemon's configuration
    shared_channel: bool = False  # of the Zigbee nodes, of which updates then take less in quiet hours, which it is
    reports_per_s: float | None = None  # of the Zigbee nodes, which a program then uses over MQTT; None: nothing of it
    snapshot_s: float = 0.5  # between two looks at the nodes
    broker_binary: str | None = None  # None: mosquitto where it is installed; "": amqtt


class World:
    """`async with World(folder, options) as world:`; all processes are ended on leaving, whatever happens."""

    def __init__(self, folder: Path, options: WorldOptions) -> None:
        self.folder = folder
        self.options = options
        self.status_port = free_port()
        self.cloud: CloudSide
        self.broker: Broker
        self.site = Site(folder)
        self.daemon = Daemon(folder, folder / "gatewayd.toml")
        self.automation = Automation()
        self.operator = Operator(folder, self.site)
        self._tasks: list[asyncio.Task[None]] = []
        self._collector: asyncio.Task[None] | None = None

    @property
    def status_url(self) -> str:
        return f"http://127.0.0.1:{self.status_port}/"

    @property
    def cloud_broker(self) -> BrokerSettings:
        """How the cloud's side reaches the broker."""
        return self.cloud.broker(f"mqtts://localhost:{self.broker.tls_port}", self.broker.protocol)

    async def __aenter__(self) -> Self:
        self.cloud = await asyncio.to_thread(self._make_cloud)
        self.broker = Broker(self.folder, self.cloud.authority, self.options.broker_binary)
        try:
            await self.cloud.serve()
            await self.broker.start()
            token = secrets.token_hex(16)
            origin = float(int(time.time()))
            await self.site.start(self._site_settings(token, origin))
            self._write_config(token, origin)
            self._collect()
            if self.options.reports_per_s is not None:
                self._tasks.append(asyncio.create_task(self.automation.run(self.cloud_broker), name="automation"))
            await self.daemon.start()
            if any(node.joins for node in self.options.zigbee_nodes):
                self._tasks.append(asyncio.create_task(self.operator.run(), name="operator"))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.daemon.stop()
        tasks = [*self._tasks, *([self._collector] if self._collector else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.site.kill()
        await self.broker.stop()
        await self.cloud.close()

    async def lose_reports(self) -> None:
        """The cloud's collector loses all that it had stored, and begins again."""
        await self._end_collecting()
        self.cloud.lose_reports()
        self._collect()

    async def stop_cloud(self) -> None:
        """Web server, broker and collector go away."""
        await self._end_collecting()
        await self.cloud.stop_serving()
        await self.broker.stop()

    async def start_broker(self) -> None:
        """Broker and collector are there again after `stop_cloud`, the web server is not."""
        await self.broker.start()
        self._collect()

    async def _end_collecting(self) -> None:
        if self._collector is not None:
            self._collector.cancel()
            await asyncio.wait({self._collector})

    def _collect(self) -> None:
        self._collector = asyncio.create_task(self.cloud.collecting(self.cloud_broker), name="collector")

    def _make_cloud(self) -> CloudSide:
        cloud = CloudSide(self.folder / "cloud", self.options.manufacturer)
        cloud.publish(self.options.firmware)
        return cloud

    def _site_settings(self, token: str, origin: float) -> SiteSettings:
        return SiteSettings(
            zigbee_scale=self.options.zigbee_scale,
            lorawan_scale=self.options.lorawan_scale,
            origin=origin,
            mqtt_host="127.0.0.1",
            mqtt_port=self.broker.plain_port,
            api_token=token,
            public_key=self.cloud.repository.manufacturers().keys[0].public,
            signatures=self.cloud.signatures,
            zigbee_nodes=self.options.zigbee_nodes,
            lorawan_nodes=self.options.lorawan_nodes,
            shared_channel=self.options.shared_channel,
            reports_per_s=self.options.reports_per_s or 0.0,
            snapshot_s=self.options.snapshot_s,
        )

    def _write_config(self, token: str, origin: float) -> None:
        cloud = self.cloud
        client = cloud.authority.client(GATEWAY)
        web = f"https://127.0.0.1:{cloud.web_port}"
        parts = [
            f"""# Written by gatewayd.demo.
[gateway]
id = "{GATEWAY}"
state_dir = "state"
assume_synchronised = true

[cloud]
host = "localhost"
port = {self.broker.tls_port}
protocol = "{self.broker.protocol}"
tls = {{ ca = "{cloud.authority.ca}", cert = "{client.cert}", key = "{client.key}" }}

[trust]
root = "{cloud.repository.root_path}"
metadata_url = "{web}/metadata"
refresh_s = {self.options.trust_refresh_s}
ca = "{cloud.authority.ca}"

[payload]
urls = ["{web}"]
ca = "{cloud.authority.ca}"
quota_mb = {self.options.quota_mb}

[status]
listen = "127.0.0.1:{self.status_port}"

[log]
format = "json"

[lab]
time_scale = {{ zigbee = {self.options.zigbee_scale}, lorawan = {self.options.lorawan_scale} }}
time_origin = {origin}
"""
        ]
        if self.options.zigbee_nodes:
            parts.append(self._zigbee_config(origin))
        if self.options.reports_per_s is not None:
            parts.append('[bridge]\nrequests = "all"\n')
        if self.options.lorawan_nodes:
            parts.append(self._lorawan_config(token))
        parts.append(self.options.extra_config)
        (self.folder / "gatewayd.toml").write_text("\n".join(parts))

    def _zigbee_config(self, origin: float) -> str:
        quiet = ""
        if self.options.shared_channel:
            # Hours that the demo falls into, whenever it runs and however much faster its nodes' time does.
            first, last = (datetime.fromtimestamp(origin + offset, UTC) for offset in (-3600, 4 * 3600))
            quiet = f"""
[zigbee.quiet_hours]
start = "{first:%H:%M}"
end = "{last:%H:%M}"
air_share = {scenario.ZIGBEE_AIR_SHARE}
"""
        return f'[zigbee]\ndevice = "{self.site.zigbee_url}"\n{quiet}'

    def _lorawan_config(self, token: str) -> str:
        secret = self.folder / "chirpstack-token"
        secret.write_text(token)
        secret.chmod(0o600)
        return f"""[lorawan]
grpc = "{self.site.lorawan_target}"
grpc_tls = false
api_token_file = "{secret}"
mqtt = {{ host = "127.0.0.1", port = {self.broker.plain_port}, tls = false }}
tenant_id = "{TENANT_ID}"
application_id = "{APPLICATION_ID}"
gateway_ids = ["{GATEWAY_ID}"]
gateway_bus = {{ topic_prefixes = ["{GATEWAY_BUS_PREFIX}"] }}
region = "EU868"
data_rate = {LORAWAN_DATA_RATE}
reset_cause_field = "reset_cause"
"""
