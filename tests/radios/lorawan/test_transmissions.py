"""Which fragments were truly on the air: pairing of words and frames, and what a session makes of refusals."""

import pytest

from radios.lorawan.block_status import BlockStatus
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.gateway_bus import TX_UNKNOWN, FrameKey, Transmitted
from radios.lorawan.messages import Multicast
from radios.lorawan.transmissions import Transmissions, Verdict
from radios.simulated.chirpstack.air import TxStatus
from tests.radios.lorawan.world import GATEWAY, T0, Fact, World, all_running, new_image, spec

KEY = FrameKey(0x01020304, 7)
OTHER = "00800000a0000002"


def word(status, gateway=GATEWAY, key=KEY):
    return Transmitted(key, gateway, status)


def test_a_word_is_about_the_fragment_of_its_counter():
    frames = Transmissions()
    assert frames.given(KEY, 12, [GATEWAY]) == []
    assert frames.heard(word("OK")) == Verdict(12, "")
    assert frames.heard(word("OK")) is None
    assert (frames.sent, frames.refused) == (1, 0)


def test_a_gateway_may_speak_before_the_network_server_answered():
    frames = Transmissions()
    assert frames.heard(word("TOO_LATE")) is None
    assert frames.given(KEY, 12, [GATEWAY]) == [Verdict(12, "TOO_LATE")]


def test_one_gateway_that_sent_it_is_enough_and_all_have_to_refuse():
    frames = Transmissions()
    frames.given(KEY, 12, [GATEWAY, OTHER])
    assert frames.heard(word("TOO_LATE")) is None
    assert frames.heard(word("OK", OTHER)) == Verdict(12, "")
    frames.given(FrameKey(0x01020304, 8), None, [GATEWAY, OTHER])
    frames.heard(word("TOO_LATE", GATEWAY, FrameKey(0x01020304, 8)))
    last = word("COLLISION_PACKET", OTHER, FrameKey(0x01020304, 8))
    assert frames.heard(last) == Verdict(None, "COLLISION_PACKET")


def test_a_frame_sent_again_after_a_refusal_was_sent():
    frames = Transmissions()
    frames.given(KEY, 12, [GATEWAY])
    assert frames.heard(word("TOO_LATE")) == Verdict(12, "TOO_LATE")
    assert frames.heard(word("OK")) == Verdict(12, "")
    assert (frames.sent, frames.refused) == (1, 0)


def test_what_is_not_known_is_no_word():
    frames = Transmissions()
    frames.given(KEY, 12, [GATEWAY])
    assert frames.heard(word(TX_UNKNOWN)) is None
    assert frames.heard(word("OK", key=None)) is None


def test_memory_is_bounded():
    frames = Transmissions()
    for f_cnt in range(2000):
        frames.given(FrameKey(1, f_cnt), f_cnt, [GATEWAY])
        frames.heard(word("OK", key=FrameKey(2, f_cnt)))
    assert len(frames._frames) <= 256
    assert len(frames._early) <= 256


def test_refused_fragments_are_no_loss_of_a_link_but_are_missing():
    block = BlockStatus(nb_frag=100, unsent=[3, 4, 5, 6, 7, 8, 9, 10])
    clean = BlockStatus(nb_frag=100)
    block.take(received=92, missing_low=8, highest=100, still=True)
    clean.take(received=92, missing_low=8, highest=100, still=True)
    assert block.missing == clean.missing == 8
    assert (block.lost, block.tried) == (0, 92)
    assert block.need(100) < clean.need(100)


def test_a_refused_coded_fragment_is_still_needed():
    block = BlockStatus(nb_frag=100)
    block.take(received=90, missing_low=10, highest=100, still=True)
    before = block.need(108)
    block.unsent.append(104)
    assert block.need(108) == before + 1


def refuse(world, counters, status=TxStatus.TOO_LATE):
    """The gateway refuses the fragments with these counters."""
    gateway = world.network.air.gateways[GATEWAY]
    perform = world._multicast

    def multicast(action):
        if world.network.multicast.list_queue(action.group_id):
            perform(action)  # the one before is still to be sent
            return
        gateway.refuse_next.clear()
        if action.n in counters:
            gateway.refuse_next.append(status)
        perform(action)

    world._multicast = multicast


def test_refused_fragments_are_made_up_by_new_coded_ones_and_never_repeated():
    s = spec(1)
    world = World([s], new_image(), bus=True)
    refuse(world, {5, 6, 20, world.cohort.nb_frag + 1})
    world.run(all_running)
    assert world.node(s).version == 2
    assert world.facts(s).count(Fact.RUNNING) == 1
    sent = world.fragments()
    assert len(sent) == len(set(sent))
    assert max(sent) >= world.cohort.nb_frag + 4
    assert {v.n for v in world.verdicts if not v.sent} == {5, 6, 20, world.cohort.nb_frag + 1}


