"""What seldom happens to a session: clocks that were set, nodes that are told late, reboots at the wrong moment."""

import pytest

from radios.radio import Fact, NodeDirective, Want
from radios.wall_time import WallTime
from radios.zigbee.ota_commands import ImageBlock, ImageNotify
from radios.zigbee.ota_frames import decode_command, decode_header
from radios.zigbee.reconcile import ClientAttributes, UpgradeStatus
from radios.zigbee.session_state import Stage, Terms
from tests.radios.zigbee.test_ota_session import (
    DATA,
    END,
    FILE,
    INSTALL_LATER,
    INSTALL_NOW,
    LIMITS,
    NEW,
    NO_IMAGE,
    NODE,
    OFFER,
    OLD,
    QUERY,
    QUERY_NEW,
    Bench,
    block,
    state,
)


def test_whether_a_query_comes_too_late_is_the_walls_matter() -> None:
    bench = Bench()
    bench.session.wall = WallTime(-50 * 365 * 86400.0)  # the gateway began with a clock far ahead, which was set then
    bench.session.terms = Terms(expires_at=bench.session.wall.unix(bench.now) + 60)
    assert bench.ask(QUERY) == [OFFER]
    bench.now += 61
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.stalls[-1] == "expired"


def untold(*, sleeps: bool = True) -> Bench:
    """A node that holds the image and is ordered to start it, which it does not acknowledge."""
    bench = Bench()
    bench.session.sleeps = sleeps
    bench.to_ready()
    bench.session.direct(NodeDirective("t1", NODE, 2, Want.INSTALL), bench.now)
    fail(bench)
    return bench


def fail(bench: Bench) -> None:
    """What is to be sent now does not arrive."""
    for outgoing in bench.frames():
        bench.session.delivered(outgoing, False, bench.now)


def asleep(bench: Bench, seconds: float) -> None:
    """Nothing arrives for so long."""
    end = bench.now + seconds
    while (deadline := bench.session.next_deadline()) is not None and deadline <= end:
        bench.now = max(bench.now, deadline)
        bench.session.handle_timeout(bench.now)
        fail(bench)
    bench.now = end


def told(bench: Bench) -> bool:
    """It is heard, and what is sent to it then arrives. Whether it was told to start its image."""
    bench.session.heard(bench.now)
    bench.session.handle_timeout(bench.now)
    frames = bench.frames()
    for outgoing in frames:
        bench.session.delivered(outgoing, True, bench.now)
    return INSTALL_NOW in [decode_command(*decode_header(outgoing.frame)) for outgoing in frames]


def test_a_sleepy_node_that_could_not_be_told_yet_is_not_lost() -> None:
    bench = untold()
    asleep(bench, LIMITS.untold_s - LIMITS.lost_after_s)
    assert Fact.FAILED not in bench.facts
    assert bench.stalls[-1] == "silent"
    assert told(bench)
    bench.wait(LIMITS.lost_after_s - 10)
    assert Fact.FAILED not in bench.facts
    bench.ask(QUERY_NEW)
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, NEW)


def test_a_sleepy_node_that_is_never_heard_is_lost_in_the_end() -> None:
    bench = untold()
    asleep(bench, LIMITS.untold_s + LIMITS.lost_after_s)
    assert bench.facts[-1] is Fact.FAILED


def test_a_node_that_was_told_late_has_its_time_from_then_on() -> None:
    bench = untold()
    asleep(bench, LIMITS.lost_after_s - 10)
    assert told(bench)
    bench.wait(LIMITS.lost_after_s - 1)
    assert Fact.FAILED not in bench.facts
    bench.wait(2)
    assert bench.facts[-1] is Fact.FAILED
    assert bench.session.state().code == "lost"


def test_a_listening_node_that_nothing_reaches_is_lost() -> None:
    bench = untold(sleeps=False)
    asleep(bench, LIMITS.lost_after_s + 1)
    assert bench.facts[-1] is Fact.FAILED


