"""Attacks are judged by what a node gets: a whole gateway, of which a thief or a liar holds one part."""

from gatewayd.cloud.messages import Desired
from tests.gatewayd.campaign.conftest import Gateway, gateway

__all__ = ["gateway"]


async def nothing_on_air(gateway: Gateway) -> None:
    """No radio was told anything, and still is not when all campaigns have been looked at once more."""
    last = gateway.document("last", desired=Desired.PAUSED)
    await gateway.issue(last)  # adopted last, so looked at last
    await gateway.until_state("paused", "last")
    assert gateway.radio.orders == []
    assert gateway.radio.told == []


async def refusals(gateway: Gateway) -> list[tuple[str | None, str]]:
    """Campaign and code of every refusal that was reported."""
    return [(report.campaign, report.code) for report in await gateway.reports() if report.state == "refused"]