def test_refusals_are_not_taken_for_the_loss_of_the_node():
    s = spec(1)
    counts = []
    for bus in (True, False):
        world = World([s], new_image(20_000), bus=bus)
        refuse(world, set(range(10, 30)))
        world.run(all_running)
        assert world.node(s).version == 2
        counts.append(len(world.fragments()))
    assert counts[0] <= counts[1]
    assert counts[0] <= world.cohort.nb_frag + 20 + 5


def test_a_refused_poll_is_sent_again_without_waiting_for_answers():
    s = spec(1)
    world = World([s], new_image(), bus=True)
    gateway = world.network.air.gateways[GATEWAY]
    perform, polls = world._multicast, []

    def multicast(action):
        gateway.refuse_next.clear()
        if action.n is None:
            if not polls:
                gateway.refuse_next.append(TxStatus.COLLISION_PACKET)
            polls.append(world.now)
        perform(action)

    world._multicast = multicast
    world.run(lambda w: len(polls) > 1)
    assert polls[1] - polls[0] < 10.0
    world.run(all_running)


def test_a_gateway_that_sends_nothing_is_told_and_wastes_few_counters():
    s = spec(1)
    world = World([s], new_image(), bus=True)
    refuse(world, set(range(1, 10_000)), TxStatus.TX_FREQ)
    world.run(lambda w: any(e.fact is Fact.STALLED and e.code == "gateway" for e in w.events))
    begun = world.now
    world.run(lambda w: w.now > begun + 3600)
    assert len(world.fragments()) < 20


def test_a_full_duty_cycle_makes_the_next_fragment_wait():
    s = spec(1)
    world = World([s], new_image(), bus=True)
    refuse(world, {5}, TxStatus.DUTY_CYCLE_OVERFLOW)
    times = {}
    perform = world._multicast

    def multicast(action):
        times.setdefault(action.n, world.now)
        perform(action)

    world._multicast = multicast
    world.run(all_running)
    assert times[6] - times[5] >= 60.0
    assert times[8] - times[7] < 20.0


@pytest.mark.parametrize("seed", range(3))
def test_lost_acknowledgements_stall_nothing(seed):
    specs = [spec(1, downlink_loss=0.1), spec(2)]
    world = World(specs, new_image(), bus=True, ack_loss=0.4, seed=seed)
    for gateway in world.network.air.gateways.values():
        gateway.refused_share = 0.1
    world.run(all_running, limit_s=86400.0)
    assert all(world.node(s).version == 2 for s in specs)
    assert world.network.multicast.sent_again > 0


def test_refusals_survive_a_restart():
    s = spec(1)
    world = World([s], new_image(), bus=True)
    refuse(world, {5, 6, 7})
    world.run(lambda w: any(isinstance(a, Multicast) and a.n == 20 for a in w.log))
    world.restart()
    assert set(world.cohort.unsent) == {5, 6, 7}
    assert all(node.block.unsent is world.cohort.unsent for node in world.session.nodes.values())
    world.run(all_running)
    assert world.node(s).version == 2
    assert world.now > T0


def served(seed, *, refused_share, link_loss=0.0):
    """Three nodes at each of two gateways, of which the second refuses a share: coded and plain fragments sent, and those that
    whoever knew what each node received would have sent."""
    specs = [spec(n, gateways=(GATEWAY,), seed=10 * seed + n) for n in (1, 2, 3)]
    specs += [spec(n, gateways=(OTHER,), seed=10 * seed + n, downlink_loss=link_loss) for n in (4, 5, 6)]
    settings = SessionSettings(gather_s=3600.0)
    world = World(specs, new_image(20_000), bus=True, gateways=(GATEWAY, OTHER), seed=seed, settings=settings)
    world.network.air.gateways[OTHER].refused_share = refused_share
    complete_at = {}

    def all_are(w):
        for s in specs:
            held = w.node(s).fragmentation.session
            if s.dev_eui not in complete_at and held is not None and held.decoder.complete:
                complete_at[s.dev_eui] = max(w.fragments())
        return all_running(w)

    world.run(all_are)
    assert {world.node(s).running_image for s in specs} == {world.image}
    sent = world.fragments()
    assert len(sent) == len(set(sent))
    assert not [v for v in world.verdicts if not v.sent]  # the first gateway has sent them all
    return len(sent), max(complete_at.values())


def test_what_one_of_two_gateways_refuses_is_made_up_as_the_loss_of_its_nodes_is():
    """They complete with hardly more air than by an oracle, and with as much as if their links lost that share."""
    refused = [served(seed, refused_share=0.3) for seed in range(4)]
    lost = [served(seed, refused_share=0.0, link_loss=0.3) for seed in range(4)]
    assert sum(sent for sent, _ in refused) <= 1.05 * sum(needed for _, needed in refused)
    assert sum(sent for sent, _ in refused) <= 1.05 * sum(sent for sent, _ in lost)
