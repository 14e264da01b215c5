"""What the operator configured of the LoRaWAN air and of the gateway bus reaches the radio."""

from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gatewayd.config_radios import Lorawan
from gatewayd.errors import ConfigError
from gatewayd.radio_settings import lorawan_settings
from radios.lorawan.session_node import Ports
from radios.quiet_hours import QuietHours


def config(folder: Path, **changes: Any) -> Lorawan:
    token = folder / "token"
    token.write_text("a-token")
    token.chmod(0o600)
    values: dict[str, Any] = {
        "grpc": "127.0.0.1:8080",
        "grpc_tls": False,
        "api_token_file": token,
        "mqtt": {"host": "127.0.0.1", "tls": False},
        "tenant_id": "11111111-1111-4111-8111-111111111111",
        "application_id": "22222222-2222-4222-8222-222222222222",
        **changes,
    }
    return Lorawan.model_validate(values)


def test_by_default_the_bus_is_not_listened_to_and_the_air_is_shared_evenly(tmp_path: Path) -> None:
    found = lorawan_settings(config(tmp_path), "gw-a")
    assert found.chirpstack.gateway_bus is None
    assert (found.air.air_share, found.air.reserve, found.air.burst, found.air.quiet_hours) == (1.0, 0.1, False, None)
    assert (found.repeater_compatible, found.dwell_time) == (True, False)
    assert (found.owner, found.owner_required, found.timezone) == ("gw-a", False, UTC)


def test_all_of_it_is_configurable(tmp_path: Path) -> None:
    password = tmp_path / "bus"
    password.write_text("a-secret")
    password.chmod(0o600)
    made = config(
        tmp_path,
        air_share=0.5,
        air_reserve=0.25,
        pacing="burst",
        region="AS923",
        data_rate=4,
        repeater_compatible=False,
        downlink_dwell_time=True,
        owner_required=True,
        quiet_hours={"start": "22:00", "end": "06:30", "air_share": 0.1},
        gateway_bus={
            "topic_prefixes": ["eu868", "in865"],
            "mqtt": {"host": "localhost", "port": 1884, "tls": False, "username": "u", "password_file": password},
        },
    )
    found = lorawan_settings(made, "gw-a", ZoneInfo("Europe/Berlin"))
    assert (found.air.air_share, found.air.reserve, found.air.burst) == (0.5, 0.25, True)
    assert found.air.quiet_hours == QuietHours(22 * 60, 6 * 60 + 30, 0.1)
    assert found.minute_of_day(1_800_000_000.0) == found.minute_of_day(1_800_000_000.0 + 86400)
    assert found.minute_of_day(1_800_000_000.0) == 9 * 60  # 08:00 UTC
    assert found.owner_required
    assert (found.repeater_compatible, found.dwell_time) == (False, True)
    assert found.plan.max_payload(found.data_rate) == 125
    bus = found.chirpstack.gateway_bus
    assert bus is not None
    assert bus.topic_prefixes == ("eu868", "in865")
    assert bus.broker is not None
    assert (bus.broker.host, bus.broker.port, bus.broker.password) == ("localhost", 1884, "a-secret")
    assert "a-secret" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gateway_bus": {"topic_prefixes": []}}, "topic_prefixes"),
        ({"gateway_bus": {"topic_prefixes": ["eu868/#"]}}, "topic_prefixes"),
        ({"gateway_bus": {"topic_prefixes": ["a"], "mqtt": {"host": "example.org", "tls": False}}}, "loopback"),
        ({"air_reserve": 1.0}, "air_reserve"),
        ({"air_share": 0.0}, "air_share"),
        ({"pacing": "fast"}, "pacing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(tmp_path, **changes)


def test_a_bus_elsewhere_is_a_real_site(tmp_path: Path) -> None:
    assert config(tmp_path).on_loopback
    remote = {"topic_prefixes": ["eu868"], "mqtt": {"host": "10.0.0.5", "tls": {"ca": _ca(tmp_path)}}}
    assert not config(tmp_path, gateway_bus=remote).on_loopback


def keys_file(folder: Path, text: str) -> Path:
    file = folder / "keys"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_root_keys_are_read_from_a_file(tmp_path: Path) -> None:
    file = keys_file(tmp_path, f"# a site\n70B3D54990000001 {'0a' * 16}\n\n70b3d54990000002 {'0b' * 16} # far\n")
    found = lorawan_settings(config(tmp_path, root_keys_file=file), "gw-a")
    assert {name: key.reveal() for name, key in found.root_keys.items()} == {
        "70b3d54990000001": b"\x0a" * 16,
        "70b3d54990000002": b"\x0b" * 16,
    }
    assert "0a0a" not in repr(found)
    assert lorawan_settings(config(tmp_path), "gw-a").root_keys == {}


@pytest.mark.parametrize(
    "line",
    ["70b3d54990000002", "70b3d5499000000 " + "0b" * 16, "70b3d54990000002 0b0b", "70b3d54990000001 " + "0b" * 16],
)
def test_a_bad_line_of_root_keys_is_named_by_its_number_and_never_shown(tmp_path: Path, line: str) -> None:
    file = keys_file(tmp_path, f"70b3d54990000001 {'0a' * 16}\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as failed:
        lorawan_settings(config(tmp_path, root_keys_file=file), "gw-a")
    assert "0b0b" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_root_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    file = keys_file(tmp_path, f"70b3d54990000001 {'0a' * 16}\n")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="root_keys_file"):
        config(tmp_path, root_keys_file=file)


def test_ports_of_packages_are_configurable(tmp_path: Path) -> None:
    found = lorawan_settings(config(tmp_path, ports={"fragmentation": 21, "firmware": 23}), "gw-a")
    assert found.ports == Ports(fragmentation=21, firmware=23)
    with pytest.raises(ValueError, match="fragmentation"):
        config(tmp_path, ports={"fragmentation": 224})


def _ca(folder: Path) -> Path:
    file = folder / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    return file
