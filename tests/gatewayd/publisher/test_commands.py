"""The commands, as an operator types them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gatewayd.cloud.messages import (
    CampaignSummary,
    GatewayState,
    InventoryNode,
    InventoryPage,
    InventorySite,
    NumberedReport,
    Report,
    ReportBatch,
    ReportKind,
    dump,
)
from gatewayd.publisher.collector import ReportStore
from gatewayd.publisher.commands import publish
from tests.support.mosquitto import Mosquitto

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("init", ...)`: {keys} and {repo} are filled in; the exit status must be `status`."""

    def invoke(*arguments: object, status: int = 0) -> Result:
        places = {"keys": tmp_path / "keys", "repo": tmp_path / "repo", "tmp": tmp_path}
        given = [str(argument).format(**places) for argument in arguments]
        result = CliRunner().invoke(publish, given)
        assert result.exit_code == status, result.output
        return result

    return invoke


REPO = ("--repo", "{repo}", "--keys", "{keys}")
RELEASE = (
    *("add-release", *REPO, "--name", "meter", "--version", "1.2.0", "--sequence", "3", "--security-version", "1"),
    *("--node-version", "0x01020000", "--hardware", "lorawan:00000007", "--container", "opaque"),
    *("--image", "{tmp}/image.bin"),
)


def site(run: Run, tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(bytes(range(256)) * 100)
    run("keys", "make", "--keys", "{keys}")
    run("init", *REPO)
    run("trust", "campaign-key", *REPO, "--audience", "gateway:*")
    run("trust", "manufacturer", *REPO, "--name", "ACME", "--hardware", "lorawan:00000007")


def test_from_nothing_to_a_published_release(run: Run, tmp_path: Path) -> None:
    site(run, tmp_path)
    assert json.loads(run(*RELEASE, "--json").output) == {"release": "releases/meter/1.2.0.json", "deltas": []}
    assert "releases/meter/1.2.0.json" in run("releases", "--repo", "{repo}").output
    shown = run("trust", "show", "--repo", "{repo}").output
    assert "gateway:*" in shown
    assert "ACME" in shown
    renewed = json.loads(run("refresh", *REPO, "--json").output)
    assert renewed["renewed"] == ["snapshot", "timestamp"]
    assert renewed["warnings"] == []


def test_revoking(run: Run, tmp_path: Path) -> None:
    site(run, tmp_path)
    lines = [json.loads(line) for line in run("trust", "show", "--repo", "{repo}", "--json").output.splitlines()]
    run("trust", "revoke-campaign-key", *REPO, lines[0]["campaign_key"])
    run("trust", "revoke-manufacturer", *REPO, lines[1]["keyid"])
    shown = run("trust", "show", "--repo", "{repo}").output
    assert "campaign key" not in shown
    assert "REVOKED" in shown
    assert "key_revoked" in run(*RELEASE, status=3).output
    assert "not listed" in run("trust", "revoke-campaign-key", *REPO, "0" * 64, status=3).output


def test_floor_and_withdraw(run: Run, tmp_path: Path) -> None:
    site(run, tmp_path)
    run(*RELEASE)
    run("withdraw", *REPO, "releases/meter/1.2.0.json")
    assert run("releases", "--repo", "{repo}").output == ""
    run("trust", "floor", *REPO, "lorawan:00000007", "2")
    assert "below_floor" in run(*RELEASE, status=3).output


def test_a_key_that_exists_is_named_and_not_overwritten(run: Run, tmp_path: Path) -> None:
    (made,) = run("keys", "make", "--keys", "{keys}", "--role", "campaign").output.splitlines()
    before = Path(made).read_bytes()
    result = run("keys", "make", "--keys", "{keys}", "--role", "campaign", status=3)
    assert f"{made}: File exists" in result.output
    assert Path(made).read_bytes() == before


def test_a_detached_signature(run: Run, tmp_path: Path) -> None:
    """Made elsewhere, by the manufacturer's own tool."""
    site(run, tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "maker.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "image.sig").write_bytes(key.sign((tmp_path / "image.bin").read_bytes(), ec.ECDSA(SHA256())))
    maker = ("--public", "{tmp}/maker.pem", "--name", "Maker", "--hardware", "lorawan:00000007")
    run("trust", "manufacturer", *REPO, *maker)
    run(*RELEASE, "--signature", "{tmp}/image.sig", status=2)
    run(*RELEASE, "--signature", "{tmp}/image.sig", "--manufacturer-public", "{tmp}/maker.pem")


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("init", *REPO), 3, "root key is not at hand"),
        (("refresh", *REPO), 3, "no repository"),
        (("keys", "make", "--keys", "{keys}", "--kind", "rot13"), 2, "rot13"),
        (
            ("campaign", "show", "x", "--broker", "http://x", "--keys", "{keys}", "--audience", "fleet:a"),
            3,
            "campaign key",
        ),
        (("campaign", "watch", "x", "--broker", "http://x", "--audience", "fleet:a"), 3, "mqtts://"),
        (("campaign", "watch", "x", "--broker", "mqtt://127.0.0.1:1", "--audience", "fleet:a"), 4, "127.0.0.1"),
    ],
)
def test_faults_are_one_line_and_a_status(run: Run, arguments: tuple[str, ...], status: int, complaint: str) -> None:
    result = run(*arguments, status=status)
    assert complaint in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as made:
        yield made


