"""Runs one FUOTA session: performs its actions in order, commits first, and tells it what the network server said. SHELL.

A commit that fails ends the session object (`JournalFailed`): the driver makes another one from the journal.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from radios.clock import Clock
from radios.errors import ImageError, LinkError, Unsupported
from radios.lorawan import keys
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.gateway_bus import FrameKey, Transmitted
from radios.lorawan.keys import Key
from radios.lorawan.messages import (
    Action,
    Commit,
    CreateGroup,
    DeleteGroup,
    Feed,
    Multicast,
    Observed,
    Progress,
    Release,
    Unicast,
    waits,
)
from radios.lorawan.network_server import MulticastGroup, NetworkServer, NotThere, Uplink
from radios.lorawan.questions import WINDOW_REQUESTS
from radios.lorawan.single_air import SingleAir
from radios.lorawan.transmissions import Transmissions, Verdict
from radios.radio import Fact, Journal, NodeDirective

_log = logging.getLogger(__name__)

_IMAGE_RETRY_S = 60.0
BUSY_WAIT_S = 0.5
"""Until the queue is looked into again: ChirpStack's scheduler looks once a second."""


class JournalFailed(Exception):
    """Nothing after the commit was done. `installing`: nodes whose installation the commit was to begin."""

    def __init__(self, error: Exception, installing: tuple[str, ...]) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.installing = installing


