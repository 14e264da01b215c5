"""`gatewayd backup` and `gatewayd restore`, as an operator types them."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.cli.commands import gatewayd
from tests.gatewayd.backup.conftest import state  # noqa: F401 - a fixture
from tests.support import zigbee_backups


@pytest.fixture
def config(state: Path, tmp_path: Path) -> Path:  # noqa: F811 - a fixture
    """Of a gateway with a Zigbee dongle, whose daemon does not run."""
    (tmp_path / "root.json").write_text(json.dumps({"signed": {"_type": "root"}}))
    path = tmp_path / "gatewayd.toml"
    path.write_text(
        f"""
[gateway]
id = "gw-1"
state_dir = "{state}"
[cloud]
host = "localhost"
tls = false
[trust]
root = "root.json"
metadata_url = "https://updates.example.org/metadata"
[payload]
urls = ["https://updates.example.org"]
[status]
listen = "unix:{tmp_path}/status.sock"
[zigbee]
device = "socket://127.0.0.1:1"
"""
    )
    return path


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(gatewayd, [*words, "--config", str(config)])


def backed_up(config: Path, *options: str) -> Path:
    target = config.parent / "gw.backup"
    result = run(config, "backup", "--out", str(target), *options)
    assert result.exit_code == 0, result.output
    return target


def elsewhere(config: Path) -> Path:
    """The configuration on new hardware; its state folder."""
    new = config.parent / "new"
    text = config.read_text().replace(f'state_dir = "{config.parent}/old"', f'state_dir = "{new}"')
    config.write_text(text)
    return new


def test_a_backup_says_what_is_in_it_and_shows_no_key(config: Path) -> None:
    folder = config.parent / "disk"
    folder.mkdir()
    result = run(config, "backup", "--out", str(folder))
    assert result.exit_code == 0, result.output
    (made,) = folder.iterdir()
    assert made.name.startswith("gatewayd-gw-1-2")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert "network backup: backups/zigbee-20260602T000000Z.json" in result.output
    assert "none was made now: the daemon does not run" in result.output
    assert "keys in clear" in result.output
    assert zigbee_backups.NETWORK_KEY not in result.output


def test_nothing_is_done_before_the_operator_says_that_the_old_hardware_is_off(config: Path) -> None:
    made, new = backed_up(config), elsewhere(config)
    looked = run(config, "restore", str(made))
    assert (looked.exit_code, new.exists()) == (0, False)
    assert "Nothing is done yet" in looked.output
    done = run(config, "restore", str(made), "--old-hardware-is-off")
    assert done.exit_code == 0, done.output
    assert (new / "gatewayd.db").exists()
    assert "goes into a dongle that has none" in done.output
    assert "never be switched on again" in done.output


def test_a_sealed_one(config: Path) -> None:
    passphrase = config.parent / "passphrase"
    passphrase.write_text("correct horse\n")
    sealed = ("--passphrase-file", str(passphrase))
    made, new = backed_up(config, *sealed), elsewhere(config)
    refused = run(config, "restore", str(made), "--old-hardware-is-off")
    assert (refused.exit_code, "sealed by a passphrase" in refused.output) == (1, True)
    assert run(config, "restore", str(made), "--old-hardware-is-off", *sealed).exit_code == 0
    assert (new / "gatewayd.db").exists()


@pytest.mark.parametrize(
    ("options", "status", "what"),
    [
        (("--burn-address", "--keep-address"), 2, "either --burn-address or --keep-address"),
        (("--old-hardware-is-off",), 1, "is not empty"),
        (("--passphrase-file", "/nowhere"), 2, "/nowhere: cannot be read"),
    ],
)
def test_what_is_wrong_is_said(config: Path, options: tuple[str, ...], status: int, what: str) -> None:
    made = backed_up(config)
    result = run(config, "restore", str(made), *options)
    assert (result.exit_code, what in result.output) == (status, True), result.output


def test_what_was_there_is_set_aside(config: Path, state: Path) -> None:  # noqa: F811 - a fixture
    made = backed_up(config)
    result = run(config, "restore", str(made), "--old-hardware-is-off", "--force")
    assert result.exit_code == 0, result.output
    assert f"set aside   {state}/replaced-1" in result.output
    assert (state / "replaced-1" / "operator.token").exists()


def test_a_network_backup_that_cannot_be_read_is_found_before_anything_is_changed(
    config: Path,
    state: Path,  # noqa: F811 - a fixture
) -> None:
    (state / "backups/zigbee-20260603T000000Z.json").write_text(json.dumps({"metadata": {}}))
    made, new = backed_up(config), elsewhere(config)
    result = run(config, "restore", str(made), "--old-hardware-is-off")
    assert (result.exit_code, "the backup is not sound" in result.output) == (1, True), result.output
    assert not (new / "gatewayd.db").exists()


def test_a_configuration_that_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "gatewayd.toml").write_text("")
    result = run(tmp_path / "gatewayd.toml", "backup")
    assert (result.exit_code, "gateway" in result.output) == (2, True)