def test_a_node_that_asks_again_and_again_does_not_put_its_loss_off() -> None:
    bench = untold()
    assert told(bench)
    bench.wait(LIMITS.lost_after_s - 10)
    assert INSTALL_NOW in bench.ask(END)
    bench.wait(11)
    assert bench.facts[-1] is Fact.FAILED


def test_a_node_that_rebooted_is_asked_before_it_is_told_again() -> None:
    """The frame counts as not delivered, but its acknowledgement alone was lost: it has started the image and taken it
    back, and holds it still."""
    bench = untold(sleeps=False)
    bench.now += 30
    bench.session.rebooted(bench.now)
    bench.session.heard(bench.now)  # its announcement is a frame too
    assert bench.wait(3) == [ImageNotify(100)]
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, OLD)
    assert INSTALL_NOW not in bench.wait(LIMITS.lost_after_s)


def test_a_node_that_rebooted_and_says_nothing_is_told_again() -> None:
    bench = untold(sleeps=False)
    bench.now += 30
    bench.session.rebooted(bench.now)
    bench.session.heard(bench.now)
    assert bench.wait(LIMITS.install_retry_s) == [ImageNotify(100), INSTALL_NOW]


def test_a_node_that_asks_to_start_after_a_reboot_may_say_the_old_version_again() -> None:
    """It holds the image still: it has not started it, so what it says while it verifies is no rollback."""
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.session.rebooted(bench.now)
    assert bench.ask(END) == [INSTALL_NOW]
    bench.now += 1
    bench.ask(QUERY)
    assert bench.facts[-1] is Fact.INSTALLING
    bench.session.rebooted(bench.now)
    bench.ask(QUERY)
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, OLD)


def test_a_sleepy_node_whose_download_stopped_is_offered_it_again_when_it_is_heard() -> None:
    """It has lost its part and does not say so. A notification by the clock finds it asleep."""
    bench = Bench()
    bench.ask(block(100))
    asleep(bench, LIMITS.stall_after_s + LIMITS.renotify_stalled_after_s + 3600)
    bench.session.heard(bench.now)
    assert bench.wait(0.1) == [ImageNotify(100)]
    bench.now += 1
    bench.session.heard(bench.now)
    assert bench.wait(0.1) == [], "it has some time to answer"
    assert bench.ask(QUERY) == [OFFER]
    assert bench.wait(60) == [], "it begins now, and hears of nothing else"


def test_a_download_that_stopped_is_not_offered_before_the_client_has_given_up() -> None:
    bench = Bench()
    bench.ask(block(100))
    bench.wait(LIMITS.stall_after_s + 1)
    bench.now += 60
    bench.session.heard(bench.now)
    assert bench.wait(10) == []


def test_an_order_that_is_prolonged_offers_the_image_again() -> None:
    bench = Bench()
    bench.session.reterm(Terms(expires_at=bench.now), bench.now)
    assert bench.wait(3600) == []
    assert bench.stalls == ["expired"]
    bench.session.reterm(Terms(expires_at=bench.now + 3600), bench.now)
    assert bench.wait(1) == [ImageNotify(100)]


def test_terms_that_say_the_same_tell_a_node_nothing() -> None:
    bench = Bench()
    bench.wait(1)
    for _ in range(10):
        bench.session.reterm(Terms(priority=1, expires_at=bench.now + 3600), bench.now)
        assert bench.sent() == []
    bench.ask(block(0))
    bench.session.reterm(Terms(expires_at=bench.now + 7200), bench.now)
    assert bench.wait(30) == []


def test_progress_falls_when_a_reboot_took_some_of_it() -> None:
    """The client goes on where its flash ends, and asks for nothing before."""
    bench = Bench()
    bench.ask(block(800))
    assert bench.session.confirmed == 800
    bench.session.rebooted(bench.now)
    bench.ask(block(250))
    assert bench.session.confirmed == 250
    assert bench.facts[-1] is Fact.PROGRESS
    bench.ask(block(300))
    bench.ask(block(250))
    assert bench.session.confirmed == 300, "a frame that comes twice takes nothing away"


