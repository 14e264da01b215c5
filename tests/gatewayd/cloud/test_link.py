"""The link against a real mosquitto: TLS, client certificates, an ACL per gateway."""

import asyncio
from typing import Any

import pytest

from gatewayd.cloud import messages
from gatewayd.cloud.drain import Drain
from gatewayd.cloud.link import CloudSettings
from gatewayd.cloud.outbox import new_epoch
from gatewayd.demo.authority import Authority
from gatewayd.errors import ConfigError, Refused, StoreError
from tests.gatewayd.cloud.conftest import Site, eventually, report
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.services

STATE = "ota/v1/gateways/gw-a/state"
ACKS = "ota/v1/gateways/gw-a/acks"
REPORTS = "ota/v1/gateways/gw-a/reports"
CAMPAIGN = "ota/v1/gateways/gw-a/campaigns/lamps"


def state(kind: str, connection: str) -> bytes:
    return messages.dump(
        messages.GatewayState.model_validate({"state": kind, "connection": connection, "gateway": "gw-a"})
    )


# -- presence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_it_says_online_and_on_an_orderly_end_offline(site: Site, protocol: str) -> None:
    link, _, _ = site.link(protocol=protocol)
    async with site.cloud() as cloud:
        running = site.start(link)
        await eventually(lambda: cloud.states() == ["online"])
        said = messages.parse(messages.GatewayState, cloud.on(STATE)[0], "state")
        assert (said.gateway, said.version, said.fleets) == ("gw-a", "0.1.0", ("f1",))
        assert said.connection
        assert link.status().connected
        running.cancel()
        await asyncio.wait({running})
        await eventually(lambda: cloud.states() == ["online", "offline"])
        assert messages.parse(messages.GatewayState, cloud.on(STATE)[1], "state").connection == said.connection


async def test_the_last_will_says_offline_when_the_gateway_dies(site: Site) -> None:
    link, _, _ = site.link()
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: cloud.states() == ["online"])
        # Whoever takes the client id over makes the broker cut the first one, as a dead gateway is cut in the end.
        async with site.broker.client("gw-a", identifier="gw-a"):
            await eventually(lambda: cloud.states()[:2] == ["online", "offline"])
        await eventually(lambda: cloud.states()[-1] == "online")
    assert link.status().reconnects >= 1


async def test_a_foreign_offline_is_published_over_and_our_own_is_not(site: Site) -> None:
    link, _, _ = site.link()
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: cloud.states() == ["online"])
        await cloud.say(STATE, state("offline", "an-earlier-connection"))
        await eventually(lambda: cloud.states() == ["online", "offline", "online"])
        await cloud.say(STATE, b"{not json")
        await eventually(lambda: len(cloud.on(STATE)) == 5)


async def test_a_foreign_online_does_not_start_a_shouting_match(site: Site) -> None:
    link, _, handlers = site.link()
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: cloud.states() == ["online"])
        await cloud.say(STATE, state("online", "somebody-else"))
        await cloud.say(CAMPAIGN, b"later")
        await eventually(lambda: len(handlers.campaigns) == 1)
        assert cloud.states() == ["online", "online"]


async def test_health_is_in_the_state(site: Site) -> None:
    link, _, _ = site.link()
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: cloud.states() == ["online"])
        await link.set_health({"zigbee": "down"})
        await eventually(lambda: len(cloud.on(STATE)) == 2)
        assert messages.parse(messages.GatewayState, cloud.on(STATE)[1], "state").health == {"zigbee": "down"}


# -- what arrives ------------------------------------------------------------------------------------------------------


async def test_retained_campaigns_arrive_again_with_every_connection(site: Site) -> None:
    link, _, handlers = site.link()
    fleet = "ota/v1/fleets/f1/campaigns/bulbs"
    async with site.cloud() as cloud:
        await cloud.say(CAMPAIGN, b"one")
        await cloud.say(fleet, b"two")
    site.start(link)
    await eventually(lambda: sorted(handlers.campaigns) == [(fleet, b"two"), (CAMPAIGN, b"one")])
    site.broker.restart()
    await eventually(lambda: len(handlers.campaigns) == 4)