@pytest.mark.services
def test_a_campaign_from_start_to_cancel(run: Run, tmp_path: Path, broker: Mosquitto) -> None:
    run("keys", "make", "--keys", "{keys}", "--role", "campaign")
    common = ("--broker", f"mqtt://127.0.0.1:{broker.port}", "--keys", "{keys}", "--audience", "gateway:gw-1")
    tiers = ("--release", "releases/meter/1.2.0.json", "--tier", "canary=10", "--tier", "rest=100")
    said = json.loads(run("campaign", "start", "meters", *common, *tiers, "--json").output)
    assert (said["revision"], said["desired"]) == (1, "running")
    assert "exists" in run("campaign", "start", "meters", *common, *tiers, status=3).output
    for command, revision, desired, tier in (
        ("pause", 2, "paused", 1),
        ("resume", 3, "running", 1),
        ("advance", 4, "running", 2),
        ("cancel", 5, "cancelled", 2),
    ):
        said = json.loads(run("campaign", command, "meters", *common, "--json").output)
        assert (said["revision"], said["desired"], said["open_tiers"]) == (revision, desired, tier)
    assert "for good" in run("campaign", "resume", "meters", *common, status=3).output
    assert json.loads(run("campaign", "show", "meters", *common).output)["revision"] == 5
    assert "holds no campaign" in run("campaign", "show", "others", *common, status=3).output


@pytest.mark.services
@pytest.mark.parametrize("option", ["--tier=x", "--tier=a=0", "--tier=a=50 --tier=b=20", "--days=31", "--node=toaster"])
def test_a_campaign_that_no_gateway_would_take(run: Run, broker: Mosquitto, option: str) -> None:
    run("keys", "make", "--keys", "{keys}", "--role", "campaign")
    common = ("--broker", f"mqtt://127.0.0.1:{broker.port}", "--keys", "{keys}", "--audience", "gateway:gw-1")
    status = 3 if "days" in option else 2
    run("campaign", "start", "m", *common, "--release", "releases/m/1.0.0.json", *option.split(), status=status)


@pytest.mark.services
def test_watch_says_by_its_status_how_it_went(run: Run, broker: Mosquitto) -> None:
    def gateway_says(**nodes: int) -> None:
        summary = CampaignSummary(
            campaign="meters",
            revision=1,
            state="running",
            open_tiers=1,
            gate="",
            nodes=nodes,
            tiers={},
            updated=datetime(2026, 11, 1, tzinfo=UTC),
        )

        async def publish() -> None:
            async with broker.client("cloud") as client:
                await client.publish("ota/v1/gateways/gw-1/summary/meters", dump(summary), qos=1, retain=True)

        asyncio.run(publish())

    url = f"mqtt://127.0.0.1:{broker.port}"
    watch = ("campaign", "watch", "meters", "--broker", url, "--audience", "gateway:gw-1", "--json")
    assert "waiting for what gateway:gw-1 says" in run(*watch, "--timeout-s", "0.3", status=2).output
    gateway_says(updated=2, failed=1)
    assert json.loads(run(*watch, "--timeout-s", "20", status=1).output.splitlines()[-1])["outcome"] == "failed"
    gateway_says(updated=3, deferred=1)
    run(*watch, "--timeout-s", "0.3", status=2)
    assert run(*watch, "--timeout-s", "20", "--accept-deferred", status=0)


