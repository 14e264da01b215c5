"""Following a campaign over MQTT until it has ended. SHELL."""

import asyncio
from collections.abc import Callable

import structlog

from gatewayd.cloud import messages
from gatewayd.errors import Refused, Unavailable
from gatewayd.publisher.broker import BrokerSettings, connected, payload_bytes, subscribe_all
from gatewayd.publisher.progress import Outcome, Progress

log = structlog.get_logger()

RECONNECT_S = 1.0


async def watch(
    broker: BrokerSettings,
    audience: str,
    progress: Progress,
    timeout_s: float | None,
    on_change: Callable[[Progress], None],
) -> Outcome:
    """Fill `progress` from reports and summaries, calling `on_change` after each, until it has an outcome or time is up.

    Documents that make no sense are passed over: a broken gateway must not hide the others. Unavailable when the broker
    is not there at the beginning; later on it is waited for.
    """
    gateway = audience.removeprefix("gateway:") if audience.startswith("gateway:") else "+"
    topics = [
        messages.gateway_topic(gateway, f"summary/{progress.campaign}"),
        messages.gateway_topic(gateway, "reports"),
    ]
    spoken = False
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async with connected(broker) as client:
                        await subscribe_all(client, topics)
                        spoken = True
                        async for message in client.messages:
                            if _take(progress, message.topic.value, payload_bytes(message)):
                                on_change(progress)
                                if (outcome := progress.outcome()) is not None:
                                    return outcome
                except Unavailable as error:
                    if not spoken:
                        raise
                    log.warning("watch_offline", reason=str(error))
                    await asyncio.sleep(RECONNECT_S)  # summaries are retained: nothing that counts is missed
    except TimeoutError:
        return Outcome.TIMEOUT


def _take(progress: Progress, topic: str, raw: bytes) -> bool:
    gateway, leaf = topic.removeprefix(f"{messages.TOPIC_ROOT}/gateways/").split("/", 1)
    try:
        if leaf == "reports":
            for numbered in messages.parse(messages.ReportBatch, raw, topic).reports:
                progress.report(gateway, numbered.report)
        else:
            progress.summary(gateway, messages.parse(messages.CampaignSummary, raw, topic))
    except Refused:
        return False
    return True
