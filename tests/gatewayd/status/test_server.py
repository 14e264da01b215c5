import io
import json
import socket
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from gatewayd.config_values import Listen
from gatewayd.errors import StoreError
from gatewayd.status.server import StatusServer
from gatewayd.status.token import TOKEN_FILE, operator_token
from gatewayd.store.database import Database
from radios.errors import LinkError
from radios.radio import CommandResult, NodeCommand

OPENAPI = json.loads((resources.files("gatewayd.status") / "page/openapi.json").read_text())
READS = [
    ("/healthz", "/healthz", 200),
    ("/readyz", "/readyz", 200),
    ("/api/v1/gateway", "/api/v1/gateway", 200),
    ("/api/v1/campaigns", "/api/v1/campaigns", 200),
    ("/api/v1/campaigns/spring", "/api/v1/campaigns/{campaign}", 200),
    ("/api/v1/campaigns/none", "/api/v1/campaigns/{campaign}", 404),
    ("/api/v1/nodes", "/api/v1/nodes", 200),
    ("/api/v1/nodes?limit=0", "/api/v1/nodes", 400),
    ("/api/v1/nodes/zigbee:00124b0000000001", "/api/v1/nodes/{node}", 200),
    ("/api/v1/nodes/zigbee:0000000000000000", "/api/v1/nodes/{node}", 404),
    ("/api/v1/gateway?colour=red", "/api/v1/gateway", 400),
]


def check(path: str, method: str, status: int, body: object) -> None:
    """The answer is one that openapi.json promises."""
    response = OPENAPI["paths"][path][method]["responses"][str(status)]
    schema = {**response["content"]["application/json"]["schema"], "components": OPENAPI["components"]}
    Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize(("url", "path", "status"), READS)
async def test_answers_are_as_openapi_says(client: aiohttp.ClientSession, url: str, path: str, status: int) -> None:
    async with client.get(url) as response:
        assert response.status == status
        assert response.content_type == "application/json"
        check(path, "get", status, await response.json())


async def test_every_path_of_openapi_is_served(client: aiohttp.ClientSession, operator: dict[str, str]) -> None:
    for path, methods in OPENAPI["paths"].items():
        url = path.format(campaign="spring", node="zigbee:00124b0000000001", kind="zigbee") if "{" in path else path
        for method in methods:
            ending = path.rpartition("/")[2]
            body = {"restore": {"arguments": {}}, "commands": {"name": "list"}}.get(ending, {})
            async with client.request(method, url, headers=operator, json=body) as r:
                assert r.status == 200, (method, url)


async def test_a_backup_of_a_network_is_kept_here_and_not_answered(
    client: aiohttp.ClientSession, daemon: Any, operator: dict[str, str]
) -> None:
    url = "/api/v1/radios/zigbee/backup"
    async with client.post(url, json={}, headers=operator) as response:
        check("/api/v1/radios/{kind}/backup", "post", 200, await response.json())
    daemon.failure = LinkError("the dongle does not answer")
    async with client.post(url, json={}, headers=operator) as response:
        assert response.status == 502
        assert "the dongle does not answer" in await response.text()
    for path, headers, status in [(url, {}, 401), ("/api/v1/radios/thread/backup", operator, 404)]:
        async with client.post(path, json={}, headers=headers) as response:
            assert response.status == status
    assert daemon.asked == [("back_up", "zigbee")] * 2


async def test_the_page_needs_nothing_from_elsewhere(client: aiohttp.ClientSession) -> None:
    for path, content_type in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]:
        async with client.get(path) as response:
            text = await response.text()
            assert (response.status, response.content_type) == (200, content_type)
            assert "http://" not in text
            assert "https://" not in text
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_ready_says_why_not(client: aiohttp.ClientSession, daemon: Any) -> None:
    daemon.reasons = ["zigbee: the dongle does not answer"]
    async with client.get("/readyz") as response:
        assert response.status == 503
        assert await response.json() == {"ready": False, "reasons": ["zigbee: the dongle does not answer"]}
    async with client.get("/healthz") as response:
        assert response.status == 200


async def test_a_store_that_cannot_be_read_is_not_ready_and_no_crash(
    client: aiohttp.ClientSession, filled: Database
) -> None:
    for table in ("meta", "outbox"):
        await filled.write(lambda db, table=table: db.execute(f"DROP TABLE {table}"))  # type: ignore[misc]
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (
            503,
            {"ready": False, "reasons": ["the store cannot be read"]},
        )
    for url in ("/api/v1/gateway", "/metrics"):
        async with client.get(url) as response:
            assert response.status == 503
            assert (await response.json())["error"]["code"] == "store"
    async with client.get("/healthz") as response:
        assert response.status == 200


