"""The version of the running program."""

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As the installed distribution says; `unknown` when it is run without being installed."""
    try:
        return metadata.version("gatewayd")
    except metadata.PackageNotFoundError:
        return "unknown"
