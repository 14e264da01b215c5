"""What a plan is made from: the gateways' inventory pages on the broker, and the repository on disk. SHELL."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tuf.api.metadata import TargetFile  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.cloud.messages import GatewayState, InventoryPage, Manufacturers, Release
from gatewayd.errors import ConfigError, Refused
from gatewayd.publisher.broker import BrokerSettings, connected, payload_bytes, subscribe_all
from gatewayd.publisher.forecast import GatewayInventory
from gatewayd.publisher.keys import KeyFolder
from gatewayd.publisher.repository import Repository
from gatewayd.trust.release import VerifiedRelease, verify_release


async def inventories(broker: BrokerSettings, audience: str, named: Sequence[str] = ()) -> list[GatewayInventory]:
    """What is retained of the audience's gateways, by name; of a fleet: of those `named`, or that say they are in it.

    A broker does not say when all that is retained has come: it is enough when nothing has come for `retained_wait_s`.
    Pages that make no sense count as missing. Unavailable.
    """
    scope, _, name = audience.partition(":")
    known = {name} if scope == "gateway" else set(named)
    topics = [messages.gateway_topic(gateway, "inventory/+") for gateway in known or ("+",)]
    if not known:
        topics.append(messages.gateway_topic("+", "state"))
    pages: dict[str, dict[int, InventoryPage]] = {}
    members = set(known)
    loop = asyncio.get_running_loop()
    async with connected(broker) as client:
        await subscribe_all(client, topics)
        try:
            async with asyncio.timeout(broker.retained_wait_s) as limit:
                async for message in client.messages:
                    if not message.retain:
                        continue
                    limit.reschedule(loop.time() + broker.retained_wait_s)
                    gateway, leaf = message.topic.value.removeprefix(f"{messages.TOPIC_ROOT}/gateways/").split("/", 1)
                    try:
                        if leaf == "state":
                            if name in messages.parse(GatewayState, payload_bytes(message), leaf).fleets:
                                members.add(gateway)
                        else:
                            page = messages.parse(InventoryPage, payload_bytes(message), leaf)
                            pages.setdefault(gateway, {})[page.page] = page
                    except Refused:
                        continue
        except TimeoutError:
            pass
    return [_inventory(gateway, tuple(pages.get(gateway, {}).values())) for gateway in sorted(members)]


def published(repo: Path, release: str, now: float) -> tuple[VerifiedRelease, list[Release], Manufacturers]:
    """The release, all releases and the manufacturers of a repository on disk. ConfigError when it is not published.

    Our own repository is believed: this release is only planned with, never delivered.
    """
    repository = Repository(repo, KeyFolder(repo))
    releases = repository.releases()
    document = next((one for one in releases if f"releases/{one.name}/{one.version}.json" == release), None)
    if document is None:
        raise ConfigError(f"{repo} does not publish {release}")
    body = messages.dump(document)
    target = TargetFile.from_data(release, body, ["sha256"])
    return verify_release(release, body, target, now, now), releases, repository.manufacturers()


def _inventory(gateway: str, pages: Sequence[InventoryPage]) -> GatewayInventory:
    found = GatewayInventory(gateway, pages)
    return GatewayInventory(gateway, pages, _zone(found.site.timezone))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC  # this machine does not know it: hours are those of UTC then