async def test_metrics(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = (await response.text()).splitlines()
    for line in (
        'gatewayd_node_updates{campaign="spring",state="transferring"} 1.0',
        'gatewayd_campaign_state{campaign="field-test",state="waiting"} 1.0',
        'gatewayd_campaign_held{campaign="field-test"} 1.0',
        "gatewayd_cloud_connected 1.0",
        "gatewayd_outbox_reports 2.0",
        'gatewayd_nodes{radio="zigbee"} 5.0',
        'gatewayd_radio_status{name="queue.waiting",radio="zigbee"} 2.0',
        'gatewayd_radio_up{radio="zigbee"} 1.0',
        'gatewayd_confirmed_bytes{campaign="spring"} 142880.0',
        'gatewayd_gateway_status{name="payload.cache_bytes"} 181440.0',
    ):
        assert line in lines


@pytest.mark.parametrize("url", [*(url for url, _, status in READS if status == 200), "/metrics"])
async def test_no_secret_is_ever_told(client: aiohttp.ClientSession, url: str, operator: dict[str, str]) -> None:
    async with client.get(url) as response:
        text = await response.text()
    assert "hunter2" not in text
    assert operator["Authorization"].removeprefix("Bearer ") not in text


@pytest.mark.parametrize(
    "host", ["evil.example.org", "evil.example.org:8470", "10.0.0.5", "", "localhost.evil.example.org"]
)
async def test_a_rebound_name_is_refused(client: aiohttp.ClientSession, host: str) -> None:
    async with client.get("/api/v1/gateway", headers={"Host": host}) as response:
        assert response.status == 421
        check("/api/v1/gateway", "get", 421, await response.json())


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8470", "[::1]:8470"])
async def test_names_of_this_machine_are_taken(client: aiohttp.ClientSession, host: str) -> None:
    async with client.get("/api/v1/gateway", headers={"Host": host}) as response:
        assert response.status == 200


async def test_a_page_from_elsewhere_is_refused(
    client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any
) -> None:
    headers = {**operator, "Origin": "https://evil.example.org"}
    async with client.post("/api/v1/campaigns/spring/hold", json={}, headers=headers) as response:
        assert response.status == 403
    assert daemon.asked == []


@pytest.mark.parametrize("action", ["hold", "resume"])
async def test_the_operator_holds_and_resumes(
    client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any, action: str
) -> None:
    path = f"/api/v1/campaigns/{{campaign}}/{action}"
    async with client.post(f"/api/v1/campaigns/spring/{action}", json={}, headers=operator) as response:
        assert response.status == 200
        check(path, "post", 200, await response.json())
    assert daemon.asked == [(action, "spring")]
    async with client.post(f"/api/v1/campaigns/none/{action}", json={}, headers=operator) as response:
        assert response.status == 404
        check(path, "post", 404, await response.json())


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic Og==", "Bearer \xfc", "Bearer \udcff"]
)
@pytest.mark.parametrize("path", ["/api/v1/campaigns/spring/hold", "/api/v1/radios/zigbee/commands", "/nowhere"])
async def test_without_the_token_nothing_is_done(
    client: aiohttp.ClientSession, daemon: Any, path: str, authorization: str | None
) -> None:
    headers = (
        {} if authorization is None else {"Authorization": authorization.encode("utf-8", "replace").decode("latin-1")}
    )
    async with client.post(path, json={"name": "list"}, headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert daemon.asked == []


async def test_a_command_reaches_the_radio(
    client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any
) -> None:
    path = "/api/v1/radios/{kind}/commands"
    body = {"name": "read", "node": "zigbee:00124b0000000001", "arguments": {"cluster": 25, "attributes": ["x"]}}
    async with client.post("/api/v1/radios/zigbee/commands", json=body, headers=operator) as response:
        assert response.status == 200
        answer = await response.json()
    check(path, "post", 200, answer)
    assert answer == {"ok": True, "detail": "", "value": {"seconds": 60}}
    ((kind, command),) = daemon.asked
    assert kind == "zigbee"
    assert command == NodeCommand("read", "zigbee:00124b0000000001", {"cluster": 25, "attributes": ["x"]})  # type: ignore[arg-type]

    daemon.result = CommandResult(ok=False, detail="no such attribute")
    async with client.post("/api/v1/radios/zigbee/commands", json=body, headers=operator) as response:
        assert (response.status, (await response.json())["detail"]) == (409, "no such attribute")
    daemon.failure = LinkError("the dongle does not answer")
    async with client.post("/api/v1/radios/zigbee/commands", json=body, headers=operator) as response:
        assert response.status == 502
        check(path, "post", 502, await response.json())


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("zigbee", b"", 400),
        ("zigbee", b"{", 400),
        ("zigbee", b"[]", 400),
        ("zigbee", b'{"name": 5}', 400),
        ("zigbee", b'{"name": "list", "extra": 1}', 400),
        ("zigbee", b'{"name": "list", "node": "zigbee:xyz"}', 400),
        ("zigbee", b'{"name": "../etc"}', 400),
        ("zigbee", b"\xff\xfe", 400),
        ("zigbee", b'{"name": "backup"}', 403),
        ("thread", b'{"name": "list"}', 404),
        ("zigbee", b'{"name": "' + b"a" * 20_000 + b'"}', 413),
    ],
)
async def test_a_bad_command_is_refused(
    client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any, kind: str, body: bytes, status: int
) -> None:
    headers = {**operator, "Content-Type": "application/json"}
    async with client.post(f"/api/v1/radios/{kind}/commands", data=body, headers=headers) as response:
        assert response.status == status
        check("/api/v1/radios/{kind}/commands", "post", status, await response.json())
    assert daemon.asked == []


