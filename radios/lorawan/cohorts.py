"""Which FUOTA sessions there are, and which node is in which. SHELL.

Places the nodes that the daemon wants served into cohorts, runs the sessions, and makes them again from the journal after
a crash or a failed commit. Does not know where devices come from (`driver`), nor what a session does.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Sequence

from radios.clock import Clock
from radios.errors import ContractError, ImageError, Unsupported
from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.cohort import BlockSource, Cohort, check_fits, fragment_size
from radios.lorawan.fec import Encoder
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.inventory import Node
from radios.lorawan.journal_codec import (
    VERSION,
    BadRecord,
    Known,
    Records,
    known_record,
    read_cohort,
    read_key,
    read_node,
)
from radios.lorawan.keys import KEY_BYTES, Key
from radios.lorawan.messages import Release
from radios.lorawan.network_server import NetworkServer
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.runner import JournalFailed, Runner
from radios.lorawan.session_node import SessionNode
from radios.lorawan.settings import LorawanSettings
from radios.radio import Fact, ImageStore, Journal, Json, NodeDirective, Record, TransferEvent, TransferOrder, Want

_log = logging.getLogger(__name__)

_CODED_AT_ONCE = 16
_JOURNAL_RETRY_S = 10.0


class Cohorts:
    """Orders, directives and the sessions that serve them. `nodes` and `gateways` are kept by the driver."""

    def __init__(self, settings: LorawanSettings, clock: Clock, network: NetworkServer, wake: asyncio.Event) -> None:
        self.orders: dict[str, TransferOrder] = {}
        self.directives: dict[str, NodeDirective] = {}  # by DevEUI
        self.nodes: dict[str, Node] = {}
        self.known: dict[str, Known] = {}
        self.ledgers: dict[str, DutyCycleLedger] = {}  # by gateway
        self.gateways: tuple[str, ...] = tuple(settings.chirpstack.gateway_ids)
        self.runners: dict[str, Runner] = {}
        self.paces: dict[str, MulticastAir] = {}
        self.turn = Turn()
        self._settings = settings
        self._clock = clock
        self._network = network
        self._wake = wake
        self._ended: dict[str, tuple[str, int]] = {}  # DevEUI -> transfer and generation that is over
        self._opened: tuple[Journal, ImageStore, asyncio.TaskGroup] | None = None

    def open(self, journal: Journal, images: ImageStore, group: asyncio.TaskGroup) -> None:
        """Before anything else: what sessions need to run."""
        self._opened = journal, images, group

    def close(self) -> None:
        self._opened = None

    @property
    def journal(self) -> Journal | None:
        return self._opened[0] if self._opened else None

    def spawn(self, coroutine: Coroutine[None, None, object]) -> None:
        """Run it among the radio's tasks; nothing runs any more once the radio is closed."""
        if self._opened is None:
            coroutine.close()
        else:
            self._opened[2].create_task(coroutine)

    def status(self) -> list[Json]:
        return [self._cohort_status(runner) for runner in self.runners.values()]

    def put(self, order: TransferOrder) -> None:
        """New terms of a transfer reach its sessions."""
        self.orders[order.transfer] = order
        for name, runner in self.runners.items():
            if runner.session.cohort.transfer == order.transfer:
                runner.session.expires = order.expires.timestamp()
                self.paces[name].share = order.air_share
                runner.wake()

    def direct(self, dev_eui: str, directive: NodeDirective) -> None:
        """A directive is taken when it is newer; a session that serves the node is told."""
        before = self.directives.get(dev_eui)
        if before is not None and before.transfer == directive.transfer and directive.generation <= before.generation:
            return
        self.directives[dev_eui] = directive
        runner = self.runner_of(dev_eui)
        if runner is None:
            return
        if runner.session.cohort.transfer == directive.transfer:
            runner.direct(directive)
        else:
            # A node has one transfer at a time: the old one ends before this one begins.
            held = runner.session.nodes[dev_eui]
            old = NodeDirective(runner.session.cohort.transfer, directive.node, held.generation + 1, Want.DROP)
            runner.direct(old)

    async def place(self) -> None:
        now = self._clock.now()
        events: list[TransferEvent] = []
        joining: list[tuple[Node, NodeDirective, TransferOrder]] = []
        for dev_eui, directive in list(self.directives.items()):
            order = self.orders.get(directive.transfer)
            if self.runner_of(dev_eui) is not None or self._is_over(dev_eui, directive):
                continue
            if directive.want is Want.DROP:
                events.append(_event(directive, Fact.DROPPED, now))
                self._end(dev_eui, directive)
                continue
            node = self.nodes.get(dev_eui)
            if node is None or order is None or directive.want is Want.HOLD:
                continue
            reason = node.unsupported() or self._unfit(node, order, now)
            if reason:
                code, _, detail = reason.partition(": ")
                events.append(_event(directive, Fact.FAILED, now, code if detail else "refused", detail or reason))
                self._end(dev_eui, directive)
            elif node.ready and self._settings.may_set_up(node.device.tags) and self.gateways:
                joining.append((node, directive, order))
        records = []
        for node, directive, _ in joining:
            node.known.session_cnt = node.known.session_cnt % 0xFFFF + 1
            node.known.attempts[directive.transfer] = node.known.attempts.get(directive.transfer, 0) + 1
            records.append(known_record(node.known))
        await self._commit(records, events)
        for node, directive, order in joining:
            self._join(node, directive, order)
        self._expect()

    def _expect(self) -> None:
        """Tell open cohorts whether wanted nodes are still being found out about."""
        coming = {
            directive.transfer
            for dev_eui, directive in self.directives.items()
            if directive.want in (Want.DELIVER, Want.INSTALL)
            and dev_eui in self.nodes
            and self.runner_of(dev_eui) is None
            and not self._is_over(dev_eui, directive)
        }
        for runner in self.runners.values():
            expecting = runner.session.cohort.transfer in coming
            if runner.session.expecting != expecting:
                runner.session.expecting = expecting
                runner.wake()

    def _join(self, node: Node, directive: NodeDirective, order: TransferOrder) -> None:
        profile = node.profile(self._settings.inventory)
        runner = self._open_runner(directive.transfer, profile.frag_version) or self._new_runner(
            order, profile.frag_version
        )
        runner.session.join(
            profile,
            directive,
            session_cnt=node.known.session_cnt,
            attempt=node.known.attempts[directive.transfer],
            root_key=None,
            now=self._clock.now(),
        )
        runner.session.expecting = True  # until the steward has looked at all of them
        runner.wake()

    def _open_runner(self, transfer: str, frag_version: int) -> Runner | None:
        for runner in self.runners.values():
            cohort = runner.session.cohort
            if (cohort.transfer, cohort.frag_version, cohort.closed) == (transfer, frag_version, False):
                return runner
        return None

    def _new_runner(self, order: TransferOrder, frag_version: int) -> Runner:
        settings = self._settings
        mc_addr, mc_key = _new_group()
        cohort = Cohort(
            cohort=secrets.token_hex(4),
            transfer=order.transfer,
            digest=order.image.digest,
            size=order.image.size,
            version=order.image.version,
            frag_size=fragment_size(settings.max_payload),
            frag_version=frag_version,
            region=settings.region,
            data_rate=settings.data_rate,
            frequency_hz=settings.frequency_hz,
            gateways=self.gateways,
            mc_addr=mc_addr,
        )
        return self._start(cohort, mc_key, None, order)

    def _start(
        self, cohort: Cohort, mc_key: Key, nodes: Sequence[SessionNode] | None, order: TransferOrder | None
    ) -> Runner:
        pace = self.pace(order.air_share if order else 1.0, cohort)
        session = FuotaSession(
            cohort,
            mc_key,
            self._block_source(cohort),
            pace,
            self.turn,
            self._settings.session,
            _new_group,
            nodes=nodes,
            expires=order.expires.timestamp() if order else None,
        )
        runner = Runner(session, self._network, self._open()[0], self._clock, self._released, self._keep_air)
        self.runners[cohort.cohort] = runner
        self.paces[cohort.cohort] = pace
        self.spawn(self._run(cohort.cohort, runner))
        return runner

    async def _run(self, name: str, runner: Runner) -> None:
        """One cohort to its end; after a failed commit again from the journal."""
        try:
            await runner.run()
        except JournalFailed as error:
            _log.error("lorawan cohort %s: the journal did not take a commit, reading it again: %s", name, error)
            self.spawn(self._again(name, error.installing))
            return
        self._forget(name)
        self._wake.set()

    async def _again(self, name: str, installing: Sequence[str]) -> None:
        await self._clock.sleep_until(self._clock.now() + _JOURNAL_RETRY_S)
        try:
            records = Records.sorted(await self._open()[0].load())
        except Exception as error:  # noqa: BLE001 - the journal is the daemon's: any error means "not now"
            _log.error("lorawan journal: %s: %s", type(error).__name__, error)
            self.spawn(self._again(name, installing))
            return
        self._forget(name)
        if name in records.cohorts:
            runner = self.restore(name, records)
            for dev_eui in installing:
                if runner is not None:
                    runner.session.refuse_install(dev_eui)
        self._wake.set()

    def _forget(self, name: str) -> None:
        self.runners.pop(name, None)
        self.paces.pop(name, None)

    def restore(self, name: str, records: Records) -> Runner | None:
        try:
            cohort = read_cohort(records.cohorts[name])
            mc_key = read_key(records.keys[name])
            nodes = [read_node(record) for record in records.nodes.get(name, ())]
        except (BadRecord, KeyError) as error:
            _log.error("lorawan cohort %s cannot be restored, its nodes start again: %s", name, error)
            return None
        runner = self._start(cohort, mc_key, nodes, self.orders.get(cohort.transfer))
        for node in nodes:
            directive = self.directives.get(node.dev_eui)
            if directive is not None and directive.transfer == cohort.transfer:
                runner.direct(directive)
        return runner

    def _released(self, release: Release) -> None:
        """A session lets a node go: into another cohort when it may, or for good."""
        directive = self.directives.get(release.dev_eui)
        known = self.known.get(release.dev_eui)
        _log.info("lorawan:%s left its cohort: %s", release.dev_eui, release.reason)
        if directive is not None and known is not None:
            if release.again and release.reason == "late":
                # It was never given data: that was no attempt.
                known.attempts[directive.transfer] = max(0, known.attempts.get(directive.transfer, 1) - 1)
            if release.reason == "retry":
                known.attempts.pop(directive.transfer, None)
            if not release.again and directive.want is Want.DROP:
                known.attempts.pop(directive.transfer, None)
                self._end(release.dev_eui, directive)
        self._wake.set()

    def _unfit(self, node: Node, order: TransferOrder, now: float) -> str:
        """`code: detail` when this order can never be for this node."""
        if node.device.region != self._settings.region:
            return f"refused: {self.obstacle(node)}"
        if now >= order.expires.timestamp():
            return "expired: the order expired before the node was set up"
        try:
            check_fits(order.image, fragment_size(self._settings.max_payload))
        except Unsupported as error:
            return f"no_space: {error}"
        return ""

    def obstacle(self, node: Node) -> str:
        if not self._settings.may_set_up(node.device.tags):
            return "another gateway owns it"
        if node.device.region != self._settings.region:
            return f"is in {node.device.region}, not {self._settings.region}"
        return node.unsupported()

    def pace(self, share: float, cohort: Cohort | None = None) -> MulticastAir:
        plan, settings = self._settings.plan, self._settings
        duty_cycle = plan.sub_band(settings.frequency_hz).duty_cycle
        gateways = cohort.gateways if cohort else self.gateways
        ledgers = {name: self.ledgers.setdefault(name, DutyCycleLedger(duty_cycle)) for name in gateways}
        rate = plan.downlink(cohort.data_rate if cohort else settings.data_rate)
        gap_s = settings.class_c_margin_s
        return MulticastAir(ledgers, rate.modulation, self.turn, share=share, gateway_gap_s=gap_s)

    def _block_source(self, cohort: Cohort) -> BlockSource:
        def read(offset: int, length: int) -> bytes:
            if self._opened is None:
                raise ImageError("the radio is closed")
            return self._opened[1].read(cohort.digest, offset, length)

        encoder = Encoder(read, cohort.size, cohort.frag_size, cohort.frag_version)
        coded: dict[int, bytes] = {}

        def fragment(n: int) -> bytes:
            if n <= cohort.nb_frag:
                return encoder.fragment(n)
            if n not in coded:  # many at once cost little more than one
                batch = range(n, min(n + _CODED_AT_ONCE, N_MAX + 1))
                coded.clear()
                coded.update(zip(batch, encoder.fragments(batch), strict=True))
            return coded[n]

        return BlockSource(read, fragment, cohort.size)

    def runner_of(self, dev_eui: str) -> Runner | None:
        return next((runner for runner in self.runners.values() if dev_eui in runner.session.nodes), None)

    def _is_over(self, dev_eui: str, directive: NodeDirective) -> bool:
        return self._ended.get(dev_eui) == (directive.transfer, directive.generation)

    def _end(self, dev_eui: str, directive: NodeDirective) -> None:
        self._ended[dev_eui] = (directive.transfer, directive.generation)

    async def _commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        if not records and not events:
            return
        try:
            await self._open()[0].commit(records, events)
        except Exception as error:
            raise JournalFailed(error, ()) from error

    def _keep_air(self) -> None:
        if self.journal is not None:
            records = [
                Record("network", f"air/{gateway}", VERSION, ledger.to_bytes())
                for gateway, ledger in self.ledgers.items()
            ]
            self.journal.progress((), records)

    def _cohort_status(self, runner: Runner) -> Json:
        session = runner.session
        cohort = session.cohort
        steps: dict[str, Json] = {}
        for node in session.nodes.values():
            count = steps.get(node.step, 0)
            steps[node.step] = (count if isinstance(count, int) else 0) + 1
        return {
            "cohort": cohort.cohort,
            "transfer": cohort.transfer,
            "fragments": cohort.nb_frag,
            "sent": session.highest_sent,
            "data_rate": cohort.data_rate,
            "nodes": steps,
            "multicast_frames": runner.multicasts,
            "unicast_frames": runner.unicasts,
            "airtime_s": round(self.paces[cohort.cohort].used_s, 3) if cohort.cohort in self.paces else 0.0,
        }

    def _open(self) -> tuple[Journal, ImageStore, asyncio.TaskGroup]:
        if self._opened is None:
            raise ContractError("the radio is not running")
        return self._opened


def _new_group() -> tuple[int, Key]:
    """McAddr and McKey. Addresses are drawn at random: groups are few and their keys differ."""
    return secrets.randbits(32), Key(secrets.token_bytes(KEY_BYTES))


def _event(directive: NodeDirective, fact: Fact, now: float, code: str = "", detail: str = "") -> TransferEvent:
    return TransferEvent(directive.transfer, directive.node, directive.generation, fact, now, code=code, detail=detail)
