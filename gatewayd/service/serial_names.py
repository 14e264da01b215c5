"""Names of serial devices that stay when they are plugged in elsewhere, or in another order: /dev/serial/by-id."""

from pathlib import Path

BY_ID = Path("/dev/serial/by-id")


def stable_names(folder: Path = BY_ID) -> dict[str, str]:
    """The by-id name of every device that has one."""
    try:
        links = sorted(folder.iterdir())
    except OSError:
        return {}
    return {str(link.resolve()): str(link) for link in links}


def better_name(device: str, folder: Path = BY_ID) -> str | None:
    """The by-id name of a device that is given by another one; None when there is none, or it is no path."""
    if not device.startswith("/") or Path(device).parent == folder:
        return None
    return stable_names(folder).get(str(Path(device).resolve()))