class Runner:
    """One session and its task."""

    def __init__(
        self,
        session: FuotaSession,
        network: NetworkServer,
        journal: Journal,
        clock: Clock,
        released: Callable[[Release | Observed], None],
        sent: Callable[[], None],
        single: SingleAir,
        root_keys: Mapping[str, Key] = MappingProxyType({}),
    ) -> None:
        """`root_keys` by DevEUI, where the operator gave them: the network server is not asked for these."""
        self.session = session
        self.multicasts = 0
        self.unicasts = 0
        self.transmissions = Transmissions()
        self._network = network
        self._journal = journal
        self._clock = clock
        self._released = released
        self._sent = sent
        self._single = single
        self._given_keys = root_keys
        self._looked: set[str] = set()  # nodes whose queue was looked into
        self._wake = asyncio.Event()
        self._root_keys_at = 0.0

    def receive(self, uplink: Uplink) -> None:
        if self.session.receive(uplink, self._clock.now()):
            self._wake.set()

    def direct(self, directive: NodeDirective) -> None:
        self.session.direct(directive, self._clock.now())
        self._wake.set()

    def transmitted(self, word: Transmitted) -> None:
        """A gateway's word about a frame to the group."""
        verdict = self.transmissions.heard(word)
        if verdict is not None:
            self._judge(verdict)
            self._wake.set()

    def hand_over(self, dev_eui: str, detail: str) -> None:
        """The node is another daemon's."""
        self.session.hand_over(dev_eui, detail, self._clock.now())
        self._wake.set()

    def clock_stepped(self) -> None:
        self.session.clock_stepped()
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def _judge(self, verdict: Verdict) -> None:
        session = self.session
        if not verdict.sent:
            what = "a poll" if verdict.n is None else f"fragment {verdict.n}"
            _log.info("lorawan cohort %s: no gateway sent %s: %s", session.cohort.cohort, what, verdict.status)
        session.multicast_transmitted(verdict.n, verdict.sent, self._clock.now(), verdict.status)

    async def run(self) -> None:
        """Until nobody is left. JournalFailed when a commit failed."""
        session = self.session
        while not session.finished:
            self._wake.clear()
            await self._fetch_root_keys()
            try:
                actions = session.to_send(self._clock.now())
            except ImageError as error:
                _log.error("lorawan cohort %s: %s", session.cohort.cohort, error)
                await wait_until(self._clock, self._clock.now() + _IMAGE_RETRY_S, None)
                continue
            for action in actions:
                await self._perform(action)
            if not actions:
                await wait_until(self._clock, session.next_deadline(), self._wake)

    async def _perform(self, action: Action) -> None:
        match action:
            case Commit():
                await self._commit(action)
            case Progress():
                self._journal.progress(action.events, action.records)
            case Unicast():
                await self._unicast(action)
            case Multicast():
                await self._multicast(action)
            case Feed():
                await self._feed(action)
            case CreateGroup():
                await self._create(action)
            case DeleteGroup():
                await self._delete(action)
            case Release() | Observed():
                self._released(action)

    async def _commit(self, action: Commit) -> None:
        try:
            await self._journal.commit(action.records, action.events)
        except Exception as error:
            installing = tuple(e.node.partition(":")[2] for e in action.events if e.fact is Fact.INSTALLING)
            raise JournalFailed(error, installing) from error

    async def _unicast(self, action: Unicast) -> None:
        size = len(action.data)
        if reason := self._single.oversize(action.dev_eui, size):
            self.session.unicast_oversize(action.dev_eui, f"{action.name}: {reason}", self._clock.now())
            return
        given = False
        try:
            if await self._waits(action):
                self.session.unicast_waits(action.dev_eui, action.name)
                return
            given = True  # a call that fails from here on may have been cut off after it was obeyed
            await self._network.enqueue(action.dev_eui, action.port, action.data, action.expires)
        except LinkError as error:
            _log.info("lorawan:%s %s: %s", action.dev_eui, action.name, error)
            self.session.unicast_refused(action.dev_eui, self._clock.now(), action.name, sure=not given)
        except Unsupported as error:
            self.session.impossible(action.dev_eui, str(error), self._clock.now())
        else:
            self.unicasts += 1
            self._single.book(action.dev_eui, size, self._clock.now())

    async def _waits(self, action: Unicast) -> bool:
        """Whether the same request is queued: since before this session was made, or since a class A node was asked before."""
        first = action.dev_eui not in self._looked
        if not first and self._single.always_on(action.dev_eui):
            return False  # what was queued before was sent at once
        queued = await self._network.queued(action.dev_eui)
        self._looked.add(action.dev_eui)
        if first and action.name in WINDOW_REQUESTS:
            # Of another one nobody knows any more which start it asks for.
            queued = [item for item in queued if item.data == action.data]
        return waits(action, queued, self._clock.now())

    async def _multicast(self, action: Multicast) -> None:
        session, network = self.session, self._network
        try:
            if await network.multicast_queue_length(action.group_id):
                session.multicast_busy(self._clock.now(), BUSY_WAIT_S)
                return
            f_cnt = await network.enqueue_multicast(action.group_id, action.port, action.data)
        except LinkError as error:
            _log.info("lorawan cohort %s: %s", session.cohort.cohort, error)
            session.multicast_refused(self._clock.now())
        except NotThere as error:
            _log.warning("lorawan cohort %s: its group is gone: %s", session.cohort.cohort, error)
            session.group_lost(self._clock.now())
        except Unsupported as error:
            self._all_impossible(str(error))
        else:
            self.multicasts += 1
            session.multicast_done(self._clock.now())
            key = FrameKey(session.cohort.mc_addr, f_cnt & 0xFFFF)
            for verdict in self.transmissions.given(key, action.n, session.cohort.gateways):
                self._judge(verdict)
            self._sent()

    async def _feed(self, action: Feed) -> None:
        """Into an empty queue only: what waits there would be sent twice, or be late for its place."""
        session, network, taken = self.session, self._network, 0
        try:
            if await network.queue_length(action.dev_eui):
                session.feed_busy(action.dev_eui, self._clock.now())
                return
            for frame in action.frames:
                await network.enqueue(action.dev_eui, frame.port, frame.data, action.expires)
                taken += 1
        except LinkError as error:
            _log.info("lorawan:%s fragments: %s", action.dev_eui, error)
        except Unsupported as error:
            session.impossible(action.dev_eui, str(error), self._clock.now())
        self.unicasts += taken
        session.fed(action.dev_eui, taken, self._clock.now())

    async def _create(self, action: CreateGroup) -> None:
        group = MulticastGroup(
            name=action.name,
            region=action.region,
            mc_addr=f"{action.mc_addr:08x}",
            mc_net_s_key=keys.mc_net_s_key(action.mc_key, action.mc_addr),
            mc_app_s_key=keys.mc_app_s_key(action.mc_key, action.mc_addr),
            data_rate=action.data_rate,
            frequency_hz=action.frequency_hz,
            dev_euis=action.dev_euis,
            ping_periodicity=action.ping_periodicity,
        )
        try:
            group_id = await self._network.create_group(group)
            for gateway_id in action.gateways:
                await self._network.add_gateway(group_id, gateway_id)
        except LinkError as error:
            _log.info("lorawan cohort %s: %s", self.session.cohort.cohort, error)
        except Unsupported as error:
            self._all_impossible(str(error))
        else:
            self.session.group_created(group_id)

    async def _delete(self, action: DeleteGroup) -> None:
        try:
            await self._network.delete_group(action.group_id)
        except (LinkError, Unsupported) as error:
            _log.info("lorawan cohort %s: %s", self.session.cohort.cohort, error)
        else:
            self.session.group_deleted(action.group_id)

    def _all_impossible(self, detail: str) -> None:
        for dev_eui in list(self.session.nodes):
            self.session.impossible(dev_eui, detail, self._clock.now())

    async def _fetch_root_keys(self) -> None:
        now = self._clock.now()
        missing = self.session.keyless()
        if not missing or now < self._root_keys_at:
            return
        for dev_eui in missing:
            node, given = self.session.nodes[dev_eui], self._given_keys.get(dev_eui)
            try:
                key = given or await self._network.root_key(dev_eui, node.profile.mac_version)
                self.session.give_root_key(dev_eui, key)
            except LinkError as error:
                _log.info("lorawan:%s root key: %s", dev_eui, error)
                self._root_keys_at = now + self.session.settings.retry_s
                self._later(self._root_keys_at)
                return
            except Unsupported as error:
                self.session.impossible(dev_eui, str(error), now)

    def _later(self, when: float) -> None:
        self.session.wake_at(when)


async def wait_until(clock: Clock, when: float | None, event: asyncio.Event | None) -> None:
    """Return at `when` by the clock, or when the event is set, whichever comes first."""
    if event is None:
        if when is not None:
            await clock.sleep_until(when)
        return
    if event.is_set():
        return
    if when is None:
        await event.wait()
        return
    tasks = [asyncio.create_task(event.wait()), asyncio.create_task(clock.sleep_until(when))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
