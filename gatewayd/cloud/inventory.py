"""What a gateway says of its nodes: retained pages. PURE.

Made by nodes/pages.py; read by whoever plans a campaign.
"""

from typing import Annotated

from pydantic import AwareDatetime, Field

from gatewayd.cloud.document import Document, NodeName


class InventoryNode(Document):
    """What is known of a node, as far as it bears on what a campaign would do with it."""

    id: NodeName
    hardware: str | None = None
    model: str | None = None
    version: int | None = None
    security_version: int = 0  # the floor: highest that this gateway delivered and the node confirmed
    power: str | None = None
    battery_percent: float | None = None
    battery_at: AwareDatetime | None = None
    joined: bool | None = None
    lqi: int | None = None
    rssi_dbm: float | None = None
    snr_db: float | None = None
    tags: dict[str, str] = Field(default_factory=dict)  # its own, those stated for its hardware, and the site's
    last_seen: AwareDatetime | None = None


class InventorySite(Document):
    """Of the gateway's configuration, what campaigns ask for and what the time on air depends on."""

    region: str = ""  # that tiers name
    timezone: str = "UTC"
    lorawan_region: str | None = None
    lorawan_data_rate: int | None = None  # of multicasts; None: the region's RX2


class InventoryPage(Document):
    page: Annotated[int, Field(ge=0)]
    pages: Annotated[int, Field(ge=1)]
    site: InventorySite = InventorySite()
    nodes: Annotated[tuple[InventoryNode, ...], Field(max_length=200)]
