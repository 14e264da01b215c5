"""The roster of a session, held to one made afresh, and a session with it to one that looks at all its nodes at every event."""

import random
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from radios.errors import ImageError
from radios.lorawan.cohort import BlockSource, SessionSettings
from radios.lorawan.greatest import Greatest
from radios.lorawan.limits import sound
from radios.lorawan.messages import Feed, Multicast, Unicast
from radios.lorawan.roster import Roster
from radios.lorawan.session_node import Step
from radios.lorawan.traits import Trait
from radios.radio import Fact, NodeDirective, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.drawing import few
from tests.radios.lorawan.world import T0, World, all_running, new_image, spec

DAY_S = 86400.0
EVERY_MARK = [*Step, *Trait]


def roster_of(session):
    return session._out.roster


def seen(roster):
    """All that can be asked of a roster."""
    marks = {mark: [node.dev_eui for node in roster.of(mark)] for mark in EVERY_MARK}
    slowest = {mark: roster.slowest_s(mark) for mark in (Trait.NEEDS_DATA, Step.WINDOW)}
    return marks, {mark: roster.count(mark) for mark in EVERY_MARK}, slowest


class CheckedWorld(World):
    """The directives are given at their times; after every step the roster is compared with one made afresh.

    `refused`: share of actions that the network server does not take; `unreadable`: from when to when the image is.
    """

    checks = True

    def __init__(self, *arguments, directives=(), refused=0.0, unreadable=(0.0, 0.0), **named):
        self.trace = []
        self.refused = refused
        self.unreadable = unreadable
        self.dice = random.Random(named["seed"])
        self.directives = sorted(directives)
        super().__init__(*arguments, **named)

    def _step(self):
        while self.directives and self.now >= T0 + self.directives[0][0]:
            _, number, want, install_after_s = self.directives.pop(0)
            self.direct(number, want, install_after_s)
        try:
            super()._step()
        except ImageError:
            self.now += 60.0
            self._advance()
        if self.checks:
            roster = roster_of(self.session)
            assert seen(roster) == seen(Roster(roster.nodes.values()))

    def direct(self, number, want, install_after_s):
        dev_eui = list(self.specs)[number % len(self.specs)]
        node = self.session.nodes.get(dev_eui)
        if node is not None:
            install_at = datetime.fromtimestamp(self.now + install_after_s, UTC) if install_after_s else None
            name = self.directive(self.specs[dev_eui]).node
            self.session.direct(NodeDirective("t1", name, node.generation + 1, want, install_at), self.now)

    def _perform(self, action):
        self.trace.append((self.now, action))
        if not isinstance(action, Unicast | Multicast | Feed) or self.dice.random() >= self.refused:
            super()._perform(action)
            return
        kind = self.dice.randrange(3)
        match action:
            case Unicast():
                {0: self.session.unicast_refused, 1: self._oversize, 2: self._waits}[kind](action.dev_eui, self.now)
            case Feed():
                self.session.fed(action.dev_eui, 0, self.now)
            case Multicast() if kind == 0:
                self.session.group_lost(self.now)
            case Multicast():
                self.session.multicast_refused(self.now)

    def _oversize(self, dev_eui, now):
        self.session.unicast_oversize(dev_eui, "too long", now)

    def _waits(self, dev_eui, _now):
        self.session.unicast_waits(dev_eui)

    def _source(self, cohort):
        block = super()._source(cohort)

        def read(offset, length):
            self._look_at_the_disk()
            return block.read(offset, length)

        def fragment(n):
            self._look_at_the_disk()
            return block.fragment(n)

        return BlockSource(read, fragment, block.size)

    def _look_at_the_disk(self):
        if self.unreadable[0] <= self.now - T0 < self.unreadable[1]:
            raise ImageError("the disk is gone")


class WorldThatLooksAtAll(CheckedWorld):
    checks = False

    def _step(self):
        roster = roster_of(self.session)
        for node in roster.nodes.values():
            roster.touch(node)
        super()._step()


