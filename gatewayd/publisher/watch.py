"""Following a campaign over MQTT until it has ended. SHELL."""

import asyncio
from collections.abc import Callable, Iterable

import aiomqtt
import structlog

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Report
from gatewayd.errors import Refused, Unavailable
from gatewayd.publisher.broker import BrokerSettings, connected, payload_bytes, subscribe_all
from gatewayd.publisher.progress import Outcome, Progress

log = structlog.get_logger()

RECONNECT_S = 1.0

History = Callable[[], Iterable[tuple[str, Report]]]


async def watch(
    broker: BrokerSettings,
    audience: str,
    progress: Progress,
    timeout_s: float | None,
    on_change: Callable[[Progress], None],
    history: History | None = None,
) -> Outcome:
    """Fill `progress` from reports and summaries, calling `on_change` after each, until it has an outcome or time is up.

    For a fleet the gateways' `state` is listened to as well, and nothing ends well before what is retained has come.
    `history` gives what a collector has stored; it is asked after the subscription, so that nothing falls in between.
    Documents that make no sense are passed over: a broken gateway must not hide the others. Unavailable when the broker
    is not there at the beginning; later on it is waited for.
    """
    scope, _, name = audience.partition(":")
    if scope == "gateway":
        progress.expected = progress.expected or frozenset({name})
        topics = [messages.gateway_topic(name, f"summary/{progress.campaign}"), messages.gateway_topic(name, "reports")]
    else:
        progress.fleet = name
        topics = [messages.gateway_topic("+", leaf) for leaf in ("state", f"summary/{progress.campaign}", "reports")]
    spoken = False
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async with connected(broker) as client:
                        progress.settled = scope == "gateway"
                        await subscribe_all(client, topics)
                        if history is not None and not spoken:
                            progress.history(history())
                            on_change(progress)
                        spoken = True
                        return await _follow(client, progress, on_change, broker.retained_wait_s)
                except Unavailable as error:
                    if not spoken:
                        raise
                    log.warning("watch_offline", reason=str(error))
                    await asyncio.sleep(RECONNECT_S)  # summaries are retained: nothing that counts is missed
    except TimeoutError:
        return Outcome.TIMEOUT


async def _follow(
    client: aiomqtt.Client, progress: Progress, on_change: Callable[[Progress], None], settle_s: float
) -> Outcome:
    """Until the outcome. A broker does not say when all that is retained has come: `settle_s` is long enough."""
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def judge() -> None:
        if (outcome := progress.outcome()) is not None and not ended.done():
            ended.set_result(outcome)

    async def listen() -> Outcome:
        async for message in client.messages:
            if _take(progress, message.topic.value, payload_bytes(message)):
                on_change(progress)
                judge()
        raise Unavailable("the broker has ended the conversation")

    async def settle() -> None:
        await asyncio.sleep(settle_s)
        progress.settled = True
        judge()

    listening, settling = asyncio.ensure_future(listen()), asyncio.ensure_future(settle())
    try:
        await asyncio.wait({ended, listening}, return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else listening.result()
    finally:
        for task in (listening, settling):
            task.cancel()
        await asyncio.gather(listening, settling, return_exceptions=True)


def _take(progress: Progress, topic: str, raw: bytes) -> bool:
    gateway, leaf = topic.removeprefix(f"{messages.TOPIC_ROOT}/gateways/").split("/", 1)
    try:
        if leaf == "reports":
            for numbered in messages.parse(messages.ReportBatch, raw, topic).reports:
                progress.report(gateway, numbered.report)
        elif leaf == "state":
            progress.state(gateway, messages.parse(messages.GatewayState, raw, topic) if raw else None)
        else:
            progress.summary(gateway, messages.parse(messages.CampaignSummary, raw, topic))
    except Refused:
        return False
    return True
