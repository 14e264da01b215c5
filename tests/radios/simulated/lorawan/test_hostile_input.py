"""Whatever arrives, a virtual node answers or drops it, and its timers stay sane."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radios.simulated.lorawan.phy import Downlink

PORTS = st.sampled_from([0, 2, 200, 201, 202, 203, 225])
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.mark.parametrize("version", [1, 2])
@QUIET
@given(commands=st.lists(st.tuples(PORTS, st.binary(max_size=60), st.booleans()), max_size=8))
def test_any_payload_on_any_port(make_bench, version, commands):
    bench = make_bench(package_versions=dict.fromkeys(range(1, 5), version))
    bench.join_group()
    bench.open_window(in_s=35, time_out=15)
    bench.run(5)
    for port, payload, multicast in commands:
        (bench.multicast if multicast else bench.unicast)(port, payload)
        bench.run(5)
    bench.run(200)
    assert bench.node.next_deadline() >= bench.now or not bench.node.joined


@QUIET
@given(phy=st.binary(max_size=80))
def test_any_frame(make_bench, phy):
    bench = make_bench()
    bench.node.receive_downlink(Downlink(phy, 869_525_000, 0), bench.now)
    assert bench.node.counters.unicast_received == 0


@QUIET
@given(body=st.binary(min_size=10, max_size=10), data=st.binary(max_size=40), counters=st.lists(st.integers(0, 0xFFFF)))
def test_any_session_and_fragments(make_bench, body, data, counters):
    bench = make_bench()
    bench.unicast(201, b"\x02" + body)
    for counter in counters:
        bench.unicast(201, b"\x08" + counter.to_bytes(2, "little") + data)
    bench.unicast(201, b"\x01\x01")
    bench.run(60)
    assert bench.node.version == 1
