"""The pacing at work on a simulated mesh, in virtual time: places, foreground traffic, block periods, broadcasts."""

from dataclasses import replace

import pytest

from radios.radio import Fact
from radios.simulated.zigbee.foreground import Foreground
from radios.simulated.zigbee.frames import CLUSTER_OTA, ApsFrame
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaState, OtaTiming
from radios.zigbee.air import ShareLimits
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.settings import ZigbeeSettings
from tests.support.zigbee_downloads import EUI64, Site, download

SILENT = OtaTiming(boot_query_delay_s=(1e6, 1e6), verify_s=1e6)
SETTINGS = ZigbeeSettings("simulated")


def nodes(count: int, habits: OtaHabits | None = None) -> list[NodeSpec]:
    habits = habits or OtaHabits()
    return [
        NodeSpec(EUI64 + at, hops=1 + at % 3, mac_loss=0.02, timing=SILENT, habits=habits, seed=1)
        for at in range(count)
    ]


def limited(share: float) -> ZigbeeSettings:
    return replace(SETTINGS, pacing=PacingLimits(shares=ShareLimits(air_share=share)))


def test_nodes_are_offered_the_image_when_there_is_a_place_and_poll_for_none() -> None:
    most = 0

    def watch(site: Site) -> None:
        def look(now: float) -> None:
            nonlocal most
            busy = [node.ota for node in site.mesh.nodes.values() if node.ota.state is OtaState.DOWNLOADING]
            # The last block gives the place away before it has arrived.
            most = max(most, sum(len(ota.staged) < len(site.image) - 50 for ota in busy))
            site.mesh.call_at(now + 0.05, look)

        site.mesh.call_at(site.loop.time(), look)

    site = download(nodes(20), SETTINGS, meanwhile=watch)
    assert 5 <= most <= 6
    assert sum(node.counters.told_to_wait for node in site.mesh.nodes.values()) <= 2


def test_while_foreground_traffic_flows_the_update_takes_its_share_and_all_reports_arrive() -> None:
    shares: list[object] = []
    reasons: set[object] = set()
    traffic: list[Foreground] = []

    def watch(site: Site) -> None:
        foreground = Foreground(site.mesh, 2.0, seed=1)
        foreground.start(site.loop.time())
        traffic.append(foreground)

        def look(now: float) -> None:
            status = site.radio.status()
            shares.append(status["air_used"])
            reasons.add(status["air_share_because"])
            site.mesh.call_at(now + 1.0, look)

        site.mesh.call_at(site.loop.time() + 30.0, look)

    site = download(nodes(12), SETTINGS, image_bytes=8000, meanwhile=watch)
    assert reasons == {"foreground"}
    used = [share for share in shares if isinstance(share, float)]
    assert 0.28 <= sum(used) / len(used) <= 0.42
    assert sum(node.counters.told_to_wait for node in site.mesh.nodes.values()) <= 6  # answers are late, that is all
    latencies = traffic[0].latencies(until=site.loop.time() - 5.0)
    assert len(latencies) > 100
    assert max(latencies) < 1.0


def test_an_operators_cap_is_kept() -> None:
    free, capped = download(nodes(3), SETTINGS), download(nodes(3), limited(0.2))
    blocks_air_s = 3 * 80 * 2 * 0.01
    assert capped.took_s >= 0.9 * blocks_air_s / 0.2
    assert free.took_s < capped.took_s / 2


@pytest.mark.parametrize("revision", [1, 2, 3, None])
def test_a_node_that_offers_a_block_period_is_slowed_down_in_its_own_unit(revision: int | None) -> None:
    habits = OtaHabits(minimum_block_period=0, cluster_revision=revision)
    periods: set[int] = set()

    def watch(site: Site) -> None:
        def look(now: float) -> None:
            periods.update(node.ota.minimum_block_period for node in site.mesh.nodes.values())
            site.mesh.call_at(now + 0.5, look)

        look(site.loop.time())

    download(nodes(2, habits), limited(0.04), image_bytes=2000, meanwhile=watch)
    if revision is None:
        assert periods == {0}
    elif revision == 2:
        assert periods <= {0, 1, 2}  # seconds: never a number of milliseconds
    else:
        assert any(100 <= period <= 5000 for period in periods)


def test_a_node_that_takes_the_short_form_alone_never_gets_a_period() -> None:
    habits = OtaHabits(wait_without_period_only=True)
    site = download(nodes(8, habits), replace(SETTINGS, pacing=PacingLimits(max_active_nodes=2)))
    assert all(node.counters.downloads_thrown_away == 0 for node in site.mesh.nodes.values())


def deaf_to_unicasts(site: Site, broadcasts: list[tuple[float, bytes]]) -> None:
    """Notifications by name do not reach the nodes; what is broadcast is kept."""
    mesh = site.mesh
    for node in mesh.nodes.values():
        receive = node.receive

        def filtered(frame: ApsFrame, now: float, receive: object = receive) -> None:
            notify = frame.cluster == CLUSTER_OTA and frame.payload[2] == 0x00 and frame.payload[0] & 1
            if notify and not frame.broadcast:
                return
            if notify and not any(at == now for at, _ in broadcasts):
                broadcasts.append((now, frame.payload))
            receive(frame, now)  # type: ignore[operator]  # the node's own method

        node.receive = filtered  # type: ignore[method-assign]  # a radio that loses exactly these


def test_nodes_that_no_notification_wakes_are_told_by_a_broadcast_with_jitter() -> None:
    broadcasts: list[tuple[float, bytes]] = []
    settings = replace(SETTINGS, broadcast_notify=1)
    site = download(nodes(16), settings, within_s=12 * 3600, meanwhile=lambda site: deaf_to_unicasts(site, broadcasts))
    assert broadcasts
    kind, jitter = broadcasts[0][1][3:5]
    assert kind == 3
    assert 1 <= jitter <= 100
    assert broadcasts[0][1][5:] == bytes.fromhex("4910 0100 00000200")
    assert all(node.counters.downloads_started_at_zero == 1 for node in site.mesh.nodes.values())
    facts = {event.fact for event in site.journal.events}
    assert Fact.STALLED in facts  # they were silent first


def test_fewer_silent_nodes_than_the_operator_says_get_no_broadcast() -> None:
    broadcasts: list[tuple[float, bytes]] = []
    with pytest.raises(TimeoutError):
        download(nodes(4), SETTINGS, within_s=4 * 3600, meanwhile=lambda site: deaf_to_unicasts(site, broadcasts))
    assert broadcasts == []


def test_a_route_record_tells_how_far_a_node_is() -> None:
    def far(site: Site) -> None:
        for device in site.radio._link.app.devices.values():  # as the radio library sets it
            device.relays = [0x1111, 0x2222]

    kind = [NodeSpec(EUI64, timing=SILENT)]
    near, told = download(kind, limited(0.2)), download(kind, limited(0.2), meanwhile=far)
    assert told.took_s > 2 * near.took_s
