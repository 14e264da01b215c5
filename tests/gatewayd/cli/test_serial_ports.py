"""Serial ports: the names that stay, and the library that a dongle seems to need."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from gatewayd.cli.commands import gatewayd
from gatewayd.cli.serial_ports import suggested_library
from gatewayd.config import load
from gatewayd.service import serial_names
from gatewayd.service.serial_names import better_name
from radios.zigbee.settings import RADIO_LIBRARY_MODULES

CONFIG = """
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
[zigbee]
device = "{device}"
"""


@pytest.mark.parametrize(
    ("usb", "said", "library"),
    [
        ("1cf1:0030", "", "deconz"),
        ("10c4:ea60", "Sonoff Zigbee 3.0 USB Dongle Plus", "znp"),
        ("1a86:55d4", "SONOFF Zigbee 3.0 USB Dongle Plus V2", "bellows"),
        ("10c4:ea60", "usb-ITEAD_SONOFF_Zigbee_3.0_USB_Dongle_V2_2023-if00", "bellows"),
        ("10c4:ea60", "SkyConnect v1.0", "bellows"),
        ("10c4:ea60", "CP2102 USB to UART Bridge Controller", None),
        ("", "ttyS0", None),
    ],
)
def test_a_dongle_is_known_by_what_it_says(usb: str, said: str, library: str | None) -> None:
    assert suggested_library(usb, said) == library
    assert library is None or library in RADIO_LIBRARY_MODULES


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One dongle, as pyserial and udev show it; its by-id name."""
    device = tmp_path / "ttyUSB7"
    device.touch()
    folder = tmp_path / "by-id"
    folder.mkdir()
    link = folder / "usb-dresden_elektronik_ConBee_II-if00"
    link.symlink_to(device)
    port: Any = SimpleNamespace(
        device=str(device), vid=0x1CF1, pid=0x0030, description="ConBee II", manufacturer="x", product="ConBee II"
    )
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [port])
    monkeypatch.setattr(serial_names.stable_names, "__defaults__", (folder,))
    monkeypatch.setattr(serial_names.better_name, "__defaults__", (folder,))
    (tmp_path / "root.json").write_text('{"signed": {"_type": "root"}}')
    return link


def test_ports_are_named_and_the_configured_one_is_marked(plugged: Path, tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_text(CONFIG.format(device=plugged))
    shown = CliRunner().invoke(gatewayd, ["radios", "--config", str(file), "--json"])
    assert json.loads(shown.output) == [
        {
            "device": str(tmp_path / "ttyUSB7"),
            "by_id": str(plugged),
            "description": "ConBee II",
            "manufacturer": "x",
            "usb": "1cf1:0030",
            "library": "deconz",
            "configured": True,
        }
    ]
    assert "deconz" in CliRunner().invoke(gatewayd, ["radios", "--config", str(file)]).output
    file.write_text(CONFIG.format(device="/dev/ttyS99"))
    assert not json.loads(CliRunner().invoke(gatewayd, ["radios", "--config", str(file), "--json"]).output)[0][
        "configured"
    ]
    file.write_text("broken")
    assert "deconz" in CliRunner().invoke(gatewayd, ["radios", "--config", str(file)]).output


def test_a_name_that_may_change_is_warned_of(plugged: Path, tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_text(CONFIG.format(device=tmp_path / "ttyUSB7"))
    result = CliRunner().invoke(gatewayd, ["check-config", str(file)])
    assert (result.exit_code, str(plugged) in result.output) == (0, True)
    file.write_text(CONFIG.format(device=plugged))
    assert str(plugged) not in CliRunner().invoke(gatewayd, ["check-config", str(file)]).output
    assert load(file).zigbee is not None
    assert better_name("socket://127.0.0.1:1") is None