WANTS = st.sampled_from([Want.HOLD, Want.HOLD, Want.DELIVER, Want.INSTALL, Want.INSTALL, Want.DROP])
DIRECTIVES = st.lists(
    st.tuples(st.floats(0.0, 6000.0), st.integers(0, 6), WANTS, st.sampled_from([0.0, 0.0, 3000.0])), max_size=6
)


@st.composite
def worlds(draw):
    """Arguments of a `World`, and the numbers of actions after which it crashes."""
    version = draw(st.sampled_from([1, 2]))
    classes = draw(st.sampled_from(["A", "C", "AC"]))
    specs = [
        spec(
            number,
            seed=draw(st.integers(0, 1 << 30)),
            status_style=draw(st.sampled_from(list(StatusStyle))),
            device_class=draw(st.sampled_from(classes)),
            downlink_loss=draw(st.sampled_from([0.0, 0.1, 0.4])),
            uplink_loss=draw(st.sampled_from([0.0, 0.1, 0.4])),
            clock_error_s=draw(st.sampled_from([0.0, 0.0, -400.0])),
            redundancy_limit=draw(st.sampled_from([5, 100])),
            uplink_interval_s=draw(st.sampled_from([60.0, 300.0])),
            package_versions={3: version, 2: 1},
        )
        for number in range(1, 1 + draw(st.integers(1, 6)))
    ]
    named = {
        "frag_version": version,
        "seed": draw(st.integers(0, 1 << 30)),
        "unicast": draw(st.booleans()),
        "limit": draw(st.sampled_from([None, 3, 100])),
        "bus": draw(st.booleans()),
        "settings": SessionSettings(unicast_gap_s=draw(st.sampled_from([1.0, 4.0]))),
        "directives": draw(DIRECTIVES),
        "refused": draw(st.sampled_from([0.0, 0.05, 0.2])),
        "unreadable": draw(st.sampled_from([(0.0, 0.0), (0.0, 200.0), (300.0, 900.0), (900.0, 2000.0)])),
        "refused_share": draw(st.sampled_from([0.0, 0.1])),
    }
    return specs, named, draw(st.sets(st.integers(1, 150), max_size=2)), draw(st.sampled_from([None, 900.0]))


def trace_of(world_class, specs, named, crashes, expires_after_s):
    world = world_class(specs, new_image(2500), **named)
    world.crash_at = set(crashes)
    if expires_after_s is not None:
        world.session.expires = T0 + expires_after_s
    world.run(lambda w: w.now > T0 + DAY_S / 2 or w.session.finished or (all_running(w) and not w.directives))
    return world.trace


@few(8)
@given(worlds())
def test_the_roster_is_what_a_look_at_all_nodes_finds_and_nothing_is_done_otherwise(drawn):
    assert trace_of(CheckedWorld, *drawn) == trace_of(WorldThatLooksAtAll, *drawn)


def gathering(count, **named):
    """A world whose class A nodes are all set up but the last, which is never heard."""
    specs = [spec(n, device_class="A", uplink_interval_s=60.0) for n in range(1, count + 1)]
    world = World(specs, new_image(2000), settings=SessionSettings(gather_s=3 * DAY_S), **named)
    world.silent.add(specs[-1].dev_eui)
    return world, specs


def test_held_nodes_do_not_delay_the_departure():
    """Three of four are set up, the fourth is held: nobody is left to be waited for, and it comes later."""
    world, specs = gathering(4)
    world.session.direct(world.directive(specs[-1], Want.HOLD, 2), T0)
    world.run(lambda w: w.session.cohort.closed, limit_s=3600.0)
    assert world.now < T0 + 600.0
    world.run(lambda w: bool(w.released), limit_s=1.0)
    assert [(r.dev_eui, r.reason) for r in world.released] == [(specs[-1].dev_eui, "late")]


