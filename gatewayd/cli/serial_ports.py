"""`gatewayd radios`: which serial ports there are, under the names that stay when they are plugged in elsewhere."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from gatewayd.service.serial_names import stable_names

DEFAULT_CONFIG = Path("/etc/gatewayd/gatewayd.toml")

# What a dongle says of itself -> the library that speaks to it. The texts come first: most dongles carry one of a few
# USB-to-serial chips, whose numbers say nothing of what is behind.
_BY_TEXT = (
    ("conbee", "deconz"),
    ("raspbee", "deconz"),
    ("sonoff zigbee 3.0 usb dongle plus v2", "bellows"),
    ("sonoff_zigbee_3.0_usb_dongle_plus_v2", "bellows"),
    ("itead_sonoff_zigbee_3.0_usb_dongle_v2", "bellows"),
    ("sonoff zigbee 3.0 usb dongle plus", "znp"),
    ("sonoff_zigbee_3.0_usb_dongle_plus", "znp"),
    ("skyconnect", "bellows"),
    ("home assistant connect zbt", "bellows"),
    ("zbt-1", "bellows"),
    ("zbt-2", "bellows"),
    ("husbzb", "bellows"),
    ("bv 2010/10", "bellows"),
    ("smlight slzb-06m", "bellows"),
    ("smlight slzb-07", "bellows"),
    ("smlight slzb-06", "znp"),
    ("slae.sh cc2652", "znp"),
    ("zig-a-zig-ah", "znp"),
    ("tubeszb", "znp"),
    ("cc2531", "znp"),
    ("ti cc", "znp"),
    ("xbee", "xbee"),
    ("nrf52840 zboss", "zboss"),
    ("zboss", "zboss"),
)
_BY_USB = {
    "1cf1:0030": "deconz",  # dresden elektronik ConBee II
    "0451:16a8": "znp",  # Texas Instruments CC2531
    "0451:bef3": "znp",  # Texas Instruments LaunchPad (XDS110)
    "10c4:8a2a": "bellows",  # Nortek HUSBZB-1
    "303a:4001": "bellows",  # Home Assistant Connect ZBT-2
}


@dataclass(frozen=True, slots=True)
class SerialPort:
    device: str
    by_id: str | None  # for the configuration
    description: str
    manufacturer: str
    usb: str  # vendor:product, empty for what is no USB
    library: str | None  # that seems to fit; None: unknown


def suggested_library(usb: str, *texts: str) -> str | None:
    """By what the dongle says of itself, else by its USB numbers; None for a bare USB-to-serial chip."""
    said = " ".join(texts).lower()
    for text, library in _BY_TEXT:
        if text in said:
            return library
    return _BY_USB.get(usb)


def serial_ports() -> list[SerialPort]:
    """As pyserial finds them; ports on the mainboard, which are mostly not there, come last."""
    from serial.tools import list_ports

    names = stable_names()
    return sorted((_described(port, names) for port in list_ports.comports()), key=lambda p: (not p.usb, p.device))


@click.command()
@click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="GATEWAYD_CONFIG",
    help=f"Mark the port that it names.  [default: {DEFAULT_CONFIG}, if there]",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def radios(config: Path | None, as_json: bool) -> None:
    """List serial ports where a dongle may be."""
    ports = serial_ports()
    used = _configured(config)
    if as_json:
        found = [{**asdict(port), "configured": _is_used(port, used)} for port in ports]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from gatewayd.cli.tables import show

    if not ports:
        click.echo("no serial port found")
        return
    table = Table(r"for \[zigbee] device", "port", "USB", "what it says it is", "library", "configured")
    for port in ports:
        table.add_row(
            Text(port.by_id or port.device),
            Text(port.device),
            port.usb,
            Text(port.description),
            port.library or "",
            "yes" if _is_used(port, used) else "",
        )
    show(table)


def _described(port: Any, names: dict[str, str]) -> SerialPort:
    by_id = names.get(str(Path(port.device).resolve()))
    description = port.description if port.description not in (None, "n/a") else ""
    manufacturer = port.manufacturer or ""
    usb = f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None and port.pid is not None else ""
    library = suggested_library(usb, description, manufacturer, by_id or "", port.product or "")
    return SerialPort(port.device, by_id, description, manufacturer, usb, library)


def _configured(config: Path | None) -> str | None:
    """The device of the configuration; None without one. A configuration with faults does not keep ports from being listed."""
    from gatewayd.config import load
    from gatewayd.errors import ConfigError

    if config is None and not DEFAULT_CONFIG.exists():
        return None
    try:
        zigbee = load(config or DEFAULT_CONFIG).zigbee
    except ConfigError as error:
        click.echo(f"gatewayd: {error}", err=True)
        return None
    return None if zigbee is None else zigbee.device


def _is_used(port: SerialPort, used: str | None) -> bool:
    if used is None or not used.startswith("/"):
        return False
    return used in (port.device, port.by_id) or Path(used).resolve() == Path(port.device).resolve()