def test_a_node_that_held_the_image_and_asks_for_blocks_later_holds_it_no_more() -> None:
    """It rebooted and goes on where its flash ends, as clients do without a query: no order to start means anything to it."""
    bench = Bench()
    bench.to_ready()
    bench.now += 3
    bench.ask(block(len(DATA) - 50))
    assert bench.session.stage is Stage.READY, "a frame that comes late"
    bench.session.rebooted(bench.now)
    assert bench.ask(block(500)) == [ImageBlock(FILE, 500, DATA[500:550])]
    assert (bench.session.stage, bench.session.confirmed) == (Stage.DOWNLOADING, 500)
    assert INSTALL_NOW not in bench.direct(Want.INSTALL)
    bench.ask(block(len(DATA) - 50))
    assert bench.ask(END) == [INSTALL_NOW]


def test_a_node_that_takes_its_image_back_and_keeps_it_is_not_sent_round_and_round() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.now += 60
    bench.session.rebooted(bench.now)
    assert bench.ask(END) == [INSTALL_NOW], "it may have rebooted for reasons of its own"
    bench.now += 60
    bench.session.rebooted(bench.now)
    assert bench.ask(END) == [INSTALL_LATER]
    assert bench.wait(2) == [ImageNotify(100)]
    bench.session.version_read(OLD, bench.now)
    bench.sent()
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, OLD)


@pytest.mark.parametrize("status", [UpgradeStatus.WAITING, UpgradeStatus.COMPLETE])
def test_nor_when_its_attributes_say_that_it_holds_it(status: UpgradeStatus) -> None:
    said = ClientAttributes(len(DATA), OLD, NEW, status, FILE.manufacturer, FILE.image_type)
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    for facts in ([Fact.INSTALLING], [Fact.RUNNING]):
        bench.now += 60
        bench.session.rebooted(bench.now)
        bench.session.client_described(said, bench.now, bench.now)
        assert (INSTALL_NOW in bench.sent()) == (facts == [Fact.INSTALLING])
        assert bench.facts[-1:] == facts
    assert bench.last_version == OLD


def test_a_sleepy_node_that_reboots_before_it_could_be_told_has_taken_nothing_back() -> None:
    """Somebody changed its battery. It had slept through every frame."""
    bench = untold()
    asleep(bench, 600)
    bench.session.rebooted(bench.now)
    bench.ask(QUERY)
    assert bench.facts[-1] is Fact.INSTALLING
    assert told(bench)
    bench.now += 60
    bench.session.rebooted(bench.now)
    bench.ask(QUERY)
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, OLD)


def test_a_sleepy_node_whose_announcement_was_lost_is_asked_when_it_is_heard() -> None:
    bench = untold()
    assert told(bench)
    asleep(bench, LIMITS.verify_s + LIMITS.probe_installing_after_s)  # it runs its image for long, and sends a report
    bench.session.heard(bench.now)
    assert bench.wait(0.1) == [ImageNotify(100)]
    bench.now += 1
    bench.session.heard(bench.now)
    assert bench.wait(0.1) == [], "it has some time to answer"
    bench.ask(QUERY_NEW)
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, NEW)


def test_a_node_that_was_told_a_moment_ago_is_not_asked_for_every_frame_it_sends() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    for _ in range(20):
        bench.now += 1
        bench.session.heard(bench.now)
        assert bench.wait(0.1) == []


def test_a_node_that_cannot_be_told_a_thousand_times_is_told_at_last() -> None:
    """It is heard all the time, and nothing reaches it."""
    bench = untold()
    for _ in range(1100):
        bench.now += 9
        bench.session.heard(bench.now)
        bench.session.handle_timeout(bench.now)
        fail(bench)
    bench.now += 15
    assert told(bench)
