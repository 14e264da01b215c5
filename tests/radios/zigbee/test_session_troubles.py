"""What seldom happens to a session: clocks that were set, nodes that are told late, reboots at the wrong moment."""

from radios.wall_time import WallTime
from radios.zigbee.session_state import Terms
from tests.radios.zigbee.test_ota_session import NO_IMAGE, OFFER, QUERY, Bench


def test_whether_a_query_comes_too_late_is_the_walls_matter() -> None:
    bench = Bench()
    bench.session.wall = WallTime(-50 * 365 * 86400.0)  # the gateway began with a clock far ahead, which was set then
    bench.session.terms = Terms(expires_at=bench.session.wall.unix(bench.now) + 60)
    assert bench.ask(QUERY) == [OFFER]
    bench.now += 61
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.stalls[-1] == "expired"
