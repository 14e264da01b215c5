"""What makes a verified type verified: an object that only the modules of this package pass on. PURE."""

from gatewayd.errors import Bug

SEAL = object()


def check_seal(seal: object, what: str) -> None:
    """Bug when something outside trust/ makes a verified type."""
    if seal is not SEAL:
        raise Bug(f"{what} is made by gatewayd.trust only, after verification")