async def test_commands_are_handed_on(site: Site) -> None:
    link, _, handlers = site.link()
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: "online" in cloud.states())
        while not handlers.commands:  # it is no state: said before the subscription, it is lost
            await cloud.say("ota/v1/gateways/gw-a/commands", b"resync", retain=False)
            await asyncio.sleep(0.05)
        assert set(handlers.commands) == {b"resync"}


@pytest.mark.parametrize("error", [Refused("bad_signature", "x"), RuntimeError("a bug")])
async def test_a_failing_handler_does_not_stop_the_link(site: Site, error: Exception) -> None:
    link, _, handlers = site.link()
    handlers.raises = error
    async with site.cloud() as cloud:
        site.start(link)
        for number in range(3):
            await cloud.say(f"{CAMPAIGN}-{number}", b'{"truncated": ')
        await eventually(lambda: len(handlers.campaigns) == 3)
        assert link.status().connected
        assert link.status().connections == 1
        assert link.status().last_error


async def test_a_campaign_that_could_not_be_stored_is_asked_for_again(site: Site) -> None:
    link, _, handlers = site.link(ask_again_s=0.1)
    handlers.raises = StoreError("disk full")
    async with site.cloud() as cloud:
        await cloud.say(CAMPAIGN, b"one")
        site.start(link)
        await eventually(lambda: len(handlers.campaigns) >= 2)
        handlers.raises = None
        known = len(handlers.campaigns)
        await cloud.say(f"{CAMPAIGN}-2", b"two")
        await eventually(lambda: (f"{CAMPAIGN}-2", b"two") in handlers.campaigns[known:])
        assert link.status().connections == 1


async def test_a_command_that_could_not_be_stored_is_done_later(site: Site) -> None:
    link, _, handlers = site.link(ask_again_s=0.1)
    handlers.raises = StoreError("disk full")
    command = "ota/v1/gateways/gw-a/commands"
    async with site.cloud() as cloud:
        site.start(link)
        while not handlers.commands:
            await cloud.say(command, b"resync", retain=False)
            await asyncio.sleep(0.05)
        await eventually(lambda: len(handlers.commands) > 2)  # without anybody saying it again
        handlers.raises = None
        known = len(handlers.commands)
        await eventually(lambda: len(handlers.commands) == known + 1)
        assert set(handlers.commands) == {b"resync"}
        assert link.status().connections == 1


async def test_large_messages_do_no_harm_and_more_than_the_window_arrive(site: Site) -> None:
    link, _, handlers = site.link()
    async with site.cloud() as cloud:
        await cloud.say(f"{CAMPAIGN}-huge", b"x" * 300_000)  # beyond our maximum packet size: stays with the broker
        await cloud.say(f"{CAMPAIGN}-large", b"x" * 100_000)  # to be refused by its handler, with a report
        for number in range(50):
            await cloud.say(f"{CAMPAIGN}-{number}", b"ok")
        site.start(link)
        await eventually(lambda: len(handlers.campaigns) == 51)
        assert {len(payload) for _, payload in handlers.campaigns} == {2, 100_000}
        assert link.status().connections == 1


async def test_a_cleared_topic_changes_nothing(site: Site) -> None:
    link, _, handlers = site.link()
    async with site.cloud() as cloud:
        await cloud.say(CAMPAIGN, b"one")
        site.start(link)
        await eventually(lambda: len(handlers.campaigns) == 1)
        await cloud.say(CAMPAIGN, b"")
        await cloud.say(ACKS, b"")
        await cloud.say(STATE, b"")
        await cloud.say(f"{CAMPAIGN}-2", b"two")
        await eventually(lambda: len(handlers.campaigns) == 2)
        assert handlers.campaigns[1] == (f"{CAMPAIGN}-2", b"two")


# -- reports -----------------------------------------------------------------------------------------------------------


async def test_reports_are_sent_in_order_and_forgotten_only_when_acknowledged(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database)
    async with site.cloud() as cloud:
        site.start(link)
        await report(outbox, database, "ready", "installing", "updated")
        await eventually(lambda: cloud.seqs() == [1, 2, 3])
        assert await outbox.batch(0) is not None
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=2)))
        await eventually(lambda: outbox.depth.reports == 1)
        await cloud.say(ACKS, b'{"epoch": 1, "se')
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=999)))
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=3)))
        await eventually(lambda: outbox.depth.reports == 0)
        assert cloud.seqs() == [1, 2, 3]