async def test_a_large_backup_reaches_the_radio_as_it_is(
    client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any
) -> None:
    """Its keys too, whatever their names: what is hidden is hidden in answers and logs."""
    backup = {"network_key": {"key": "00" * 16}, "token": "t", "devices": ["d" * 100] * 1000}
    body = {"arguments": {"backup": backup, "apply": False}}
    async with client.post("/api/v1/radios/zigbee/restore", json=body, headers=operator) as response:
        assert response.status == 200
        check("/api/v1/radios/{kind}/restore", "post", 200, await response.json())
    assert daemon.asked == [("zigbee", NodeCommand("restore", None, body["arguments"]))]
    large = io.BytesIO(b'{"arguments": {"backup": "' + b"b" * 1_100_000 + b'"}}')
    headers = {**operator, "Content-Type": "application/json"}
    async with client.post("/api/v1/radios/zigbee/restore", data=large, headers=headers) as response:
        assert response.status == 413


async def test_a_body_must_be_json(client: aiohttp.ClientSession, operator: dict[str, str], daemon: Any) -> None:
    async with client.post("/api/v1/campaigns/spring/hold", data={"a": "b"}, headers=operator) as response:
        assert response.status == 415
    assert daemon.asked == []


@pytest.mark.parametrize("path", ["/nowhere", "/page/../server.py", "/..%2fserver.py", "/api/v1/campaigns/"])
async def test_unknown_paths_are_json_too(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


async def test_other_methods_are_refused(client: aiohttp.ClientSession, operator: dict[str, str]) -> None:
    async with client.delete("/api/v1/nodes", headers=operator) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


def test_the_token_is_private_and_stays(tmp_path: Path) -> None:
    token = operator_token(tmp_path)
    file = tmp_path / TOKEN_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert operator_token(tmp_path) == token
    file.chmod(0o644)
    renewed = operator_token(tmp_path)
    assert renewed != token
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("short")
    assert len(operator_token(tmp_path)) >= 32


async def test_a_unix_socket(filled: Database, daemon: Any, tmp_path: Path) -> None:
    path = tmp_path / "run" / "status.sock"
    server = StatusServer(Listen(path=path), filled, daemon, tmp_path)
    await server.start()
    assert server.url == f"unix:{path}"
    assert path.stat().st_mode & 0o007 == 0
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        client.get("http://gatewayd/healthz") as response,
    ):
        assert response.status == 200
    await server.close()
    assert not path.exists()


async def test_a_socket_left_by_a_crash_is_taken_over(filled: Database, daemon: Any, tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = StatusServer(Listen(path=path), filled, daemon, tmp_path)
    await server.start()
    await server.close()


async def test_an_address_in_use_is_said(server: StatusServer, filled: Database, daemon: Any, tmp_path: Path) -> None:
    port = int(server.url.rstrip("/").rpartition(":")[2])
    second = StatusServer(Listen("127.0.0.1", port), filled, daemon, tmp_path)
    with pytest.raises(StoreError, match=f"127.0.0.1:{port}"):
        await second.start()


async def test_close_may_come_twice_or_without_a_start(filled: Database, daemon: Any, tmp_path: Path) -> None:
    server = StatusServer(Listen("127.0.0.1", 0), filled, daemon, tmp_path)
    await server.close()
    await server.start()
    await server.close()
    await server.close()
