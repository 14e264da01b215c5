"""Whatever is ordered and whatever befalls the node, at any moment: no step is taken that is none, and nobody is rebooted in vain."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from radios.radio import Fact, NodeDirective, NodeId, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.drawing import few
from tests.radios.lorawan.world import World, new_image, spec

BEFALL = st.one_of(
    st.sampled_from(["restart", "power", "queue", "starts", "starts, and takes it back", "deaf", "heard"]),
    st.tuples(st.sampled_from(list(Want)), st.sampled_from([None, 0.0, 100.0, 4000.0])),
)
WHEN = st.sampled_from([0.0, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0])


class Fate:
    """What befalls one node, and what of it no order can be blamed for."""

    def __init__(self, world, node):
        self.world, self.node, self.generation, self.by_itself, self.excused = world, node, 1, 0, 0

    def order(self, want, in_s=None):
        self.generation += 1
        self.excused += want is Want.DROP  # the image may go while it counts down to its reboot
        at = None if in_s is None else datetime.fromtimestamp(self.world.now + in_s, UTC)
        node_id = NodeId(f"lorawan:{self.node.dev_eui}")
        self.world.session.direct(NodeDirective("t1", node_id, self.generation, want, at), self.world.now)

    def befall(self, what):
        world, virtual = self.world, self.world.node(self.node)
        match what:
            case "restart":
                world.restart()
            case "power":
                virtual.power_cycle(world.now)
            case "queue":
                world.network.devices[self.node.dev_eui].queue.clear()
            case "starts" | "starts, and takes it back":
                if virtual.bootloader.swap():
                    self.by_itself += 1
                    self.excused += 1  # a command may have been on its way
                    if what != "starts":
                        virtual.bootloader.roll_back()
                    virtual.power_cycle(world.now)
            case "deaf":
                world.silent.add(self.node.dev_eui)
            case "heard":
                world.silent.clear()
            case (want, in_s):
                self.order(want, in_s)


@few(60)
@given(
    st.lists(st.tuples(WHEN, BEFALL), max_size=8),
    st.sampled_from(["A", "C"]),
    st.sampled_from([1, 2]),
    st.sampled_from(list(StatusStyle)),
    st.sampled_from([0.0, 0.0, 0.2]),
    st.booleans(),
    st.integers(0, 1 << 20),
)
def test_every_order_ends_as_it_should(troubles, device_class, version, style, loss, fails, seed):
    node = spec(
        1,
        device_class=device_class,
        uplink_interval_s=60.0,
        status_style=style,
        package_versions={2: version, 3: version},
        downlink_loss=loss,
        uplink_loss=loss,
        self_test_fails=fails,
        seed=seed,
    )
    world = World([node], new_image(1500), frag_version=version, seed=seed)
    fate = Fate(world, node)
    virtual = world.node(node)
    for after_s, what in troubles:
        until = world.now + after_s
        world.run(lambda w, until=until: w.now >= until or node.dev_eui not in w.session.nodes)
        if node.dev_eui not in world.session.nodes:
            break
        fate.befall(what)
    world.silent.clear()
    if node.dev_eui in world.session.nodes:
        fate.order(Want.INSTALL)
    world.run(lambda w: ended(w, node))
    assert world.violations == []
    assert virtual.counters.reboots <= virtual.bootloader.swaps - fate.by_itself + fate.excused
    told = [e for e in world.events if e.fact is Fact.RUNNING]
    if told and node.dev_eui in world.session.nodes:
        since = world.now
        world.run(lambda w: w.now > since + 2 * 86_400.0)
        assert [e for e in world.events if e.fact is Fact.RUNNING][-1].version == virtual.version


def ended(world, node):
    facts = world.facts(node)
    return node.dev_eui not in world.session.nodes or bool(facts and facts[-1] in (Fact.RUNNING, Fact.FAILED))