def test_a_quarter_of_the_active_nodes_may_be_unready_when_the_others_are_invited():
    """Of eight nodes four are held and one of the others is not set up: that is a quarter of those that count."""
    world, specs = gathering(8)
    for held in specs[3:7]:
        world.session.direct(world.directive(held, Want.HOLD, 2), T0)
    world.run(lambda w: bool(w.session.cohort.window_start), limit_s=3600.0)
    assert not world.session.cohort.closed

    world, specs = gathering(8)
    for held in specs[2:7]:
        world.session.direct(world.directive(held, Want.HOLD, 2), T0)
    world.run(lambda w: w.now > T0 + 1200.0)
    assert not world.session.cohort.window_start  # a third


def test_windows_agreed_while_gathering_outlive_a_restart():
    world, _ = gathering(5)
    world.run(lambda w: roster_of(w.session).count(Step.RECEIVING) == 4, limit_s=3600.0)
    start = world.session.cohort.window_start
    world.restart()
    for _ in range(50):
        world._step()
    assert world.session.cohort.window_start == start
    assert roster_of(world.session).count(Step.RECEIVING) == 4


def test_an_image_that_cannot_be_read_loses_no_request():
    """Version 2 signs the block for each node: the first node's request fails, and both go out once it can be read."""
    specs = [spec(n, device_class="C", package_versions={3: 2, 2: 1}) for n in (1, 2)]
    world = World(specs, new_image(2000), frag_version=2, settings=SessionSettings(unicast_gap_s=0.0))
    for node in world.session.nodes.values():
        world.session._out.move(node, Step.BLOCK)
    image, world.image = world.image, _Unreadable()
    for _ in range(2):
        try:
            world.session.to_send(world.now)
        except ImageError:
            continue
        raise AssertionError("the image was read")
    world.image = image
    asked = [action for action in world.session.to_send(world.now) if isinstance(action, Unicast)]
    assert [(a.dev_eui, a.name) for a in asked] == [(s.dev_eui, "FragSessionSetupReq") for s in specs]


def test_what_was_asked_before_the_image_failed_goes_out_with_the_next_batch():
    specs = [spec(n, device_class="C", package_versions={3: 2, 2: 1}) for n in (1, 2)]
    world = World(specs, new_image(2000), frag_version=2, settings=SessionSettings(unicast_gap_s=0.0))
    world.session._out.move(world.session.nodes[specs[1].dev_eui], Step.BLOCK)
    image, world.image = world.image, _Unreadable()
    try:
        world.session.to_send(world.now)
    except ImageError:
        world.image = image
    asked = [action for action in world.session.to_send(world.now) if isinstance(action, Unicast)]
    assert [(a.dev_eui, a.name) for a in asked] == [
        (specs[0].dev_eui, "McGroupSetupReq"),
        (specs[1].dev_eui, "FragSessionSetupReq"),
    ]


class _Unreadable:
    def __getitem__(self, _where):
        raise ImageError("the disk is gone")


def test_nodes_that_wait_for_a_start_are_asked_once_there_is_one():
    """As after a restore: the cohort is closed, its group is another one, and it has no start yet."""
    world, specs = gathering(1)
    node = world.session.nodes[specs[0].dev_eui]
    world.session.cohort.closed = world.session.cohort.data_started = True
    for step in (Step.BLOCK, Step.SET_UP, Step.WINDOW):
        world.session._out.move(node, step)
    world.session.cohort.window_end = T0 + 3600.0
    assert not [a for a in world.session.to_send(T0) if isinstance(a, Unicast)]
    world.session._windows._plan_window(T0 + 300.0, 600.0)
    assert [a.name for a in world.session.to_send(T0 + 1.0) if isinstance(a, Unicast)] == ["McClassCSessionReq"]


