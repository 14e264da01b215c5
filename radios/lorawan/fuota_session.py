"""One cohort's delivery, sans-I/O: set-up node by node, class C windows, rounds, proof, installation, clean-up. PURE.

Uplinks, directives and the time go in; batches of actions come out of `to_send`, with what must be durable first.
`to_send` is called after every input and at `next_deadline`. The shell performs a batch in order and reports what the
network server said. All state that matters is in the journal: after a crash, or a commit that failed, a session made
from the records goes on, asks every node the same question again, and never repeats a FragSessionSetupReq once data flowed.
"""

from collections.abc import Callable, Iterable

from radios.errors import ContractError
from radios.lorawan import reboot
from radios.lorawan.air import Turn
from radios.lorawan.answers import answer, decode, dropped
from radios.lorawan.asking import PROMPT_EXPIRES_S, Asking, asked_in_vain
from radios.lorawan.block_status import BlockStatus
from radios.lorawan.cohort import BlockSource, Cohort, SessionSettings, block_ack_delay_for
from radios.lorawan.counters import Counters
from radios.lorawan.feeds import Feeds
from radios.lorawan.image_answers import may_hold
from radios.lorawan.keys import Key
from radios.lorawan.lessons import OWNER
from radios.lorawan.messages import Action, Feed, Multicast, Release
from radios.lorawan.network_server import Uplink
from radios.lorawan.outgoing import Outgoing, Remember
from radios.lorawan.questions import INSTALL
from radios.lorawan.rounds import Pace, Rounds
from radios.lorawan.server_group import ServerGroup
from radios.lorawan.session_node import NodeProfile, SessionNode, Step
from radios.lorawan.status_answers import Air
from radios.lorawan.traits import Trait
from radios.lorawan.unicast_air import UnicastAir
from radios.lorawan.windows import Windows
from radios.radio import Fact, NodeDirective, Want


