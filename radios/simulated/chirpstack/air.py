"""The air between gateways and nodes: one transmission at a time, duty cycle, loss, deafness while sending.

A gateway is half-duplex: uplinks that overlap one of its transmissions are lost. It keeps the sub-band's duty cycle over
a sliding hour and refuses what would exceed it. Every frame towards a node is lost with that node's probability, every
uplink with its own, in bursts where its spec says so; two uplinks on one frequency and data rate that overlap are both lost.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from radios.simulated.chirpstack.agenda import Agenda
from radios.simulated.lorawan.link_loss import LinkLoss
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.phy import PHY_OVERHEAD_BYTES, Activation, Downlink, JoinRequest, Uplink
from radios.simulated.lorawan.region import HIGHEST_HZ, LOWEST_HZ, sub_band, time_on_air_s

_DUTY_WINDOW_S = 3600.0
_QUEUE_LIMIT = 32
_JOIN_ACCEPT_BYTES = 17
_JOIN_REQUEST_BYTES = 23
_LEAST_STEP_S = 0.01


class TxStatus(StrEnum):
    """gw.TxAckStatus of a transmission request."""

    OK = "OK"
    IGNORED = "IGNORED"
    TOO_LATE = "TOO_LATE"
    TX_FREQ = "TX_FREQ"
    COLLISION_PACKET = "COLLISION_PACKET"
    QUEUE_FULL = "QUEUE_FULL"
    DUTY_CYCLE_OVERFLOW = "DUTY_CYCLE_OVERFLOW"


@dataclass(frozen=True, slots=True)
class Transmission:
    start: float
    end: float
    band: str


@dataclass(slots=True)
class Gateway:
    """One transmitter and its ledger of the last hour."""

    gateway_id: str
    enforce_duty_cycle: bool = True
    transmissions: deque[Transmission] = field(default_factory=deque)
    statuses: Counter[str] = field(default_factory=Counter)
    airtime_s: float = 0.0
    refuse_next: deque[TxStatus] = field(default_factory=deque)  # answers to the next requests, whatever they are
    refused_share: float = 0.0  # of requests to send at once: its host was too slow for them
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def request(self, duration_s: float, frequency_hz: int, now: float, at: float | None) -> tuple[TxStatus, float]:
        """Take a transmission at `at`, or as soon as the transmitter is free; the second value is its start."""
        self._forget(now)
        start = max(now, self._free_at(now)) if at is None else at
        status = self._refusal(start, duration_s, frequency_hz, now)
        if at is None and self.refused_share and self.dice.random() < self.refused_share:
            status = self.dice.choice((TxStatus.TOO_LATE, TxStatus.COLLISION_PACKET))
        self.statuses[status] += 1
        if status is TxStatus.OK:
            band = sub_band(frequency_hz)
            self.transmissions.append(Transmission(start, start + duration_s, band.name))
            self.airtime_s += duration_s
        return status, start

    def sends_during(self, start: float, end: float) -> bool:
        return any(t.start < end and start < t.end for t in self.transmissions)

    def airtime_in_window_s(self, band: str, at: float) -> float:
        """Seconds sent in this sub-band in the hour before `at`, what is planned included."""
        return sum(t.end - t.start for t in self.transmissions if t.band == band and t.end > at - _DUTY_WINDOW_S)

    def _refusal(self, start: float, duration_s: float, frequency_hz: int, now: float) -> TxStatus:
        if self.refuse_next:
            return self.refuse_next.popleft()
        if start < now:
            return TxStatus.TOO_LATE
        if not LOWEST_HZ <= frequency_hz < HIGHEST_HZ:
            return TxStatus.TX_FREQ
        if self.sends_during(start, start + duration_s):
            return TxStatus.COLLISION_PACKET
        if sum(t.start > now for t in self.transmissions) >= _QUEUE_LIMIT:
            return TxStatus.QUEUE_FULL
        band = sub_band(frequency_hz)
        used_s = self.airtime_in_window_s(band.name, start) + duration_s
        if self.enforce_duty_cycle and used_s > band.duty_cycle * _DUTY_WINDOW_S:
            return TxStatus.DUTY_CYCLE_OVERFLOW
        return TxStatus.OK

    def _free_at(self, now: float) -> float:
        return max((t.end for t in self.transmissions), default=now)

    def _forget(self, now: float) -> None:
        while self.transmissions and self.transmissions[0].end <= now - _DUTY_WINDOW_S:
            self.transmissions.popleft()


@dataclass(slots=True)
class NodeAir:
    """What happened to one node's frames on the way."""

    downlinks_heard: int = 0
    downlinks_lost: int = 0
    uplinks_sent: int = 0
    uplinks_lost: int = 0


@dataclass(frozen=True, slots=True)
class _OnAir:
    start: float
    end: float
    frequency_hz: int
    data_rate: int
    dev_eui: str


UplinkSink = Callable[[Uplink | JoinRequest, Sequence[str], float], None]
"""An uplink, the gateways that received it, and when it ended."""


