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
from radios.lorawan.answers import Air, answer, decode, dropped
from radios.lorawan.block_status import BlockStatus
from radios.lorawan.cohort import BlockSource, Cohort, SessionSettings, block_ack_delay_for
from radios.lorawan.counters import Counters
from radios.lorawan.feeds import Feeds
from radios.lorawan.keys import Key
from radios.lorawan.lessons import OWNER
from radios.lorawan.messages import Action, CreateGroup, DeleteGroup, Feed, Multicast, Release, Unicast
from radios.lorawan.network_server import Uplink
from radios.lorawan.outgoing import Outgoing, Remember
from radios.lorawan.questions import asks, question, session_start
from radios.lorawan.rounds import Pace, Rounds
from radios.lorawan.session_node import NEEDS_DATA, NodeProfile, SessionNode, Step
from radios.lorawan.silence import give_up
from radios.lorawan.unicast_air import UnicastAir
from radios.lorawan.windows import Windows, slowest_s
from radios.radio import Fact, NodeDirective, Want

_BACK_OFF = 1.5
_SAME_UPLINK_S = 0.3  # after an uplink a request still goes down with it
_PROMPT_EXPIRES_S = 10.0
_ANSWER_S = 5.0  # a class A node answers a request by an uplink of its own
_IMPATIENT = 12  # requests that are repeated with the first uplink that has no answer to them
_SILENT_INTERVALS = 3  # a node that did not speak for so many is asked by a request that waits in its queue
_PROMPTS_LOST = 6  # in a row without an answer: they are probably not lost, but late
_STEADY = 3  # requests before the back-off begins: a lost frame is no reason for it


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
        self.expecting = False  # more nodes are wanted that may still join: worth waiting for, within gather_s
        self._block = block
        self._turn = turn
        self._new_group = new_group
        self._out = Outgoing(cohort, mc_key, settings, new=nodes is None, remember=remember)
        self._out.nodes.update({node.dev_eui: node for node in nodes or ()})
        for node in self._out.nodes.values():
            node.block.unsent = cohort.unsent
        counters = Counters(self._out)
        self._feeds = Feeds(self._out, block, unicast, counters)
        self._rounds = Rounds(self._out, block, pace, port, counters, self._feeds)
        self._windows = Windows(self._out, self._rounds, self._feeds)
        self._unicast = unicast
        self._group_asked: float = 0.0
        self._wake: list[float] = []
        self._finished = False
        self._retry_at: float | None = None
        self._prompts_left = 0  # so many may go unanswered in a row; see `_in_time`

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
        self.nodes[profile.dev_eui] = node
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
            self._out.move(node, Step.DROPPING)
            if nothing_there:
                dropped(self._out, node, now)
        elif node.step is Step.FAILED and directive.want in (Want.DELIVER, Want.INSTALL):
            self._out.leave(node, Release(node.dev_eui, again=True, reason="retry"))
        elif node.not_before > now and node.step not in (Step.RUNNING, Step.CONFIRMING):
            node.ask_afresh()

    def give_root_key(self, dev_eui: str, root_key: Key) -> None:
        """Root keys are never journalled: the shell fetches them again after a crash."""
        self.nodes[dev_eui].root_key = root_key

    def keyless(self) -> list[str]:
        """Nodes whose root key is needed and not here."""
        return [dev_eui for dev_eui, node in self.nodes.items() if node.root_key is None and node.step in NEEDS_DATA]

    def refuse_install(self, dev_eui: str) -> None:
        """The daemon did not take the commit that begins an installation: wait for its next directive."""
        node = self.nodes.get(dev_eui)
        if node is not None:
            node.want = Want.DELIVER

    def hand_over(self, dev_eui: str, detail: str, now: float) -> None:
        """The node is another daemon's: nothing is asked of it any more. It may come back, unless all was done."""
        node = self.nodes.get(dev_eui)
        if node is None:
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
        node = self.nodes.get(uplink.dev_eui)
        if node is None:
            return False
        node.last_heard = now
        self._feeds.heard(node, now)
        if self._unicast is not None and not node.profile.always_on:
            rate = self._unicast.data_rate(uplink.data_rate, always_on=False)
            node.unicast_dr = node.unicast_dr if rate is None else rate
        decoded = decode(node, uplink.port, uplink.data)
        if decoded is None:
            return _asked_in_vain(node, now) or node.unicast  # an uplink takes something out of its queue
        node.stalled = False
        if node.chances > 0 and now <= node.asked_at + _PROMPT_EXPIRES_S:
            self._prompts_left = _PROMPTS_LOST
        received_at = uplink.received_at if uplink.received_at is not None else now
        for command in decoded.commands:
            if node.unsure:
                self._rounds.proved(node, command)
            if node.step is not Step.LEFT:
                answer(self._out, node, command, received_at, self._air(node), now)
        _asked_in_vain(node, now)
        return True

    def to_send(self, now: float) -> list[Action]:
        """What to do now, in this order. ImageError when the image cannot be read; nothing is lost by calling again."""
        self._wake = [self._retry_at] if self._retry_at is not None and self._retry_at > now else []
        if self._finished:
            return []
        for node in list(self.nodes.values()):
            if node.step is Step.READY:
                self._begin_install(node, now)
            if node.asked and node.not_before <= now:
                give_up(self._out, node, self.highest_sent, self.expires, now)
        if (when := self._windows.step(now, expecting=self.expecting, prompt=self._asks_by_uplink)) is not None:
            self._wake.append(when)
        asked = [action for node in list(self.nodes.values()) if (action := self._ask(node, now)) is not None]
        frame = self._multicast(now)
        feed = None if frame is not None or self._rounds.in_flight else self._feed(now)
        self._groups(now)
        groups = self.cohort.group_id or self.cohort.old_groups
        if not self.nodes and not self._finished and self.cohort.closed and not groups:
            self._out.close()
            self._finished = True
        return [*self._out.flush(), *asked, *([frame] if frame else []), *([feed] if feed else [])]

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
        """Somebody deleted the server's group: its counter is lost with it, so another address and key are needed."""
        self._rounds.refused(now, 0.0)
        self.cohort.group_id = ""
        self.cohort.group_serial += 1
        self.cohort.mc_addr, key = self._new_group()
        self._out.cohort_changed(key=key)
        for node in list(self.nodes.values()):
            if node.step in (Step.WINDOW, Step.RECEIVING) and not node.unicast:
                self._out.move(node, Step.GROUP)

    def group_deleted(self, group_id: str) -> None:
        if self.cohort.group_id == group_id:
            self.cohort.group_id = ""
            self._out.cohort_changed()
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

    def feed_busy(self, dev_eui: str, now: float) -> None:
        """The node's queue was not empty: nothing was added."""
        if (node := self.nodes.get(dev_eui)) is not None:
            self._feeds.busy(node, now)

    def unicast_refused(self, dev_eui: str, now: float) -> None:
        """Not taken by the network server: it does not count as asked."""
        node = self.nodes.get(dev_eui)
        if node is not None:
            node.asked = max(0, node.asked - 1)
            node.not_before = now + self.settings.retry_s

    def unicast_waits(self, dev_eui: str) -> None:
        """The same request waits in the node's queue since it was asked before: nothing was added."""
        node = self.nodes.get(dev_eui)
        if node is not None and node.step is Step.WINDOW:
            node.window_from = node.window_before

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

    # Steps of single nodes.

    def _begin_install(self, node: SessionNode, now: float) -> None:
        if node.want is not Want.INSTALL or node.unsure:
            return
        if not self._out.idle():
            return  # it has a commit of its own, which the daemon may refuse; the shell calls again at once
        if (begins_at := reboot.begins_at(node)) > now:
            self._wake.append(begins_at)
            return
        node.installing_since = now
        self._out.move(node, Step.INSTALLING)
        self._out.event(node, Fact.INSTALLING, now)
        if not node.profile.firmware_management:
            self._out.move(node, Step.CONFIRMING)  # nothing can tell it to start: it does by itself, or not at all

    def _ask(self, node: SessionNode, now: float) -> Unicast | None:
        if not asks(node) or (node.step is Step.WINDOW and not self.cohort.window_start):
            return None
        reboot.come(self._out, node, now)
        if (until := max(node.not_before, reboot.silent_until(node, self.settings.settle_s, now))) > now:
            self._wake.append(until)
            return None
        # A node that does not always listen is asked at its next uplink: until then the request waits in its queue.
        if node.profile.always_on and (free_at := self._turn.request_at(now)) > now:
            self._wake.append(free_at)
            return None
        heard_now = not node.profile.always_on and now <= node.last_heard + _SAME_UPLINK_S
        if not heard_now and (speaks_by := self._worth_waiting_for(node, now)) > now:
            self._wake.append(speaks_by)
            return None
        node.prompt = node.step is Step.WINDOW and heard_now and (self._in_time or node.asked % 2 == 0)
        wanted = question(node, self.cohort, self._out.mc_key, self._block, self.settings, now)
        if wanted is None:
            return None
        if node.prompt:
            self._prompts_left = max(0, self._prompts_left - 1)
        if node.profile.always_on:
            self._turn.take(now, self.settings.unicast_gap_s)
        if wanted.name != node.question:
            node.question, node.asked = wanted.name, 0
        if node.step is Step.WINDOW:
            node.window_before = node.window_from
            node.window_from = session_start(node, self.cohort, self.settings, now)
        if wanted.name == "install" and (node.asked % 2 == 0 or reboot.is_ahead(node, now)):
            node.reboots += 1
            node.told_at = node.install_at or 0.0 if reboot.is_ahead(node, now) else 0.0
            self._out.changed(node)
        most = max(self.settings.answer_timeout_most_s, node.profile.answer_timeout_s)
        wait = min(most, node.profile.answer_timeout_s * _BACK_OFF ** max(0, node.asked - _STEADY))
        node.asked += 1
        node.asked_at, node.not_before = now, now + wait
        node.chances = int(heard_now)
        if node.asked > self.settings.stalled_after and not node.stalled and node.step is not Step.RUNNING:
            node.stalled = True
            self._out.event(node, Fact.STALLED, now, code="silent", detail=f"no answer to {wanted.name}")
        self._wake.append(node.not_before)
        expires = now + _PROMPT_EXPIRES_S if node.prompt else node.not_before
        return Unicast(node.dev_eui, wanted.port, wanted.data, expires, wanted.name)

    @property
    def _in_time(self) -> bool:
        """The network server takes a request into the downlink that follows the uplink just heard, as far as answers tell."""
        return self._prompts_left > 0

    @property
    def _asks_by_uplink(self) -> bool:
        """A class B window begins with a beacon, up to 128 s later: nothing is won by asking late."""
        return self._in_time and self.cohort.ping_periodicity is None

    def _worth_waiting_for(self, node: SessionNode, now: float) -> float:
        """Until when a request for a window that has begun waits for the node's uplink: a start soon after it costs the cohort
        less time than the one that a request in the queue has to name, for the latest uplink that may take it."""
        if node.step is not Step.WINDOW or node.profile.always_on or not self._asks_by_uplink:
            return now
        silent_at = node.last_heard + _SILENT_INTERVALS * node.profile.answer_timeout_s
        return silent_at if self.cohort.window_start < now + node.profile.answer_timeout_s else now

    # Data: the group, and single nodes.

    def _air(self, node: SessionNode) -> Air:
        if not node.unicast:
            return self._rounds.air()
        return self._feeds.air(node, quiet=not any(other.in_demand for other in self.nodes.values()))

    def _feed(self, now: float) -> Feed | None:
        if (free_at := self._turn.free_at(now)) > now and any(node.fed for node in self.nodes.values()):
            self._wake.append(free_at)
            return None
        before = self.highest_sent
        feed, when = self._feeds.step(list(self.nodes.values()), now)
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
        if not cohort.data_started and any(node.step in (Step.GROUP, Step.WINDOW) for node in self.nodes.values()):
            return None
        opens = max((node.window_from + guard for node in self.nodes.values() if node.in_demand), default=now)
        if not cohort.data_started and now < opens:
            self._wake.append(opens)  # the window of who agreed last
            return None
        asked = [node for node in self.nodes.values() if node.step is Step.WINDOW]
        wait_for = cohort.window_start + max(self.settings.lead_s, slowest_s(asked))
        if asked and now < wait_for:
            self._wake.append(wait_for)
            return None
        frame, when = self._rounds.next_frame(list(self.nodes.values()), now)
        if when is not None:
            self._wake.append(when)
        return frame

    def _groups(self, now: float) -> None:
        """Make the server's group when data is near; delete it when nobody needs data any more and none is queued."""
        cohort = self.cohort
        needed = any(node.step in NEEDS_DATA and not node.unicast for node in self.nodes.values())
        done = not cohort.closed or needed == bool(cohort.group_id)
        if self._rounds.in_flight or (done and not cohort.old_groups):
            return
        if now < self._group_asked:
            self._wake.append(self._group_asked)
            return
        self._group_asked = now + self.settings.answer_timeout_s
        self._wake.append(self._group_asked)
        for group_id in cohort.old_groups:
            self._out.act(DeleteGroup(group_id))
        if done:
            return
        if needed:
            self._out.act(
                CreateGroup(
                    name=cohort.group_name,
                    region=cohort.region,
                    mc_addr=cohort.mc_addr,
                    mc_key=self._out.mc_key,
                    data_rate=cohort.data_rate,
                    frequency_hz=cohort.frequency_hz,
                    gateways=cohort.gateways,
                    dev_euis=tuple(self.nodes),
                    ping_periodicity=cohort.ping_periodicity,
                )
            )
        else:
            self._out.act(DeleteGroup(cohort.group_id))


def _asked_in_vain(node: SessionNode, now: float) -> bool:
    """Class A: an uplink without the answer, after one that the request went down with, means that one of them was lost."""
    if node.profile.always_on or not node.asked or now <= node.asked_at + _ANSWER_S:
        return False
    node.chances += 1
    if node.chances < 2 or node.asked >= _IMPATIENT:
        return False
    node.not_before = min(node.not_before, now)  # it goes down with this very uplink
    return True


def _install_at(directive: NodeDirective) -> float | None:
    return directive.install_at.timestamp() if directive.install_at is not None else None
