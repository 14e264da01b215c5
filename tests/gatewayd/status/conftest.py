"""A gateway's store with two campaigns, and a daemon's live view, as the status endpoint sees them."""

import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from gatewayd.campaign import plan_rows
from gatewayd.cloud.messages import Campaign, Desired, Gate, Rollout, Tier, dump
from gatewayd.config_values import Listen
from gatewayd.status.server import StatusServer
from gatewayd.status.token import TOKEN_FILE
from gatewayd.store.database import Database
from radios.radio import CommandResult, Json, NodeCommand, NodeId, PlanPart, TransferPlan

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
SIZE = 61_440

# (node, name, tier, state, code, detail, confirmed, power, battery)
ZIGBEE = [
    ("zigbee:00124b0000000001", "hall", 0, "updated", "", "", SIZE, "mains", None),
    ("zigbee:00124b0000000002", "kitchen <script>alert(1)</script>", 1, "transferring", "", "", 20_000, "mains", None),
    ("zigbee:00124b0000000003", "cellar", 1, "deferred", "battery_low", "20 %, at least 35 %", 0, "battery", 20.0),
    ("zigbee:00124b0000000004", "garage", 1, "rolled_back", "old_version", "runs 0x00000005", SIZE, "battery", 81.0),
]
LORAWAN = [
    ("lorawan:70b3d57ed0000001", "field 1", 0, "skipped", "wrong_hardware", "is lorawan:00000002", 0, "unknown", None)
]