class Air:
    def __init__(self, agenda: Agenda, gateways: Sequence[Gateway], seed: int = 0) -> None:
        self.gateways = {gateway.gateway_id: gateway for gateway in gateways}
        self.nodes: dict[str, VirtualNode] = {}
        self.counters: dict[str, NodeAir] = {}
        self._agenda = agenda
        self._seed = seed
        self._loss: dict[tuple[str, str], LinkLoss] = {}  # by DevEUI and direction
        self._wakes: dict[str, float] = {}
        self._on_air: deque[_OnAir] = deque()
        self._sink: UplinkSink | None = None

    def start(self, nodes: Mapping[str, VirtualNode], sink: UplinkSink) -> None:
        """Let the nodes (by DevEUI) live; what gateways receive goes to `sink`."""
        self._sink = sink
        for dev_eui, node in nodes.items():
            self.nodes[dev_eui] = node
            self.counters[dev_eui] = NodeAir()
            chance, spec = random.Random(f"{self._seed}/{dev_eui}/air"), node.spec
            self._loss[dev_eui, "down"] = LinkLoss(chance, spec.downlink_loss, spec.loss_burst_frames)
            self._loss[dev_eui, "up"] = LinkLoss(chance, spec.uplink_loss, spec.loss_burst_frames)
            self._wake_later(dev_eui)

    def transmit(self, gateway_id: str, frame: Downlink, now: float, at: float | None = None) -> TxStatus:
        """Ask a gateway to send a frame at `at`, or as soon as it can."""
        duration_s = time_on_air_s(len(frame.phy), frame.data_rate, crc=False)
        status, start = self.gateways[gateway_id].request(duration_s, frame.frequency_hz, now, at)
        if status is TxStatus.OK:
            end = start + duration_s
            self._agenda.at(end, lambda when: self._deliver(gateway_id, frame, start, when))
        return status

    def transmit_join_accept(
        self, gateway_id: str, dev_eui: str, activation: Activation, request: JoinRequest, now: float, at: float
    ) -> None:
        """The answer to a join request; its session travels beside the frame."""
        duration_s = time_on_air_s(_JOIN_ACCEPT_BYTES, request.data_rate, crc=False)
        status, _ = self.gateways[gateway_id].request(duration_s, request.frequency_hz, now, at)
        if status is TxStatus.OK:
            self._agenda.at(at + duration_s, lambda when: self._deliver_join(dev_eui, activation, when))

    def _deliver(self, gateway_id: str, frame: Downlink, start: float, now: float) -> None:
        for dev_eui, node in self.nodes.items():
            if not self._in_reach(node, gateway_id) or not node.listens(frame.frequency_hz, frame.data_rate, start):
                continue
            if self._loss[dev_eui, "down"].lost():
                self.counters[dev_eui].downlinks_lost += 1
                continue
            self.counters[dev_eui].downlinks_heard += 1
            node.receive_downlink(frame, now)
            self._wake_later(dev_eui)

    def _deliver_join(self, dev_eui: str, activation: Activation, now: float) -> None:
        node = self.nodes[dev_eui]
        if not node.joined and not self._loss[dev_eui, "down"].lost():
            node.accept_join(activation, now)
            self._wake_later(dev_eui)

    def _wake_later(self, dev_eui: str) -> None:
        when = max(self.nodes[dev_eui].next_deadline(), self._agenda.now + _LEAST_STEP_S)
        planned = self._wakes.get(dev_eui)
        if planned is None or when < planned:
            self._wakes[dev_eui] = when
            self._agenda.at(when, lambda now: self._wake(dev_eui, now))

    def _wake(self, dev_eui: str, now: float) -> None:
        if self._wakes.get(dev_eui) != now:
            return  # an earlier wake has taken its place
        del self._wakes[dev_eui]
        node = self.nodes[dev_eui]
        node.handle_timeout(now)
        for uplink in node.to_send(now):
            self._send_up(uplink, now)
        self._wake_later(dev_eui)

    def _send_up(self, uplink: Uplink | JoinRequest, now: float) -> None:
        size = len(uplink.payload) + PHY_OVERHEAD_BYTES if isinstance(uplink, Uplink) else _JOIN_REQUEST_BYTES
        end = now + time_on_air_s(size, uplink.data_rate, crc=True)
        sent = _OnAir(now, end, uplink.frequency_hz, uplink.data_rate, uplink.dev_eui)
        while self._on_air and self._on_air[0].end < now - 60:
            self._on_air.popleft()
        self._on_air.append(sent)
        self.counters[uplink.dev_eui].uplinks_sent += 1
        self._agenda.at(end, lambda when: self._receive_up(uplink, sent, when))

    def _receive_up(self, uplink: Uplink | JoinRequest, sent: _OnAir, now: float) -> None:
        node = self.nodes[uplink.dev_eui]
        lost = self._loss[uplink.dev_eui, "up"].lost() or self._collides(sent)
        received = [
            gateway.gateway_id
            for gateway in self.gateways.values()
            if self._in_reach(node, gateway.gateway_id) and not gateway.sends_during(sent.start, sent.end)
        ]
        if lost or not received or self._sink is None:
            self.counters[uplink.dev_eui].uplinks_lost += 1
            return
        self._sink(uplink, received, now)

    def _collides(self, sent: _OnAir) -> bool:
        return any(
            other.dev_eui != sent.dev_eui
            and (other.frequency_hz, other.data_rate) == (sent.frequency_hz, sent.data_rate)
            and other.start < sent.end
            and sent.start < other.end
            for other in self._on_air
        )

    def _in_reach(self, node: VirtualNode, gateway_id: str) -> bool:
        return not node.spec.gateways or gateway_id in node.spec.gateways