async def test_progress_alone_waits_for_its_interval_and_an_outcome_takes_it_along(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database, progress_interval_s=3600.0)
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: link.status().connected)
        await report(outbox, database, "first")  # sent at once, and starts the interval
        await eventually(lambda: cloud.seqs() == [1])
        await report(outbox, database, "transferring", "transferring", kind="progress")
        await link.publish_retained("summary/x", messages.Acks(epoch=1, seq=1))
        await eventually(lambda: len(cloud.on("ota/v1/gateways/gw-a/summary/x")) == 1)
        assert cloud.seqs() == [1]
        await report(outbox, database, "updated")
        await eventually(lambda: cloud.seqs() == [1, 2, 3, 4])
        await report(outbox, database, *["transferring"] * 100, kind="progress")
        await eventually(lambda: cloud.seqs() == list(range(1, 105)))


async def test_the_broker_killed_and_restarted_costs_no_report(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database)
    site.start(link)
    async with site.cloud() as cloud:
        await report(outbox, database, *(f"s{n}" for n in range(150)))
        await eventually(lambda: len(cloud.seqs()) == 150)
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=120)))
        await eventually(lambda: outbox.depth.reports == 30)
    site.broker.kill()
    await eventually(lambda: not link.status().connected)
    await report(outbox, database, "while offline")
    site.broker.start()
    await eventually(lambda: link.status().connected)
    async with site.cloud() as cloud:
        link.resend()  # our cloud's client may have subscribed later than the gateway has sent
        await eventually(lambda: cloud.seqs()[-31:] == list(range(121, 152)))
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=151)))
        await eventually(lambda: outbox.depth.reports == 0)
    assert link.status().last_error


async def test_what_has_piled_up_goes_no_faster_than_the_rate_and_news_at_once(site: Site) -> None:
    """By a clock of the link's that passes only while it waits for its turn."""
    at = [0.0]

    async def sleep(seconds: float) -> None:
        at[0] += seconds

    rate, burst = 1000.0, 4000
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database, drain=Drain(rate, burst, lambda: at[0], sleep))
    await report(outbox, database, *(f"state-{n:04}" for n in range(1000)))
    for number in range(5):
        await link.publish_retained(f"summary/{number}", messages.Acks(epoch=1, seq=number))
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: cloud.seqs() == list(range(1, 1001)))
        sizes = [len(payload) for payload in cloud.on(REPORTS)]
        assert at[0] >= (sum(sizes[:-1]) - burst) / rate > 0.0
        before = at[0] = at[0] + 3600.0
        await report(outbox, database, "updated")
        await eventually(lambda: cloud.seqs()[-1] == 1001)
        assert at[0] == before


async def test_retained_documents_after_an_outage_are_within_the_rate_too(site: Site) -> None:
    at = [0.0]

    async def sleep(seconds: float) -> None:
        at[0] += seconds

    link, _, _ = site.link(drain=Drain(10.0, 100, lambda: at[0], sleep))
    document = messages.Acks(epoch=1, seq=1)
    for number in range(100):
        await link.publish_retained(f"summary/{number}", document)
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: bool(cloud.on("ota/v1/gateways/gw-a/summary/99")))
    assert at[0] >= (99 * len(messages.dump(document)) - 100) / 10.0


async def test_it_resumes_from_the_watermark_without_being_asked(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database)
    async with site.cloud() as cloud:
        site.start(link)
        await report(outbox, database, "a", "b", "c")
        await eventually(lambda: cloud.seqs() == [1, 2, 3])
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=1)))
        await eventually(lambda: outbox.depth.reports == 2)
        async with site.broker.client("gw-a", identifier="gw-a"):  # cuts the link; the cloud stays
            await eventually(lambda: "offline" in cloud.states())
        await eventually(lambda: cloud.seqs() == [1, 2, 3, 2, 3])