class FakeDaemon:
    """The live view; tests set what it says, and read what it was asked."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.progress: dict[tuple[str, str], int] = {}
        self.asked: list[object] = []
        self.result = CommandResult(ok=True, value={"seconds": 60})
        self.failure: Exception | None = None

    def gateway(self) -> Mapping[str, Json]:
        return {
            "id": "gw-1",
            "started_at": "2026-06-01T11:00:00Z",
            "clock": {"trusted": True, "reason": ""},
            "trust": {"fresh": True, "expires": "2026-06-02T12:00:00Z", "root_version": 1, "api_token": "hunter2"},
            "payload": {"cache_bytes": 181_440, "quota_bytes": 512_000_000, "rate": float("nan")},
        }

    def radios(self) -> Mapping[str, Mapping[str, Json]]:
        return {
            "zigbee": {
                "link": "up",
                "channel": 15,
                "queue": {"waiting": 2, "window": 3},
                "network_key_secret": "hunter2",
            },
            "lorawan": {"link": "up", "air_used_percent": 3.25},
        }

    def cloud(self) -> Mapping[str, Json]:
        return {"connected": True, "host": "mqtt.example.org", "protocol": "5"}

    def live_progress(self) -> Mapping[tuple[str, str], int]:
        return self.progress

    def ready(self) -> list[str]:
        return self.reasons

    async def hold(self, campaign: str) -> bool:
        self.asked.append(("hold", campaign))
        return campaign == "spring"

    async def resume(self, campaign: str) -> bool:
        self.asked.append(("resume", campaign))
        return campaign == "spring"

    async def command(self, kind: str, command: NodeCommand) -> CommandResult:
        self.asked.append((kind, command))
        if self.failure is not None:
            raise self.failure
        return self.result

    async def back_up(self, kind: str) -> str:
        self.asked.append(("back_up", kind))
        if self.failure is not None:
            raise self.failure
        return "zigbee-20260601T120000Z.json"


def envelope(campaign: str) -> bytes:
    document = Campaign(
        id=campaign,
        audience="fleet:pilot",
        revision=3,
        issued=NOW,
        expires=NOW + timedelta(days=7),
        desired=Desired.RUNNING,
        release="releases/sensor/1.2.0.json",
        rollout=Rollout(
            tiers=(Tier(name="canary", percent=10.0), Tier(name="everyone", percent=100.0)), gate=Gate(soak_s=60)
        ),
    )
    payload = base64.b64encode(dump(document)).decode()
    return json.dumps(
        {"payload": payload, "payloadType": "x", "signatures": [{"keyid": "k", "sig": "hunter2"}]}
    ).encode()


def fill(db: sqlite3.Connection) -> None:
    db.execute(
        "INSERT INTO release VALUES ('releases/sensor/1.2.0.json', ?, ?)", (b'{"version": "1.2.0", "sequence": 12}', AT)
    )
    for offset, (campaign, state, held) in enumerate([("spring", "running", 0), ("field-test", "waiting", 1)]):
        db.execute(
            "INSERT INTO campaign VALUES (?, ?, 'fleet:pilot', 3, ?, ?, ?, ?, ?, ?, ?, 2, 'open', ?, ?, '')",
            (
                campaign,
                f"ota/v1/fleets/pilot/campaigns/{campaign}",
                "0" * 64,
                envelope(campaign),
                "releases/sensor/1.2.0.json" if offset == 0 else "releases/field/2.0.0.json",
                state,
                "" if offset == 0 else "release_unavailable",
                "" if offset == 0 else "updates.example.org does not answer",
                held,
                AT - offset,
                AT,
            ),
        )
    for index, (node, name, tier, state, code, detail, confirmed, power, battery) in enumerate([*ZIGBEE, *LORAWAN]):
        radio = node.partition(":")[0]
        updated = state == "updated"
        db.execute(
            """INSERT INTO node (id, radio, name, model, hardware, version, power, battery_percent, sleepy, lqi, rssi_dbm,
                                 joined, first_seen, last_seen) VALUES (?, ?, ?, 'TH-1', ?, ?, ?, ?, 0, ?, ?, 1, ?, ?)""",
            (
                node,
                radio,
                name,
                f"{radio}:x",
                6 if updated else 5,
                power,
                battery,
                200 - index,
                -60.5,
                AT - 9000,
                AT - index,
            ),
        )
        db.execute(
            """INSERT INTO node_update (campaign, node, release, transfer, tier, target_version, state, resume, code, detail,
                                        version_before, confirmed, size, since, updated_at)
               VALUES (?, ?, 'releases/sensor/1.2.0.json', 'spring/1', ?, 6, ?, ?, ?, ?, 5, ?, ?, ?, ?)""",
            ("spring", node, tier, state, "preparing", code, detail, confirmed, SIZE, AT - 60, AT),
        )
    db.execute(
        "INSERT INTO node_update (campaign, node, release, transfer, tier, target_version, state, resume, since, "
        "updated_at) VALUES ('field-test', ?, 'r', 'field-test/1', 0, 9, 'superseded', 'pending', ?, ?)",
        (ZIGBEE[0][0], AT, AT + 5),
    )
    db.execute(
        "INSERT INTO outbox (kind, body, bytes, at) VALUES ('node', '{}', 120, ?), ('progress', '{}', 80, ?)", (AT, AT)
    )
    db.execute(
        "INSERT INTO node (id, radio, first_seen, last_seen) VALUES ('zigbee:00124b00000000ff', 'zigbee', ?, ?)",
        (AT, AT),
    )
    plan_rows.replace_plans(db, "spring", PLANS)
    db.execute("INSERT INTO radio_record VALUES ('zigbee', 'network', 'key', 1, ?, 1)", (b"hunter2",))


PLANS = (
    plan_rows.PlanRow(
        "spring", 0, "zigbee", "spring/1", "full", SIZE, frozenset({"zigbee:1", "zigbee:2"}), AT, problem="no link"
    ),
    plan_rows.PlanRow(
        "spring", 1, "lorawan", "spring/1", "full", SIZE, frozenset({"lorawan:1", "lorawan:2"}), AT
    ).with_numbers(
        TransferPlan(
            frames=539,
            airtime_s=199.4,
            eta_s=2400.0,
            skipped={NodeId("lorawan:2"): "another gateway owns it"},
            parts=(
                PlanPart("DR5 multicast", 1, 500, 190.0, 2400.0, 1.25),
                PlanPart("DR0 unicast", 1, 39, 9.4, 9.4, None),
            ),
            assumptions="15% coded fragments",
        )
    ),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
async def filled(database: Database) -> Database:
    await database.write(fill)
    return database


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
async def server(filled: Database, daemon: FakeDaemon, tmp_path: Path) -> AsyncIterator[StatusServer]:
    server = StatusServer(Listen("127.0.0.1", 0), filled, daemon, tmp_path)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def client(server: StatusServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
def operator(server: StatusServer, tmp_path: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(tmp_path / TOKEN_FILE).read_text().strip()}"}
