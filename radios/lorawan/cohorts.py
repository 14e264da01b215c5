"""Which FUOTA sessions there are, and which node is in which. SHELL.

Places the nodes that the daemon wants served into cohorts, runs the sessions, and makes them again from the journal after
a crash or a failed commit. Does not know where devices come from (`driver`), nor what a session does.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from radios.clock import Clock
from radios.errors import Unsupported
from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.air_book import AirBook
from radios.lorawan.cohort import Cohort
from radios.lorawan.cohort_status import cohort_status
from radios.lorawan.directives import Directives, event
from radios.lorawan.fragment_size import check_fits
from radios.lorawan.gateway_bus import Transmitted
from radios.lorawan.gateway_watch import GatewayWatch
from radios.lorawan.ground import Ground
from radios.lorawan.inventory import Node
from radios.lorawan.journal_codec import (
    BadRecord,
    Known,
    Records,
    known_record,
    read_cohort,
    read_key,
    read_node,
)
from radios.lorawan.keys import Key
from radios.lorawan.lessons import ALONE, OWNER, begun, learn, may_run, never_begun, record_after
from radios.lorawan.link import slower
from radios.lorawan.messages import Observed, Release
from radios.lorawan.network_server import NetworkServer
from radios.lorawan.owners import Owners
from radios.lorawan.placement import Candidate, assign, pass_air_s
from radios.lorawan.reach import candidate, coded, place_of, unicast_rate
from radios.lorawan.runner import JournalFailed, Runner
from radios.lorawan.session_factory import SessionFactory
from radios.lorawan.session_node import NEEDS_DATA, SessionNode
from radios.lorawan.settings import LorawanSettings
from radios.lorawan.single_air import SingleAir
from radios.radio import Fact, Json, NodeDirective, Record, TransferEvent, TransferOrder, Want

_log = logging.getLogger(__name__)

_JOURNAL_RETRY_S = 10.0
_GPS_STEP_S = 1.0
_WORD_S = 600.0  # so long a restored session waits for the daemon's word on its nodes


class Cohorts:
    """Orders, directives and the sessions that serve them. `nodes` and `gateways` are kept by the driver."""

    def __init__(self, settings: LorawanSettings, clock: Clock, network: NetworkServer, wake: asyncio.Event) -> None:
        self._wanted = Directives()
        self.orders = self._wanted.orders
        self.directives = self._wanted.of
        self.nodes: dict[str, Node] = {}
        self.known: dict[str, Known] = {}
        self.book = AirBook(settings.plan, settings.frequency_hz)
        self.watch = GatewayWatch(self.book, self._transmitted)
        self.gateways: tuple[str, ...] = tuple(settings.chirpstack.gateway_ids)
        self.runners: dict[str, Runner] = {}
        self._serving: dict[str, Runner] = {}  # DevEUI -> the runner whose session has it, as far as the journal knows
        self._failed: set[Runner] = set()  # what they hold is not what the journal holds, which is read again
        self.paces: dict[str, MulticastAir] = {}
        self.turn = Turn()
        self.claiming = False  # some device is being claimed
        self.owners = Owners(settings, network)
        self._settings = settings
        self._clock = clock
        self._network = network
        self._wake = wake
        self.ground = Ground()
        self.factory = SessionFactory(settings, self.turn, self.book, self.ground.read, self._bus_hears)
        self.single = SingleAir(self.nodes, self.factory.unicast_air)
        self._gps_ahead_s = 0.0  # of the radio's clock
        clock.wall.watch(self._clock_stepped)

    def status(self) -> list[Json]:
        return [cohort_status(runner, self.paces[name].used_s) for name, runner in self.runners.items()]

    def _transmitted(self, word: Transmitted) -> bool:
        """Whether it is about a multicast of ours: then its session knows."""
        ours = [runner for runner in self.runners.values() if word.about(runner.session.cohort.mc_addr)]
        for runner in ours:
            runner.transmitted(word)
        return bool(ours)

    def _bus_hears(self) -> bool:
        return self.watch.hears and self._network.link_up().get("gateway_bus", False)

    def put(self, order: TransferOrder) -> None:
        """New terms of a transfer reach its sessions."""
        self.orders[order.transfer] = order
        for name, runner in self.runners.items():
            if runner.session.cohort.transfer == order.transfer:
                runner.session.expires = order.expires.timestamp()
                self.paces[name].share = order.air_share
                runner.wake()

    def _clock_stepped(self, _by_s: float) -> None:
        self.gps_moved()
        for runner in self.runners.values():
            runner.clock_stepped()
        self._wake.set()

    def gps_moved(self) -> None:
        """GPS time may be known anew."""
        before, self._gps_ahead_s = self._gps_ahead_s, self._settings.session.gps.at(now := self._clock.now()) - now
        if abs(by_s := self._gps_ahead_s - before) >= _GPS_STEP_S:
            for runner in self.runners.values():
                runner.session.gps_moved(by_s)

    def direct(self, dev_eui: str, directive: NodeDirective) -> None:
        """A directive is taken when it is newer; a session that serves the node is told."""
        runner = self.runner_of(dev_eui)
        if not self._wanted.take(dev_eui, directive) or runner is None:
            return
        if runner.session.cohort.transfer == directive.transfer:
            runner.direct(directive)
            if until := runner.session.quiet_until:
                self._keep_quiet(runner, until)
        else:
            # A node has one transfer at a time: the old one ends before this one begins.
            held = runner.session.nodes[dev_eui]
            old = NodeDirective(runner.session.cohort.transfer, directive.node, held.generation + 1, Want.DROP)
            runner.direct(old)

    async def place(self) -> None:
        now = self._clock.now()
        over: list[
            tuple[str, NodeDirective, TransferEvent]
        ] = []  # once that is durable: else nobody would ever be told
        joining: dict[str, list[tuple[Node, NodeDirective]]] = {}
        self.claiming = False
        for dev_eui, directive in list(self.directives.items()):
            order = self.orders.get(directive.transfer)
            if not self._is_free(dev_eui) or self._wanted.is_over(dev_eui, directive):
                continue
            if directive.want is Want.DROP:
                over.append((dev_eui, directive, event(directive, Fact.DROPPED, now)))
                continue
            node = self.nodes.get(dev_eui)
            if node is None or order is None or directive.want is Want.HOLD:
                continue
            elsewhere = node.device.region != self._settings.region  # no order of this daemon can be for it
            reason = node.unsupported() or (f"refused: {self.obstacle(node)}" if elsewhere else "")
            if reason:
                over.append((dev_eui, directive, event(directive, Fact.FAILED, now, *coded(reason))))
            elif node.ready and node.runs == order.image.version:
                over.append((dev_eui, directive, event(directive, Fact.RUNNING, now, version=node.runs)))
                node.ask_version_in(self._settings.session.recheck_s, self._settings.inventory)
            elif self._clock.wall.unix(now) >= order.expires.timestamp():
                # No verdict: so says a clock that may have leapt, and whoever ordered it knows better.
                if self._wanted.hold_back(dev_eui, directive.transfer):
                    self._stalled(directive, now, "expired", "the order expired before the node was set up")
            elif node.ready and self._settings.may_set_up(node.device.tags) and self.gateways:
                if await self.owners.ours(node, now):
                    joining.setdefault(directive.transfer, []).append((node, directive))
                else:
                    self.claiming = True
            elif not node.ready and (silent := node.silent_about(self._settings.session.stalled_after)):
                self._stalled(directive, now, "silent", silent)
        await self.ground.commit([], [told for _, _, told in over])
        for dev_eui, directive, _ in over:
            self._wanted.end(dev_eui, directive)
        for transfer, members in joining.items():
            await self._gather(self.orders[transfer], members)
        self._expect()

    async def _gather(self, order: TransferOrder, members: Sequence[tuple[Node, NodeDirective]]) -> None:
        """Give the nodes of one transfer their cohorts."""
        by_name = {node.device.dev_eui: (node, directive) for node, directive in members}
        candidates = [c for node, _ in members if (c := self.candidate(node, order.transfer)) is not None]
        opened = {place_of(runner.session.cohort): runner for runner in self._open_runners(order.transfer)}
        counts = {place: len(runner.session.nodes) for place, runner in opened.items()}
        air_s = partial(pass_air_s, self._settings.plan, image_bytes=order.image.size)
        for place, dev_euis in assign(candidates, counts, self.gateways, air_s):
            try:
                check_fits(order.image.size, self.factory.frag_size(place, order.image.size))
            except Unsupported as error:
                events = [
                    event(by_name[name][1], Fact.FAILED, self._clock.now(), "no_space", str(error)) for name in dev_euis
                ]
                await self.ground.commit([], events)
                for name in dev_euis:
                    self._wanted.end(name, by_name[name][1])
                continue
            fresh = None if place in opened else self.factory.new_cohort(order, place, self.gateways)
            cohort = fresh[0] if fresh is not None else opened[place].session.cohort
            joining = [by_name[name][0].known for name in dev_euis]
            for known in joining:
                begun(known, cohort)
            try:
                await self.ground.commit([known_record(known) for known in joining], [])
            except JournalFailed:
                for known in joining:
                    never_begun(known, cohort)
                raise
            runner = self._start(*fresh, None, order) if fresh is not None else opened[place]
            # It departed meanwhile, or is read again from the journal: the next round finds them another.
            if runner.session.cohort.closed or self.runners.get(cohort.cohort) is not runner or runner in self._failed:
                for known in joining:
                    never_begun(known, cohort)
                await self.ground.commit([known_record(known) for known in joining], [])
                self._wake.set()
                continue
            for name in dev_euis:
                self._join(runner, *by_name[name])

    def candidate(self, node: Node, transfer: str) -> Candidate | None:
        """How a node can be reached; None: not known yet."""
        settings, air = self._settings, self.factory.unicast_air
        return candidate(node, transfer, settings.plan, settings.data_rate, self.gateways, air)

    def _expect(self) -> None:
        """Tell open cohorts whether wanted nodes are still being found out about."""
        coming = {
            directive.transfer
            for dev_eui, directive in self.directives.items()
            if directive.want in (Want.DELIVER, Want.INSTALL)
            and dev_eui in self.nodes
            and self._is_free(dev_eui)
            and not self._wanted.is_over(dev_eui, directive)
        }
        for runner in self.runners.values():
            expecting = runner.session.cohort.transfer in coming
            if runner.session.expecting != expecting:
                runner.session.expecting = expecting
                runner.wake()

    def _join(self, runner: Runner, node: Node, directive: NodeDirective) -> None:
        cohort = runner.session.cohort
        # Where no lower data rate is left, it is tried all the same: the limit is only what is thought of it.
        may_slow = not cohort.unicast and slower(self._settings.plan, cohort.data_rate) is not None
        limit = node.redundancy_limit(cohort.nb_frag) if may_slow else None
        runner.session.join(
            node.profile(
                self._settings.inventory,
                unicast_dr=unicast_rate(node, self.factory.unicast_air),
                redundancy_limit=limit,
                confirm_each=node.known.slower.get(cohort.transfer) == ALONE,
            ),
            directive,
            session_cnt=node.known.session_cnt,
            attempt=node.known.attempts[directive.transfer],
            root_key=None,
            now=self._clock.now(),
        )
        self._serving[node.device.dev_eui] = runner
        runner.session.expecting = True  # until the steward has looked at all of them
        runner.wake()

    def _open_runners(self, transfer: str) -> list[Runner]:
        return [
            runner
            for runner in self.runners.values()
            if runner.session.cohort.transfer == transfer
            and runner not in self._failed
            and not runner.session.cohort.closed
            and not runner.session.cohort.unicast
        ]

    def _start(
        self, cohort: Cohort, mc_key: Key, nodes: Sequence[SessionNode] | None, order: TransferOrder | None
    ) -> Runner:
        remember = partial(self._remember, cohort)
        session, pace = self.factory.session(cohort, mc_key, nodes, order, remember)
        runner = Runner(
            session,
            self._network,
            self.ground.running(),
            self._clock,
            partial(self._released, cohort),
            self.keep_air,
            self.single,
            self._settings.root_keys,
        )
        self.runners[cohort.cohort] = runner
        self.paces[cohort.cohort] = pace
        self.ground.spawn(self._run(cohort.cohort, runner))
        return runner

    async def _run(self, name: str, runner: Runner) -> None:
        """One cohort to its end; after a failed commit again from the journal."""
        try:
            await runner.run()
        except JournalFailed as error:
            _log.error("lorawan cohort %s: the journal did not take a commit, reading it again: %s", name, error)
            self._failed.add(runner)
            self.ground.spawn(self._again(name, error.installing))
            return
        except Exception:  # noqa: BLE001 - a top task: the journal is as good as after a crash
            _log.exception("lorawan cohort %s failed, reading it again from the journal", name)
            self._failed.add(runner)
            self.ground.spawn(self._again(name, ()))
            return
        self._forget(name)
        self._wake.set()

    async def _again(self, name: str, installing: Sequence[str]) -> None:
        await self._clock.sleep_until(self._clock.now() + _JOURNAL_RETRY_S)
        try:
            records = Records.sorted(await self.ground.running().load())
        except Exception as error:  # noqa: BLE001 - the journal is the daemon's: any error means "not now"
            _log.error("lorawan journal: %s: %s", type(error).__name__, error)
            self.ground.spawn(self._again(name, installing))
            return
        self._forget(name)
        if name in records.cohorts:
            runner = self.restore(name, records)
            for dev_eui in installing:
                if runner is not None:
                    runner.session.refuse_install(dev_eui, self._clock.now())
        self._wake.set()

    def _forget(self, name: str) -> None:
        gone = self.runners.pop(name, None)
        self._failed -= {gone}
        self._serving = {dev_eui: runner for dev_eui, runner in self._serving.items() if runner is not gone}
        self.paces.pop(name, None)

    def restore(self, name: str, records: Records) -> Runner | None:
        try:
            cohort = read_cohort(records.cohorts[name])
            mc_key = read_key(records.keys[name])
            nodes = [read_node(record) for record in records.nodes.get(name, ())]
            now = self._clock.now()
            cohort.found_at(now)
            for node in nodes:
                node.found_at(now)
        except (BadRecord, KeyError) as error:
            _log.error("lorawan cohort %s cannot be restored, its nodes start again: %s", name, error)
            return None
        runner = self._start(cohort, mc_key, nodes, self.orders.get(cohort.transfer))
        for node in nodes:
            self._serving[node.dev_eui] = runner
            directive = self.directives.get(node.dev_eui)
            if directive is not None and directive.transfer == cohort.transfer:
                runner.direct(directive)
        self._keep_quiet(runner, now + _WORD_S)
        return runner

    def _keep_quiet(self, runner: Runner, until: float) -> None:
        """A restored session sends no data before the daemon has spoken of all its nodes: it may have held them meanwhile."""
        nodes = runner.session.nodes.values()
        unheard = any(node.step in NEEDS_DATA and node.dev_eui not in self.directives for node in nodes)
        runner.session.quiet_until = until if unheard else 0.0
        runner.wake()

    def _released(self, cohort: Cohort, lesson: Release | Observed) -> None:
        """A session let a node go, into another cohort when it may or for good, or found something out about one."""
        known, directive = self.known.get(lesson.dev_eui), self.directives.get(lesson.dev_eui)
        serving = self._serving.get(lesson.dev_eui)
        if isinstance(lesson, Release) and serving is not None and serving.session.cohort is cohort:
            del self._serving[lesson.dev_eui]
        _log.info("lorawan:%s in cohort %s: %s", lesson.dev_eui, cohort.cohort, lesson)
        self._wake.set()
        if may_run(lesson) and (node := self.nodes.get(lesson.dev_eui)) is not None:
            node.ask_version()
        if known is not None:
            dropping = self._wanted.dropping(lesson.dev_eui, cohort.transfer)
            learn(known, lesson, cohort, self._settings.plan, dropping=dropping)
        if directive is None or directive.transfer != cohort.transfer or not isinstance(lesson, Release):
            return
        if not lesson.again and (directive.want is Want.DROP or lesson.reason == OWNER):
            self._wanted.end(lesson.dev_eui, directive)

    def _remember(self, cohort: Cohort, lesson: Release | Observed) -> list[Record]:
        """What `_released` will change, for the commit before it."""
        known = self.known.get(lesson.dev_eui)
        if known is None:
            return []
        dropping = self._wanted.dropping(lesson.dev_eui, cohort.transfer)
        return [record_after(known, lesson, cohort, self._settings.plan, dropping=dropping)]

    def disown(self, dev_eui: str) -> None:
        """A device that is another gateway's: a session that serves it lets it go."""
        runner = self.runner_of(dev_eui)
        if runner is not None:
            runner.hand_over(dev_eui, self.obstacle(self.nodes[dev_eui]))

    def _stalled(self, directive: NodeDirective, now: float, code: str, detail: str) -> None:
        """A word on progress, which may be lost."""
        if self.ground.journal is not None:
            self.ground.journal.progress([event(directive, Fact.STALLED, now, code, detail)])

    def obstacle(self, node: Node) -> str:
        """Why a node cannot take part; empty: it can, or it is not known yet."""
        return self._settings.obstacle(node.device) or node.unsupported()

    def runner_of(self, dev_eui: str) -> Runner | None:
        runner = self._serving.get(dev_eui)
        return runner if runner is not None and dev_eui in runner.session.nodes else None

    def _is_free(self, dev_eui: str) -> bool:
        """No session has the node. One that has let it go keeps it until that is committed: else a crash would leave it in two."""
        return dev_eui not in self._serving

    def keep_air(self) -> None:
        if self.ground.journal is not None:
            self.ground.journal.progress((), self.book.records())
