import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli.commands import _COMMANDS, gatewayd
from gatewayd.cli.serial_ports import serial_ports, stable_names

GOOD = """
[gateway]
id = "gw-1"
[cloud]
host = "localhost"
tls = false
[trust]
root = "root.json"
metadata_url = "https://updates.example.org/metadata"
[payload]
urls = ["https://updates.example.org"]
"""


def test_help_names_every_command_without_loading_any() -> None:
    code = (
        "import sys\n"
        "from gatewayd.__main__ import main\n"
        "sys.argv = ['gatewayd', '--help']\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'aiohttp', 'zigpy', 'grpc', 'numpy', 'pydantic', 'tuf', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for name in _COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    "name",
    ["run", "check-config", "status", "nodes", "hold", "resume", "zigbee", "radios", "publish", "backup", "restore"],
)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(gatewayd, [name, "--help"])
    assert (result.exit_code, "Usage:" in result.output) == (0, True)


def test_the_version() -> None:
    result = CliRunner().invoke(gatewayd, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "gatewayd")


def test_an_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(gatewayd, ["updat"]).exit_code == 2


def test_check_config(tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_text(GOOD)
    (tmp_path / "root.json").write_text('{"signed": {"_type": "root"}}')
    result = CliRunner().invoke(gatewayd, ["check-config", str(file)])
    assert (result.exit_code, result.output) == (0, f"{file}: ok: gateway gw-1, radios: none\n")
    file.write_text(GOOD.replace('"gw-1"', '"GW 1"').replace("root.json", "none.json"))
    result = CliRunner().invoke(gatewayd, ["check-config", str(file)])
    assert result.exit_code == 1
    assert "[gateway] id" in result.output
    assert "[trust] root" in result.output


def test_run_needs_a_good_configuration(tmp_path: Path) -> None:
    assert CliRunner().invoke(gatewayd, ["run"]).exit_code == 2
    result = CliRunner().invoke(gatewayd, ["run", "--config", str(tmp_path / "none.toml")])
    assert (result.exit_code, "cannot be read" in result.output) == (1, True)


def test_ports_have_the_names_that_stay(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB7"
    device.touch()
    folder = tmp_path / "by-id"
    folder.mkdir()
    (folder / "usb-Dongle-if00").symlink_to("../ttyUSB7")
    assert stable_names(folder) == {str(device): str(folder / "usb-Dongle-if00")}
    assert stable_names(tmp_path / "none") == {}


def test_radios_lists_what_there_is() -> None:
    result = CliRunner().invoke(gatewayd, ["radios"])
    assert result.exit_code == 0
    ports = serial_ports()
    assert all(port.device in result.output for port in ports)
    assert bool(ports) or result.output == "no serial port found\n"