def test_nodes_that_wait_for_their_turn_are_said_to_be_late_at_once_when_the_order_expires():
    """Eight silent class C nodes, of which one may be asked every 20 s, so that some of those that are due wait in line."""
    specs = [spec(n) for n in range(1, 9)]
    traces = []
    for world_class in (CheckedWorld, WorldThatLooksAtAll):
        world = world_class(specs, new_image(2000), settings=SessionSettings(unicast_gap_s=20.0), seed=0)
        world.silent.update(world.specs)
        world.session.expires = T0 + 500.0
        world.run(lambda w: w.now > T0 + 1000.0)
        late = {e.node: e.at for e in reversed(world.events) if e.code == "expired"}
        assert len(late) == 8
        assert sum(at < T0 + 501.0 for at in late.values()) > 1
        assert not any(e.fact is Fact.FAILED for e in world.events)
        traces.append(world.trace)
    assert traces[0] == traces[1]


def test_a_held_node_that_is_first_in_line_lets_no_later_one_go_before_the_next():
    specs = [spec(n) for n in range(1, 5)]
    traces = []
    for world_class in (CheckedWorld, WorldThatLooksAtAll):
        world = world_class(specs, new_image(2000), seed=0)
        world.run(lambda w: w.now > T0)
        world.direct(1, Want.HOLD, 0.0)  # the second, which waits
        world.run(lambda w: w.now >= T0 + 4.0)
        world.direct(3, Want.DELIVER, 0.0)  # the fourth is looked at for another reason
        world.run(lambda w: w.now > T0 + 30.0)
        asked = [a.dev_eui[-1] for _, a in world.trace if isinstance(a, Unicast) and a.name == "McGroupSetupReq"]
        assert asked == ["1", "3", "4"]
        traces.append(world.trace)
    assert traces[0] == traces[1]


def receiving(count, missing):
    """A session whose nodes miss so many fragments after the plain ones, and its needs."""
    world = World([spec(n) for n in range(1, count + 1)], new_image(2000))
    session = world.session
    for node in session.nodes.values():
        for step in (Step.BLOCK, Step.SET_UP, Step.RECEIVING):
            session._out.move(node, step)
        node.block.missing, node.block.at_counter, node.block.tried = missing, session.cohort.nb_frag, 10.0
        node.answered_poll = 0
    session._rounds._counters.sent(session.cohort.nb_frag + 2)
    return session, session._rounds._needed


def test_needs_follow_what_no_gateway_sent():
    session, needs = receiving(2, missing=4)
    counters = session._rounds._counters
    needs.look(0, 0)
    before = needs.told.most(0.0)
    counters.transmitted(session.cohort.nb_frag + 1, sent=False)
    needs.look(0, 0)
    assert needs.told.most(0.0) > before
    counters.transmitted(session.cohort.nb_frag + 1, sent=True)
    needs.look(0, 0)
    assert needs.told.most(0.0) == before


def test_needs_know_the_last_uplink_of_those_in_demand_only():
    session, needs = receiving(3, missing=4)
    needs.look(0, 0)
    first, second, third = session.nodes.values()
    for node, when in ((first, 1.0), (second, 2.0), (third, 3.0)):
        node.last_heard = T0 + when
        session._rounds.heard(node)
    assert needs.heard_at() == T0 + 3.0
    session._out.move(third, Step.VERIFYING)
    needs.look(0, 0)
    assert needs.heard_at() == T0 + 2.0


def test_who_was_sounded_and_has_told_all_is_not_asked():
    """The limit is 2, 4 were lost, and nothing was sent since its answer: it is beyond it, and need not be asked."""
    session, _ = receiving(1, missing=4)
    (node,) = session.nodes.values()
    node.profile = replace(node.profile, redundancy_limit=2)
    roster_of(session).touch(node)
    assert roster_of(session).of(Trait.UNSOUNDED) == [node]
    assert not sound(session._out)
    assert not roster_of(session).of(Trait.UNSOUNDED)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(-5, 5))), max_size=300))
def test_the_greatest_is_the_greatest(changes):
    """None drops the name."""
    found, expected = Greatest(), {}
    for name, value in changes:
        if value is None:
            found.drop(name)
            expected.pop(name, None)
        else:
            found.put(name, float(value))
            expected[name] = float(value)
        assert found.most(-9.0) == max(expected.values(), default=-9.0)
        assert len(found) == len(expected)
        assert len(found._heap) <= 2 * len(expected) + 65