async def test_what_stays_unacknowledged_is_sent_again(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database, resend_after_s=0.3)
    async with site.cloud() as cloud:
        site.start(link)
        await report(outbox, database, "a")
        await eventually(lambda: cloud.seqs() == [1])
        while len(cloud.seqs()) < 2:
            outbox.notify()
            await asyncio.sleep(0.05)
        assert set(cloud.seqs()) == {1}


async def test_what_a_late_cloud_has_missed_is_sent_again_soon_after_it_speaks(site: Site) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database, resend_missed_s=0.2)
    async with site.cloud() as cloud:
        site.start(link)
        await report(outbox, database, "a", "b", "c")
        await eventually(lambda: cloud.seqs() == [1, 2, 3])
        acks = messages.dump(messages.Acks(epoch=outbox.epoch, seq=1))
        await cloud.say(ACKS, acks)
        await eventually(lambda: cloud.seqs()[:5] == [1, 2, 3, 2, 3])


async def test_acks_of_what_was_never_sent_open_a_new_epoch_before_more_is_forgotten(site: Site) -> None:
    """An older copy of the state was put back: the cloud knows reports 1 to 50, and these three are others."""
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database)
    epoch = await outbox.load()
    found: list[tuple[int, int]] = []

    async def beyond(acks: messages.Acks, sent: int) -> None:
        found.append((acks.seq, sent))
        await outbox.adopt(await database.write(new_epoch))
        link.resend()

    outbox.beyond = beyond
    await report(outbox, database, "a", "b", "c")
    async with site.cloud() as cloud:
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=epoch, seq=50)))
        site.start(link)
        await eventually(lambda: any(b.epoch != epoch for b in cloud.batches()))
        told = [b for b in cloud.batches() if b.epoch != epoch]
        assert [entry.report.state for entry in told[-1].reports] == ["a", "b", "c"]
        assert found == [(50, 0)]


async def test_acks_that_could_not_be_stored_are_applied_when_there_is_room_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = site.database("gw-a")
    link, outbox, _ = site.link(database=database, ask_again_s=0.05)
    acknowledge, done = outbox.acknowledge, []

    async def full_twice(acks: messages.Acks) -> bool:
        done.append(len(done) == 2 and await acknowledge(acks))
        if not done[-1]:
            raise StoreError("disk full")
        return True

    monkeypatch.setattr(outbox, "acknowledge", full_twice)
    async with site.cloud() as cloud:
        site.start(link)
        await eventually(lambda: link.status().connected)
        await report(outbox, database, "a")
        await eventually(lambda: cloud.seqs() == [1])
        await cloud.say(ACKS, messages.dump(messages.Acks(epoch=outbox.epoch, seq=1)))
        await eventually(lambda: done == [False, False, True])
        assert (await outbox.pending(0)).reports == 0


async def test_it_connects_when_the_broker_comes_up_later(site: Site) -> None:
    database = site.database("gw-a")
    site.broker.kill()
    link, outbox, _ = site.link(database=database)
    site.start(link)
    await report(outbox, database, "a")
    summary = messages.Acks(epoch=1, seq=1)
    await link.publish_retained("summary/x", messages.Acks(epoch=1, seq=0))
    await link.publish_retained("summary/x", summary)
    await eventually(lambda: bool(link.status().last_error))
    assert not link.status().connected
    site.broker.start()
    async with site.cloud() as cloud:
        await eventually(lambda: link.status().connected)
        link.resend()
        await eventually(lambda: 1 in cloud.seqs())
        await eventually(lambda: bool(cloud.on("ota/v1/gateways/gw-a/summary/x")))
        assert set(cloud.on("ota/v1/gateways/gw-a/summary/x")) == {messages.dump(summary)}


async def test_retained_documents_can_be_cleared(site: Site) -> None:
    link, _, _ = site.link()
    topic = "ota/v1/gateways/gw-a/inventory/1"
    async with site.cloud() as cloud:
        site.start(link)
        await link.publish_retained("inventory/1", messages.Acks(epoch=1, seq=1))
        await eventually(lambda: len(cloud.on(topic)) == 1)
        await link.publish_retained("inventory/1", messages.Acks(epoch=1, seq=1))
        await link.publish_retained("inventory/1", None)
        await eventually(lambda: len(cloud.on(topic)) == 2)
        assert cloud.on(topic)[1] == b""


