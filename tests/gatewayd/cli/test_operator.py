import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatewayd.cli.commands import gatewayd
from gatewayd.config_values import Listen
from gatewayd.status.server import StatusServer
from gatewayd.store.database import Database


async def test_status_shows_gateway_campaigns_and_nodes(command: Any) -> None:
    result = await command("status", token=False)
    assert result.exit_code == 0
    for words in ("gw-1", "ready", "2 reports waiting", "spring", "1.2.0", "2 of 2 open", "rolled back", "battery low"):
        assert words in result.output
    assert "kitchen <script>alert(1)</script>" in result.output


async def test_parts_are_one_empty_line_apart(command: Any, filled: Database) -> None:
    await filled.write(
        lambda db: [db.execute(f"DELETE FROM {t}") for t in ("node_update", "transfer_plan", "node", "campaign")]
    )
    lines = (await command("status", token=False)).output.splitlines()
    assert all(first.strip() or second.strip() for first, second in itertools.pairwise(lines))
    assert lines[-3:] == ["no campaign", "", "no nodes"]


async def test_status_says_when_the_gateway_is_not_ready(command: Any, daemon: Any) -> None:
    daemon.reasons = ["[zigbee]: the dongle does not answer"]
    result = await command("status")
    assert result.exit_code == 1
    assert "[zigbee]: the dongle does not answer" in result.output


async def test_status_as_json(command: Any) -> None:
    answer = json.loads((await command("status", "--json")).output)
    assert (answer["gateway"]["id"], len(answer["campaigns"]), len(answer["nodes"])) == ("gw-1", 2, 6)


async def test_the_plan_of_a_campaign(command: Any) -> None:
    shown = (await command("plan", "spring")).output
    for words in (
        *("canary", "no link", "everyone", "539", "3 min", "40 min", "1.2 J", "1 skipped: another gateway owns it"),
        *("DR0 unicast", "?", "lorawan: 15% coded fragments"),
    ):
        assert words in " ".join(shown.split())
    assert [plan["frames"] for plan in json.loads((await command("plan", "spring", "--json")).output)] == [0, 539]
    assert "no plan yet" in (await command("plan", "field-test")).output
    assert (await command("plan", "nothing")).exit_code == 1


async def test_nodes_are_filtered(command: Any) -> None:
    result = await command("nodes", "--state", "deferred", "--json")
    assert [node["name"] for node in json.loads(result.output)] == ["cellar"]
    assert "no nodes" in (await command("nodes", "--search", "nowhere")).output


async def test_nodes_of_a_radio_that_is_not_there(command: Any) -> None:
    result = await command("nodes", "--radio", "ble")
    assert result.exit_code == 1
    assert result.output == "gatewayd: there is no radio 'ble' here; there is: lorawan, zigbee\n"


async def test_more_nodes_than_a_page(command: Any, filled: Database) -> None:
    rows = [(f"lorawan:{n:016x}",) for n in range(1200)]
    sql = "INSERT INTO node (id, radio, first_seen, last_seen) VALUES (?, 'lorawan', 0, 0)"
    await filled.write(lambda db: db.executemany(sql, rows))
    found = json.loads((await command("nodes", "--json")).output)
    assert len({node["id"] for node in found}) == 1206


async def test_hold_and_resume(command: Any, daemon: Any) -> None:
    held = await command("hold", "spring")
    assert (held.exit_code, "gatewayd resume spring" in held.output) == (0, True)
    assert (await command("resume", "spring")).exit_code == 0
    assert daemon.asked == [("hold", "spring"), ("resume", "spring")]


@pytest.mark.parametrize("name", ["none", "../nodes", "a b", "%2e%2e"])
async def test_an_unknown_campaign(command: Any, name: str) -> None:
    result = await command("hold", name)
    assert (result.exit_code, result.output) == (1, f"gatewayd: no campaign {name}\n")


async def test_acting_needs_the_token(command: Any, daemon: Any, tmp_path: Path) -> None:
    without = await command("hold", "spring", token=False)
    assert (without.exit_code, "operator's token" in without.output) == (2, True)
    (tmp_path / "wrong").write_text("guess")
    wrong = await command("hold", "spring", "--token-file", str(tmp_path / "wrong"), token=False)
    assert (wrong.exit_code, "operator's token" in wrong.output) == (1, True)
    missing = await command("hold", "spring", "--token-file", str(tmp_path / "missing"), token=False)
    assert missing.exit_code == 2
    assert daemon.asked == []


async def test_the_configuration_says_which_daemon(server: StatusServer, daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text('{"signed": {"_type": "root"}}')
    file = tmp_path / "gatewayd.toml"
    file.write_text(
        f"""[gateway]
id = "gw-1"
state_dir = "."
[cloud]
host = "localhost"
tls = false
[trust]
root = "root.json"
metadata_url = "https://updates.example.org/metadata"
[payload]
urls = ["https://updates.example.org"]
[status]
listen = "{server.url.removeprefix("http://").rstrip("/")}"
"""
    )
    result = await asyncio.to_thread(CliRunner().invoke, gatewayd, ["hold", "spring", "--config", str(file)])
    assert result.exit_code == 0
    assert daemon.asked == [("hold", "spring")]


async def test_over_a_unix_socket(filled: Database, daemon: Any, tmp_path: Path) -> None:
    server = StatusServer(Listen(path=tmp_path / "s.sock"), filled, daemon, tmp_path)
    await server.start()
    result = await asyncio.to_thread(CliRunner().invoke, gatewayd, ["nodes", "--json", "--url", server.url])
    await server.close()
    assert len(json.loads(result.output)) == 6


def ask(*words: str) -> Result:
    return CliRunner().invoke(gatewayd, words)


def test_no_daemon(tmp_path: Path) -> None:
    result = ask("status", "--url", f"unix:{tmp_path}/none.sock")
    assert (result.exit_code, "no daemon answers" in result.output) == (4, True)


@pytest.mark.parametrize("url", ["http://192.168.1.1:80", "https://localhost:8470", "nonsense"])
def test_only_this_machine_is_asked(url: str) -> None:
    assert ask("status", "--url", url).exit_code == 2


def test_a_broken_configuration_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[gateway\n")
    result = ask("status", "--config", str(tmp_path / "bad.toml"))
    assert (result.exit_code, "is no TOML" in result.output) == (2, True)


async def test_a_stranger_on_the_port_is_no_daemon() -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    result = await asyncio.to_thread(ask, "status", "--url", f"http://127.0.0.1:{port}")
    server.close()
    await server.wait_closed()
    assert (result.exit_code, "is no gatewayd" in result.output) == (4, True)
