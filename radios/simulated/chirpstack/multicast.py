"""Multicast groups and their queue, with ChirpStack's habits: counters are the server's, refusals are silent."""

import math
import random
from collections.abc import Callable, Mapping

from radios.simulated.chirpstack.agenda import Agenda
from radios.simulated.chirpstack.air import Air
from radios.simulated.chirpstack.model import (
    ApiCode,
    ApiError,
    Device,
    Group,
    GroupQueueItem,
    GroupSettings,
    GroupType,
    Scheduling,
)
from radios.simulated.lorawan.node_clock import gps_of_unix
from radios.simulated.lorawan.phy import Activation, Downlink, build_downlink
from radios.simulated.lorawan.ping_slots import next_ping_slot
from radios.simulated.lorawan.region import max_frm_payload_bytes

_SCHEDULER_INTERVAL_S = 1.0
_LOCK_S = 2.0  # an item without an acknowledgement is sent again after it
_AT_ONCE_S = 0.01

Say = Callable[[str, tuple[Downlink, ...], tuple[str, ...]], bool]
"""What a gateway was given and did; False when its acknowledgement was lost."""


class MulticastGroups:
    def __init__(self, agenda: Agenda, air: Air, devices: Mapping[str, Device], margin_s: float, say: Say) -> None:
        self.groups: dict[str, Group] = {}
        self.dropped_oversize = 0
        self.dropped_refused = 0
        self.sent_again = 0  # no acknowledgement came
        self.f_cnts_reused = 0  # a frame counter used twice under one key, in whatever group: never to happen
        self._used: set[tuple[bytes, int]] = set()
        self._say = say
        self._stalled_until = 0.0
        self._random = random.Random(0)
        self._agenda = agenda
        self._air = air
        self._devices = devices
        self._margin_s = margin_s

    def create(self, group_id: str, settings: GroupSettings) -> None:
        now = self._agenda.now
        self.groups[group_id] = Group(group_id, settings, now, now)

    def get(self, group_id: str) -> Group:
        try:
            return self.groups[group_id]
        except KeyError:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {group_id})") from None

    def update(self, group_id: str, settings: GroupSettings) -> None:
        group = self.get(group_id)
        group.settings = settings
        group.updated_at = self._agenda.now

    def delete(self, group_id: str) -> None:
        """What is queued is dropped with it."""
        self.get(group_id)
        del self.groups[group_id]

    def add_device(self, group_id: str, dev_eui: str) -> None:
        group = self.get(group_id)
        if dev_eui not in self._devices:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {dev_eui})")
        if dev_eui in group.devices:
            raise ApiError(ApiCode.INTERNAL, "duplicate key value violates unique constraint")
        group.devices.add(dev_eui)

    def remove_device(self, group_id: str, dev_eui: str) -> None:
        group = self.get(group_id)
        if dev_eui not in group.devices:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {dev_eui})")
        group.devices.remove(dev_eui)

    def add_gateway(self, group_id: str, gateway_id: str) -> None:
        group = self.get(group_id)
        if gateway_id not in self._air.gateways:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {gateway_id})")
        if gateway_id in group.gateways:
            raise ApiError(ApiCode.INTERNAL, "duplicate key value violates unique constraint")
        group.gateways.add(gateway_id)

    def remove_gateway(self, group_id: str, gateway_id: str) -> None:
        group = self.get(group_id)
        if gateway_id not in group.gateways:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {gateway_id})")
        group.gateways.remove(gateway_id)

    def enqueue(self, group_id: str, f_port: int, data: bytes, expires_at: float | None) -> int:
        """The counter that the item was given, also when no gateway is there to send it."""
        group, emit_at = self.get(group_id), None
        if not 1 <= f_port <= 255:
            raise ApiError(ApiCode.INVALID_ARGUMENT, "f_port must be between 1 - 255")
        group.settings.f_cnt += 1
        f_cnt = group.settings.f_cnt
        self.f_cnts_reused += (group.settings.mc_app_s_key, f_cnt) in self._used
        self._used.add((group.settings.mc_app_s_key, f_cnt))
        together = group.settings.scheduling is Scheduling.GPS_TIME
        if together:
            run_after = max([self._agenda.now, *(item.run_after for item in group.queue)]) + self._margin_s
        if group.settings.group_type is GroupType.CLASS_B:
            emit_at = self._next_ping_slot(group)
            together, run_after = True, emit_at - 2 * _SCHEDULER_INTERVAL_S
        for gateway_id in sorted(group.gateways or self._gateways_of_devices(group)):
            if not together:
                run_after = self._next_slot(group)
            item = GroupQueueItem(f_cnt, f_port, data, expires_at, gateway_id, run_after, emit_at)
            group.queue.append(item)
            tick = math.ceil(run_after / _SCHEDULER_INTERVAL_S) * _SCHEDULER_INTERVAL_S
            tick = max(tick, self._agenda.now)
            self._agenda.at(tick, lambda now, item=item: self._send(group, item, now))  # type: ignore[misc]
        return f_cnt

    def stall(self, seconds: float) -> None:
        """The scheduler does nothing for so long, as on a busy database."""
        self._stalled_until = self._agenda.now + seconds

    def flush_queue(self, group_id: str) -> None:
        self.get(group_id).queue.clear()

    def list_queue(self, group_id: str) -> list[GroupQueueItem]:
        """One item per counter, however many gateways it waits for."""
        return list({item.f_cnt: item for item in self.get(group_id).queue}.values())

    def _next_slot(self, group: Group) -> float:
        """Nothing waits: now. Else the margin behind the last one."""
        if not group.queue:
            return self._agenda.now
        return max(item.run_after for item in group.queue) + self._margin_s

    def _next_ping_slot(self, group: Group) -> float:
        """Unix seconds: the group's next one behind all that waits, or behind now and the margin."""
        waiting = [item.emit_at for item in group.queue if item.emit_at is not None]
        after = gps_of_unix(max(waiting) if waiting else self._agenda.now + self._margin_s)
        slot = next_ping_slot(after, group.settings.mc_addr, group.settings.class_b_ping_slot_periodicity)
        return slot - gps_of_unix(0.0)

    def _gateways_of_devices(self, group: Group) -> set[str]:
        """Without a list: gateways that heard the members; none heard, none used."""
        heard = (self._devices[dev_eui].last_gateways for dev_eui in group.devices)
        return {gateways[0] for gateways in heard if gateways}

    def _send(self, group: Group, item: GroupQueueItem, now: float) -> None:
        if self.groups.get(group.id) is not group or item not in group.queue:
            return
        if now < self._stalled_until:
            # What is overdue is sent by tasks of its own, all at once: in any order.
            again_at = self._stalled_until + self._random.random() * _AT_ONCE_S
            self._agenda.at(again_at, lambda when: self._send(group, item, when))
            return
        if item.expires_at is not None and item.expires_at < now:
            group.queue.remove(item)
            return
        settings = group.settings
        if len(item.data) > max_frm_payload_bytes(settings.data_rate):
            group.queue.remove(item)
            self.dropped_oversize += 1
            return
        session = Activation(settings.mc_addr, settings.mc_nwk_s_key, settings.mc_app_s_key)
        phy = build_downlink(session, item.f_cnt, item.f_port, item.data)
        frame = Downlink(phy, settings.frequency_hz, settings.data_rate)
        status = self._air.transmit(item.gateway_id, frame, now, item.emit_at)
        self.dropped_refused += status != "OK"
        if self._say(item.gateway_id, (frame,), (status,)):
            group.queue.remove(item)  # on any gateway answer, good or bad; the integrations hear nothing
            return
        self.sent_again += 1
        self._agenda.at(now + _LOCK_S, lambda when: self._send(group, item, when))