# -- who may do what ---------------------------------------------------------------------------------------------------


async def test_gateway_b_neither_reads_nor_writes_what_is_of_gateway_a(site: Site) -> None:
    async with site.cloud() as cloud:
        await cloud.say(CAMPAIGN, b"for a")
        await cloud.say("ota/v1/fleets/f1/campaigns/x", b"for the fleet of a")
        await cloud.say(ACKS, b"for a")
        async with site.broker.client("gw-b") as intruder:
            for topic_filter in ("ota/v1/#", "ota/v1/gateways/gw-a/#", CAMPAIGN, ACKS, "ota/v1/fleets/f1/campaigns/+"):
                await intruder.subscribe(topic_filter, 1)
            for topic in (
                STATE,
                REPORTS,
                ACKS,
                CAMPAIGN,
                "ota/v1/gateways/gw-b/campaigns/x",
                "ota/v1/gateways/gw-b/acks",
            ):
                await intruder.publish(topic, b"forged", qos=1, retain=True)
            await intruder.publish("ota/v1/gateways/gw-b/reports", b"mine", qos=1)
            await eventually(lambda: cloud.on("ota/v1/gateways/gw-b/reports") == [b"mine"])
            assert not [message for message in cloud.heard if message.payload == b"forged"]
            await cloud.say("ota/v1/gateways/gw-b/campaigns/own", b"for b")
            async with asyncio.timeout(10):
                first = await anext(intruder.messages)
            assert (first.topic.value, first.payload) == ("ota/v1/gateways/gw-b/campaigns/own", b"for b")


async def test_without_a_certificate_of_the_authority_there_is_no_connection(site: Site, tmp_path: Any) -> None:
    stranger = Authority(tmp_path / "stranger").client("gw-a")
    tls = site.settings("gw-a").tls
    assert tls is not None
    link, _, _ = site.link(tls=type(tls)(tls.ca, stranger.cert, stranger.key))
    site.start(link)
    await eventually(lambda: bool(link.status().last_error))
    assert link.status().connections == 0


async def test_a_broker_that_is_not_of_the_authority_is_not_trusted(site: Site, tmp_path: Any) -> None:
    stranger = Authority(tmp_path / "stranger")
    tls = site.settings("gw-a").tls
    assert tls is not None
    link, _, _ = site.link(tls=type(tls)(stranger.ca, tls.cert, tls.key))
    site.start(link)
    await eventually(lambda: "certificate verify failed" in link.status().last_error.lower())
    assert link.status().connections == 0


async def test_missing_certificate_files_are_said_and_tried_again(site: Site, tmp_path: Any) -> None:
    tls = site.settings("gw-a").tls
    assert tls is not None
    late = tmp_path / "ca.pem"
    link, _, _ = site.link(tls=type(tls)(late, tls.cert, tls.key))
    site.start(link)
    await eventually(lambda: "No such file" in link.status().last_error)
    late.write_bytes(tls.ca.read_bytes())
    await eventually(lambda: link.status().connected)


async def test_refused_publishes_are_seen_and_not_taken_for_sent(site: Site) -> None:
    """Gateway A with the certificate of B: the broker accepts the connection, and refuses every publish."""
    database = site.database("gw-a")
    link, outbox, _ = site.link(identity="gw-b", database=database)
    async with site.cloud() as cloud:
        site.start(link)
        await report(outbox, database, "a")
        await eventually(lambda: link.status().refused_publishes >= 3)
        assert "Not authorized" in link.status().last_error
        assert link.status().sent_seq == 0
        assert outbox.depth.reports <= 1
        assert await outbox.batch(0) is not None
        assert not cloud.heard
        assert link.status().connections == 1


async def test_plain_and_anonymous_on_loopback(tmp_path: Any, site: Site) -> None:
    with Mosquitto(tmp_path / "plain") as broker:
        link, _, _ = site.link(port=broker.port, tls=None)
        site.start(link)
        await eventually(lambda: link.status().connected)


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        CloudSettings(host="broker.example", tls=None)
    with pytest.raises(ConfigError, match="protocol"):
        CloudSettings(host="localhost", protocol="4")
    assert "hunter2" not in repr(CloudSettings(host="localhost", username="u", password="hunter2"))