class FuotaSession:
    """`nodes` are given after a crash. `new_group` makes a fresh McAddr and McKey."""

    def __init__(
        self,
        cohort: Cohort,
        mc_key: Key,
        block: BlockSource,
        pace: Pace,
        turn: Turn,
        settings: SessionSettings,
        new_group: Callable[[], tuple[int, Key]],
        *,
        port: int = 201,
        unicast: UnicastAir | None = None,
        nodes: Iterable[SessionNode] | None = None,
        expires: float | None = None,
        remember: Remember | None = None,
    ) -> None:
        self.settings = settings
        self.expires = expires
        self.quiet_until = 0.0  # no data before: the daemon has not said yet what it wants of the nodes
        self.expecting = False  # more nodes are wanted that may still join: worth waiting for, within gather_s
        self._turn = turn
        self._new_group = new_group
        self._out = Outgoing(cohort, mc_key, settings, new=nodes is None, remember=remember)
        self._roster = self._out.roster
        for node in nodes or ():
            node.block.unsent = cohort.unsent
            self._roster.add(node)
        counters = Counters(self._out)
        self._feeds = Feeds(self._out, block, unicast, counters)
        self._rounds = Rounds(self._out, block, pace, port, counters, self._feeds)
        self._windows = Windows(self._out, self._rounds, self._feeds)
        self._asking = Asking(self._out, block, turn, lambda: self._rounds.sent)
        self._unicast = unicast
        self._group = ServerGroup(self._out)
        self._wake: list[float] = []
        self._finished = False
        self._retry_at: float | None = None

    @property
    def cohort(self) -> Cohort:
        return self._out.cohort

    @property
    def nodes(self) -> dict[str, SessionNode]:
        return self._out.nodes

    @property
    def finished(self) -> bool:
        """Nobody is left, and the records are deleted."""
        return self._finished

    @property
    def highest_sent(self) -> int:
        return self._rounds.sent

    @property
    def unicast_airtime_s(self) -> float:
        """On air by fragments and status requests to single nodes."""
        return self._feeds.used_s

    def join(
        self,
        profile: NodeProfile,
        directive: NodeDirective,
        *,
        session_cnt: int,
        attempt: int,
        root_key: Key | None,
        now: float,
    ) -> None:
        """A node takes part. `session_cnt` is above every one that it was ever given. ContractError once closed."""
        full = self.cohort.closed or (self.cohort.unicast and self.nodes)
        if full or profile.dev_eui in self.nodes or profile.frag_version != self.cohort.frag_version:
            raise ContractError(f"{profile.dev_eui} cannot join cohort {self.cohort.cohort}")
        node = SessionNode(
            profile=profile,
            generation=directive.generation,
            want=directive.want,
            block=BlockStatus(nb_frag=self.cohort.nb_frag, unsent=self.cohort.unsent),
            install_at=_install_at(directive),
            session_cnt=session_cnt,
            attempt=attempt,
            root_key=root_key,
            step=Step.BLOCK if self.cohort.unicast else Step.GROUP,
            grouped=not self.cohort.unicast,
        )
        self._roster.add(node)
        self.cohort.block_ack_delay = block_ack_delay_for(len(self.nodes))
        self._out.cohort_changed()
        self._out.changed(node)
        self._out.event(node, Fact.PREPARING, now)

    def direct(self, directive: NodeDirective, now: float) -> None:
        """What is wanted of a node of this session; an old generation or the same one changes nothing."""
        node = self.nodes.get(directive.node.partition(":")[2])
        if node is None or directive.generation <= node.generation:
            return
        node.generation, node.want, node.install_at = directive.generation, directive.want, _install_at(directive)
        self._out.changed(node)
        reboot.directed(self._out, node, now)
        if directive.want is Want.DROP and node.step is not Step.DROPPING:
            nothing_there = node.step is Step.GROUP and not node.asked and not self.cohort.data_started
            node.holds_image = node.holds_image or may_hold(node, self.cohort.version, coding=self._rounds.coding)
            self._out.move(node, Step.DROPPING)
            if nothing_there:
                dropped(self._out, node, now)
        elif node.step is Step.FAILED and directive.want in (Want.DELIVER, Want.INSTALL):
            self._out.leave(node, Release(node.dev_eui, again=True, reason="retry"))
        elif node.not_before > now and node.step not in (Step.RUNNING, Step.CONFIRMING):
            self._out.ask_afresh(node)

    def give_root_key(self, dev_eui: str, root_key: Key) -> None:
        """Root keys are never journalled: the shell fetches them again after a crash."""
        node = self.nodes[dev_eui]
        node.root_key = root_key
        self._roster.touch(node)

    def keyless(self) -> list[str]:
        """Nodes whose root key is needed and not here."""
        return [node.dev_eui for node in self._roster.of(Trait.KEYLESS)]

    def gps_moved(self, by_s: float) -> None:
        """GPS time is known to be so much later than thought. No node's clock has moved: each is less ahead of it."""
        for node in self.nodes.values():
            node.clock_error_s -= by_s

    def clock_stepped(self) -> None:
        """The wall clock was: what waits for an hour waits differently."""
        for node in self.nodes.values():
            self._roster.touch(node)

    def refuse_install(self, dev_eui: str, now: float) -> None:
        """The daemon did not take the commit that begins an installation: wait for its next directive, or for a while, as a
        disk that was full for a moment is no reason for it to say anything new."""
        node = self.nodes.get(dev_eui)
        if node is not None and node.step is Step.READY:  # else the commit was durable all the same
            node.not_before = now + self.settings.refused_s
            self._roster.touch(node)

    def hand_over(self, dev_eui: str, detail: str, now: float) -> None:
        """The node is another daemon's: nothing is asked of it any more. It may come back, unless all was done."""
        if (node := self.nodes.get(dev_eui)) is None:
            return
        if node.step is Step.DROPPING:
            dropped(self._out, node, now, detail)
            return
        over = node.step in (Step.RUNNING, Step.FAILED)
        if not over:
            self._out.event(node, Fact.STALLED, now, code=OWNER, detail=detail)
        self._out.leave(node, Release(dev_eui, again=not over, reason=OWNER, detail=detail))

    def receive(self, uplink: Uplink, now: float) -> bool:
        """Any uplink of any node; False: it was not for this session, and `to_send` need not be called."""
        node = self._roster.nodes.get(uplink.dev_eui)
        if node is None:
            return False
        node.last_heard = now
        reboot.heard(self._out, node, uplink.f_cnt)
        self._rounds.heard(node)
        waited_for = self._asking.heard(node)
        if not self._take(node, uplink, now):
            return waited_for
        if node.step is not Step.LEFT:
            self._roster.touch(node)
        return True

    def _take(self, node: SessionNode, uplink: Uplink, now: float) -> bool:
        """Whether it changed anything that there is to act on."""
        self._feeds.heard(node, now)
        if self._unicast is not None and not node.profile.always_on:
            rate = self._unicast.data_rate(uplink.data_rate, always_on=False)
            node.unicast_dr = node.unicast_dr if rate is None else rate
        decoded = decode(node, uplink.port, uplink.data)
        if decoded is None:
            return asked_in_vain(node, now) or node.unicast  # an uplink takes something out of its queue
        node.stalled, node.answered_at = False, now
        if node.chances > 0 and now <= node.asked_at + PROMPT_EXPIRES_S:
            self._asking.answered_in_time()
        received_at = uplink.received_at if uplink.received_at is not None else now
        for command in decoded.commands:
            if node.unsure:
                self._rounds.proved(node, command)
            if node.step is not Step.LEFT:
                answer(self._out, node, command, received_at, self._air(node), now)
        asked_in_vain(node, now)
        return True

    def to_send(self, now: float) -> list[Action]:
        """What to do now, in this order. ImageError when the image cannot be read; nothing is lost by calling again."""
        self._wake = [self._retry_at] if self._retry_at is not None and self._retry_at > now else []
        if self._finished:
            return []
        self._asking.settle(self.expires, now)
        if (when := self._windows.step(now, expecting=self.expecting, prompt=self._asking.by_uplink)) is not None:
            self._wake.append(when)
        self._asking.ask(now)
        frame, feed = self._data(now)
        if (when := self._group.step(now, in_flight=self._rounds.in_flight)) is not None:
            self._wake.append(when)
        groups = self.cohort.group_id or self.cohort.old_groups
        if not self.nodes and not self._finished and self.cohort.closed and not groups:
            self._out.close()
            self._finished = True
        if (when := self._asking.next()) is not None:
            self._wake.append(when)
        return [*self._out.flush(), *self._asking.taken(), *([frame] if frame else []), *([feed] if feed else [])]

    def next_deadline(self) -> float | None:
        """When `to_send` has to be called though nothing came in; as of its last call."""
        return min(self._wake, default=None)

    def wake_at(self, when: float) -> None:
        """The shell has a reason of its own to call `to_send` then; forgotten by a later call."""
        self._retry_at = when

    # What the network server said.

    def group_created(self, group_id: str) -> None:
        self.cohort.group_id = group_id
        self._out.cohort_changed()

    def group_lost(self, now: float) -> None:
        """Somebody deleted the server's group."""
        self._rounds.refused(now, 0.0)
        self._out.replace_group(*self._new_group())
        for node in list(self.nodes.values()):
            if node.step in (Step.WINDOW, Step.RECEIVING) and not node.unicast:
                self._out.move(node, Step.GROUP)

    def group_deleted(self, group_id: str) -> None:
        if self.cohort.group_id == group_id:
            self._out.replace_group(*self._new_group())  # a node that is fed alone may need one again
        elif group_id in self.cohort.old_groups:
            self.cohort.old_groups.remove(group_id)
            self._out.cohort_changed()

    def multicast_done(self, now: float) -> None:
        self._rounds.done(now)

    def multicast_transmitted(self, n: int | None, sent: bool, now: float, reason: str = "") -> None:
        """What the gateways did with a frame that was taken, where that is known; `n`: of the fragment, None for a poll."""
        self._rounds.transmitted(n, sent, reason, now)

    def multicast_refused(self, now: float) -> None:
        """Not taken, or an earlier frame is still queued: the same frame again in a while."""
        self._rounds.refused(now, self.settings.retry_s)

    def multicast_busy(self, now: float, wait_s: float) -> None:
        self._rounds.refused(now, wait_s)

    def fed(self, dev_eui: str, frames: int, now: float) -> None:
        """So many frames of the last `Feed` were queued, from the first on."""
        if (node := self.nodes.get(dev_eui)) is not None:
            self._feeds.taken(node, frames, now)
            self._roster.touch(node)

    def feed_busy(self, dev_eui: str, now: float) -> None:
        """The node's queue was not empty: nothing was added."""
        if (node := self.nodes.get(dev_eui)) is not None:
            self._feeds.busy(node, now)

    def unicast_refused(self, dev_eui: str, now: float, name: str = "", *, sure: bool = True) -> None:
        """Not taken by the network server: it does not count as asked. Not `sure` where the call may have been cut off."""
        if (node := self._asked(dev_eui, name)) is not None:
            if sure and node.question == INSTALL:
                reboot.not_sent(node)
            node.asked = max(0, node.asked - 1)
            node.not_before = now + self.settings.retry_s
            self._roster.touch(node)

    def unicast_waits(self, dev_eui: str, name: str = "") -> None:
        """The same request waits in the node's queue since it was asked before: nothing was added."""
        if (node := self._asked(dev_eui, name)) is not None and node.step is Step.WINDOW:
            node.window_from = node.window_before

    def _asked(self, dev_eui: str, name: str) -> SessionNode | None:
        """The node, if the request of this name was a question to it, and is one still."""
        node = self.nodes.get(dev_eui)
        return node if node is not None and name in ("", node.question) else None

    def unicast_oversize(self, dev_eui: str, detail: str, now: float) -> None:
        """It would not fit the node's data rate: not sent, and tried again in a while."""
        self.unicast_refused(dev_eui, now)
        node = self.nodes.get(dev_eui)
        if node is not None and not node.stalled:
            node.stalled = True
            self._out.event(node, Fact.STALLED, now, code="data_rate", detail=detail)

    def impossible(self, dev_eui: str, detail: str, now: float) -> None:
        """The network server can never send to this node."""
        node = self.nodes.get(dev_eui)
        if node is not None and node.step not in (Step.FAILED, Step.DROPPING, Step.RUNNING):
            self._out.fail(node, now, "refused", detail)
        elif node is not None and node.step is Step.DROPPING:
            dropped(self._out, node, now, detail)

    # Data: the group, and single nodes.

    def _data(self, now: float) -> tuple[Multicast | None, Feed | None]:
        """One frame to the group, or a few to a single node."""
        if now < self.quiet_until:
            self._wake.append(self.quiet_until)
            return None, None
        frame = self._multicast(now)
        return frame, None if frame is not None or self._rounds.in_flight else self._feed(now)

    def _air(self, node: SessionNode) -> Air:
        if not node.unicast:
            return self._rounds.air()
        return self._feeds.air(node, quiet=not self._roster.count(Trait.DEMAND))

    def _feed(self, now: float) -> Feed | None:
        if not self._roster.count(Trait.FED):
            return None
        if (free_at := self._turn.free_at(now)) > now:
            self._wake.append(free_at)
            return None
        before = self.highest_sent
        feed, when = self._feeds.step(now)
        self._rounds.shift(self.highest_sent - before)
        if feed is None:
            if when is not None:
                self._wake.append(when)
            return None
        if self.nodes[feed.dev_eui].profile.always_on:
            self._turn.take(now, self.settings.unicast_gap_s * len(feed.frames))
        return feed

    def _multicast(self, now: float) -> Multicast | None:
        cohort, guard = self.cohort, self.settings.window_guard_s
        if not cohort.group_id or not cohort.closed or self._rounds.in_flight:
            return None
        if now >= cohort.window_end - guard:
            return None
        if now < cohort.window_start + guard:
            self._wake.append(cohort.window_start + guard)
            return None
        asked = self._roster.count(Step.WINDOW)
        if not cohort.data_started:
            if asked or self._roster.count(Step.GROUP):
                return None
            opens = max((node.window_from + guard for node in self._roster.of(Trait.DEMAND)), default=now)
            if now < opens:
                self._wake.append(opens)  # the window of who agreed last
                return None
        wait_for = cohort.window_start + max(self.settings.lead_s, self._roster.slowest_s(Step.WINDOW))
        if asked and now < wait_for:
            self._wake.append(wait_for)
            return None
        frame, when = self._rounds.next_frame(now)
        if when is not None:
            self._wake.append(when)
        return frame


def _install_at(directive: NodeDirective) -> float | None:
    return directive.install_at.timestamp() if directive.install_at is not None else None
