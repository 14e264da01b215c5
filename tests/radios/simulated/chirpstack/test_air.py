import pytest

from radios.simulated.chirpstack.air import Gateway, TxStatus

FREQUENCY_HZ = 869_525_000


def test_one_transmission_at_a_time_the_next_waits():
    gateway = Gateway("g")
    assert gateway.request(2.0, FREQUENCY_HZ, 100.0, None) == (TxStatus.OK, 100.0)
    assert gateway.request(1.0, FREQUENCY_HZ, 100.5, None) == (TxStatus.OK, 102.0)
    assert gateway.sends_during(102.9, 103.5)
    assert not gateway.sends_during(103.0, 104.0)


def test_a_timed_transmission_into_another_one_is_refused():
    gateway = Gateway("g")
    gateway.request(2.0, FREQUENCY_HZ, 100.0, None)
    assert gateway.request(1.0, FREQUENCY_HZ, 100.5, 101.5)[0] is TxStatus.COLLISION_PACKET
    assert gateway.request(1.0, FREQUENCY_HZ, 100.5, 102.5) == (TxStatus.OK, 102.5)


def test_the_duty_cycle_holds_over_a_sliding_hour():
    gateway = Gateway("g")
    assert gateway.request(350.0, FREQUENCY_HZ, 0.0, None)[0] is TxStatus.OK
    assert gateway.request(11.0, FREQUENCY_HZ, 1000.0, None)[0] is TxStatus.DUTY_CYCLE_OVERFLOW
    assert gateway.request(9.0, FREQUENCY_HZ, 1000.0, None)[0] is TxStatus.OK
    assert gateway.request(1.5, FREQUENCY_HZ, 3600.0, None)[0] is TxStatus.DUTY_CYCLE_OVERFLOW
    assert gateway.request(36.1, 868_100_000, 3600.0, None)[0] is TxStatus.DUTY_CYCLE_OVERFLOW
    assert gateway.request(35.9, 868_100_000, 3600.0, None)[0] is TxStatus.OK
    assert gateway.request(300.0, FREQUENCY_HZ, 3960.0, None)[0] is TxStatus.OK
    assert gateway.airtime_s == pytest.approx(694.9)


def test_the_queue_has_an_end():
    gateway = Gateway("g", enforce_duty_cycle=False)
    statuses = [gateway.request(1.0, FREQUENCY_HZ, 0.0, None)[0] for _ in range(40)]
    assert TxStatus.QUEUE_FULL in statuses
    assert 32 <= statuses.index(TxStatus.QUEUE_FULL) <= 34


def test_uplinks_are_lost_while_the_gateway_sends(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=10.0))
    network.server.air.gateways["00800000a0000001"].request(10_000.0, FREQUENCY_HZ, 0.0, None)
    deaf = make_network(spec(1, uplink_interval_s=10.0), enforce_duty_cycle=False)
    gateway = deaf.server.air.gateways["00800000a0000001"]
    gateway.request(600.0, FREQUENCY_HZ, deaf.server.agenda.now, None)
    deaf.run(600)
    assert deaf.server.air.counters["0000000000000001"].uplinks_sent > 40
    assert not deaf.of("up")
    deaf.run(100)
    assert len(deaf.of("up")) >= 8


def test_loss_is_as_configured_and_the_same_in_every_run(make_network, spec):
    def run():
        network = make_network(spec(1, uplink_loss=0.3, uplink_interval_s=10.0))
        network.run(20_000)
        counters = network.server.air.counters["0000000000000001"]
        return counters.uplinks_sent, counters.uplinks_lost

    sent, lost = run()
    assert 0.25 < lost / sent < 0.35
    assert run() == (sent, lost)