@pytest.mark.services
def test_a_watch_that_comes_late_knows_by_the_collectors_file_who_failed(
    run: Run, tmp_path: Path, broker: Mosquitto
) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    store = ReportStore(tmp_path / "reports.db")
    node = "lorawan:0000000000000001"
    told = Report(kind=ReportKind.NODE, at=at, state="failed", code="lost", campaign="meters", node=node)
    store.store("gw-1", ReportBatch(epoch=1, after=0, reports=(NumberedReport(seq=1, report=told),)), 0.0)
    store.close()
    counts = {"failed": 1}
    summary = CampaignSummary(
        campaign="meters",
        revision=1,
        state="completed",
        open_tiers=1,
        gate="",
        nodes=counts,
        tiers={"all": counts},
        updated=at,
    )

    async def publish() -> None:
        async with broker.client("cloud") as client:
            await client.publish("ota/v1/gateways/gw-1/summary/meters", dump(summary), qos=1, retain=True)

    asyncio.run(publish())
    url = f"mqtt://127.0.0.1:{broker.port}"
    watch = ("campaign", "watch", "meters", "--broker", url, "--audience", "fleet:north", "--db", "{tmp}/reports.db")
    last = json.loads(run(*watch, "--json", "--timeout-s", "20", status=1).stdout.splitlines()[-1])
    assert last["failed"] == [{"gateway": "gw-1", "node": node, "state": "failed", "code": "lost"}]
    assert last["tiers"] == {"all": {"failed": 1}}
    run(*watch, "--gateway", "gw-1", "--expect", "2", status=2)


def inventory(*nodes: InventoryNode, pages: int = 1) -> bytes:
    return dump(InventoryPage(page=0, pages=pages, site=InventorySite(lorawan_region="EU868"), nodes=nodes))


def said_to_be_in(*fleets: str) -> bytes:
    return dump(GatewayState(state="online", connection="", gateway="", fleets=fleets))


@pytest.mark.services
def test_a_plan_says_what_a_campaign_would_do_on_every_gateway_of_a_fleet(
    run: Run, tmp_path: Path, broker: Mosquitto
) -> None:
    site(run, tmp_path)
    run(*RELEASE)
    old, new = (
        InventoryNode(id=f"lorawan:{number:016x}", hardware="lorawan:00000007", version=version, power="mains")
        for number, version in ((1, 1), (2, 0x01020000))
    )
    low = old.model_copy(update={"id": "lorawan:" + "3" * 16, "power": "battery"})
    retained = {
        "gw-1/inventory/0": inventory(old, new),
        "gw-2/inventory/0": inventory(low, pages=2),
        "gw-2/inventory/1": b"no page",
        "gw-3/inventory/0": inventory(old),
        "gw-1/state": said_to_be_in("south", "north"),
        "gw-2/state": said_to_be_in("north"),
        "gw-3/state": said_to_be_in("south"),
        "gw-4/state": said_to_be_in("north"),
    }

    async def publish() -> None:
        async with broker.client("cloud") as client:
            for leaf, payload in retained.items():
                await client.publish(f"ota/v1/gateways/{leaf}", payload, qos=1, retain=True)

    asyncio.run(publish())
    plan = (
        *("campaign", "plan", "meters", "--broker", f"mqtt://127.0.0.1:{broker.port}", "--repo", "{repo}"),
        *("--release", "releases/meter/1.2.0.json", "--tier", "canary=10", "--tier", "rest=100"),
    )
    said = json.loads(run(*plan, "--audience", "fleet:north", "--json").output)
    one, two, four = said["gateways"]
    assert [one["gateway"], two["gateway"], four["gateway"]] == ["gw-1", "gw-2", "gw-4"]
    assert (said["nodes"], one["fetched_bytes"]) == (2, 25_600)
    assert {code: n for tier in one["tiers"] for code, n in tier["skipped"].items()} == {"already": 1}
    assert {code: n for tier in two["tiers"] for code, n in tier["deferred"].items()} == {"battery_unknown": 1}
    assert "pages 1" in two["problem"]
    assert "no inventory" in four["problem"]
    (air,) = (tier["air"]["lorawan"] for tier in one["tiers"] if tier["air"])
    assert 0 < air["estimated"]["fastest_s"] <= air["estimated"]["slowest_s"]
    shown = " ".join(run(*plan, "--audience", "gateway:gw-1").output.split())
    assert "1 already" in shown
    assert "gw-1 fetches 26 kB once" in shown
    assert "estimates" in shown
    assert "no gateway says" in run(*plan, "--audience", "fleet:west", status=3).output
    assert (
        "does not publish"
        in run(*plan[:7], "--release", "releases/meter/9.0.0.json", "--audience", "fleet:north", status=3).output
    )
