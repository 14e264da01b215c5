"""`gatewayd radios`: which serial ports there are, under the names that stay when they are plugged in elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import click

BY_ID = Path("/dev/serial/by-id")


@dataclass(frozen=True, slots=True)
class SerialPort:
    device: str
    by_id: str | None  # for the configuration
    description: str
    usb: str  # vendor:product, empty for what is no USB


def stable_names(folder: Path = BY_ID) -> dict[str, str]:
    """The by-id name of every device that has one."""
    try:
        links = sorted(folder.iterdir())
    except OSError:
        return {}
    return {str(link.resolve()): str(link) for link in links}


def serial_ports() -> list[SerialPort]:
    """As pyserial finds them; ports on the mainboard, which are mostly not there, come last."""
    from serial.tools import list_ports

    names = stable_names()
    found = [
        SerialPort(
            port.device,
            names.get(str(Path(port.device).resolve())),
            port.description if port.description != "n/a" else "",
            f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None and port.pid is not None else "",
        )
        for port in list_ports.comports()
    ]
    return sorted(found, key=lambda port: (not port.usb, port.device))


@click.command()
def radios() -> None:
    """List serial ports where a dongle may be."""
    from rich.table import Table
    from rich.text import Text

    from gatewayd.cli.tables import show

    ports = serial_ports()
    if not ports:
        click.echo("no serial port found")
        return
    table = Table(r"for \[zigbee] device", "port", "USB", "what it says it is")
    for port in ports:
        table.add_row(Text(port.by_id or port.device), Text(port.device), port.usb, Text(port.description))
    show(table)
