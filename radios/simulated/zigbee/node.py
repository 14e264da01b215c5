"""A virtual node: one endpoint with Basic, PowerConfiguration and an OTA client, on an A/B bootloader and perhaps a battery.

Sans-I/O: `receive(frame, now)`, `to_send()`, `next_deadline()`, `handle_timeout(now)`. It knows no mesh and no clock;
whether its frames arrive is the mesh's business.
"""

import random
from dataclasses import replace

from radios.simulated.zigbee import zcl_server, zdo
from radios.simulated.zigbee.bootloader import Bootloader, ResetCause, Slot
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.frames import (
    CLUSTER_BASIC,
    CLUSTER_OTA,
    CLUSTER_POWER,
    PROFILE_HOME_AUTOMATION,
    PROFILE_ZDO,
    ApsFrame,
    ota_request,
    parse_zcl,
    zcl_default_response,
)
from radios.simulated.zigbee.node_spec import Life, NodeEvent, NodeSpec, VersionChange
from radios.simulated.zigbee.ota_client import OtaClient
from radios.simulated.zigbee.ota_terms import OtaCounters, OtaState
from radios.simulated.zigbee.patch import patched
from radios.simulated.zigbee.poll_control import CHECK_IN, CLUSTER_POLL_CONTROL, PollControl

ENDPOINT = 1
_COORDINATOR_ENDPOINT = 1
_REMEMBERED_COUNTERS = 8
_REMEMBERED_S = 7.0  # beyond all APS retries of one frame
_INITIAL_IMAGE_BYTES = 2_000
_BATTERY_UNKNOWN = 0xFF
_CLUSTER_REVISION = 0xFFFD
CLUSTER_OWN = 0xFC01  # of the manufacturer
RESET_CAUSES = {ResetCause.POWER_ON: 1, ResetCause.WATCHDOG: 2, ResetCause.SOFT: 3}  # as its attribute 0 tells them


class VirtualNode:
    """One node. `power_on` starts it."""

    def __init__(self, spec: NodeSpec, nwk: int) -> None:
        self.spec = spec
        self.rng = random.Random(f"{spec.seed}/{spec.eui64:016x}")
        image = spec.image or build_ota_file(
            manufacturer=spec.manufacturer_code,
            image_type=spec.image_type,
            version=spec.version,
            size=_INITIAL_IMAGE_BYTES,
            seed="as shipped",
        )
        self.bootloader = Bootloader(image, spec.version)
        self.life = Life.DOWN
        self.joined = spec.joined
        self.battery_percent = spec.battery_percent
        self.version_history: list[VersionChange] = []
        self.resets = 0
        self.zdo = zdo.ZdoServer(
            eui64=spec.eui64,
            nwk=nwk,
            manufacturer=spec.manufacturer_code,
            endpoint=ENDPOINT,
            mains=spec.battery_percent is None,
            sleepy=spec.sleepy,
            more_inputs=(
                *(() if spec.check_in_s is None else (CLUSTER_POLL_CONTROL,)),
                *((CLUSTER_OWN,) if spec.tells_reset_cause else ()),
            ),
        )
        self.polls = PollControl(spec.check_in_s, spec.poll_s, spec.fast_poll_s)
        self.ota = OtaClient(
            eui64=spec.eui64,
            manufacturer=spec.manufacturer_code,
            image_type=spec.image_type,
            hardware_version=spec.hardware_version,
            verify=spec.verify,
            rebuild=lambda file: patched(file, self.running_image, spec.delta_formats),
            rng=self.rng,
            timing=spec.timing,
            block_size=spec.block_size,
            slot_size=spec.slot_size,
            habits=replace(
                spec.habits,
                apply_without_answer=spec.apply_without_answer or spec.habits.apply_without_answer,
                query_after_giving_up=spec.query_after_giving_up or spec.habits.query_after_giving_up,
            ),
        )
        self.zcl = zcl_server.ZclServer(self._attributes(), specific=self._own_attributes())
        self._out: list[ApsFrame] = []
        self._events: list[NodeEvent] = []
        self._sequence = self.rng.randrange(256)
        self._counter = self.rng.randrange(256)
        self._life_ends: float | None = None
        self._reset_cause = ResetCause.POWER_ON
        self._heard: list[tuple[int, float]] = []  # APS counters and when
        self._poll_anchor = 0.0

    # ---- what others may look at

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def nwk(self) -> int:
        return self.zdo.nwk

    @nwk.setter
    def nwk(self, value: int) -> None:
        self.zdo.nwk = value

    @property
    def running_image(self) -> bytes:
        """The OTA file that runs, byte for byte as it was received."""
        return self.bootloader.current.image

    @property
    def running_version(self) -> int:
        return self.bootloader.current.version

    @property
    def slots(self) -> dict[str, Slot | None]:
        return self.bootloader.slots

    @property
    def counters(self) -> OtaCounters:
        return self.ota.counters

    @property
    def listens(self) -> bool:
        """Whether its receiver can take a frame (a sleepy node: when it polls)."""
        return self.joined and self.life in (Life.UP, Life.TESTING)

    # ---- power and resets

    def power_on(self, now: float) -> None:
        """Boot from flash, as after a battery change."""
        self._boot(ResetCause.POWER_ON, now)

    def power_off(self) -> None:
        """All but flash is lost."""
        self.ota.power_cycle()
        self.life = Life.DOWN
        self._life_ends = None
        self._out.clear()

    def reboot(self, now: float, cause: ResetCause = ResetCause.SOFT) -> None:
        """Off now, on again after `reboot_s`."""
        self.power_off()
        self._reset_cause = cause
        self._life_ends = now + self.spec.reboot_s

    # ---- sans-I/O

    def receive(self, frame: ApsFrame, now: float) -> None:
        """Take a frame that arrived. Nonsense is answered or dropped."""
        if not self.listens:
            return
        self._drain(frame)
        if not frame.broadcast:
            if any(counter == frame.counter and now - at < _REMEMBERED_S for counter, at in self._heard):
                return
            self._heard.append((frame.counter, now))
            del self._heard[:-_REMEMBERED_COUNTERS]
        if frame.destination_endpoint == 0 or frame.profile == PROFILE_ZDO:
            self._receive_zdo(frame)
        elif frame.destination_endpoint in (ENDPOINT, 0xFF):
            self._receive_zcl(frame, now)
        self._after_ota(now)

    def to_send(self) -> list[ApsFrame]:
        """Frames for the coordinator; drained."""
        out, self._out = self._out, []
        for frame in out:
            self._drain(frame)
        return out

    def take_events(self) -> list[NodeEvent]:
        events, self._events = self._events, []
        return events

    def next_deadline(self) -> float | None:
        up = (self.ota.next_deadline(), self.polls.next_check_in) if self.life is Life.UP else ()
        return min((at for at in (*up, self._life_ends) if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        if self._life_ends is not None and now >= self._life_ends:
            self._life_ends = None
            self._next_life(now)
        if self.life is Life.UP:
            self.ota.handle_timeout(now)
            self._after_ota(now)
            if self.polls.is_due(now, bound=self.spec.checks_in_unbound or self.zdo.is_bound(CLUSTER_POLL_CONTROL)):
                check_in = bytes((0x09, self._next_sequence(), CHECK_IN))
                self._send(PROFILE_HOME_AUTOMATION, CLUSTER_POLL_CONTROL, check_in)
                self._poll_anchor = now

    def next_poll(self, now: float) -> float:
        """When a sleepy node asks its parent for waiting frames next; `now` for one that always listens."""
        if not self.spec.sleepy:
            return now
        fast = self.ota.awaits_answer or self.polls.polls_fast(now)
        interval = self.spec.fast_poll_s if fast else self.spec.poll_s
        periods = max(0.0, now - self._poll_anchor) // interval + 1
        return self._poll_anchor + periods * interval

    def report(self, cluster: int, attribute: int) -> None:
        """Queue an attribute report to the coordinator. KeyError when there is no such attribute."""
        self._out.append(self.report_frame(cluster, attribute))

    def report_frame(self, cluster: int, attribute: int) -> ApsFrame:
        """The frame of an attribute report, for who sends it himself. KeyError when there is no such attribute."""
        return self._frame(PROFILE_HOME_AUTOMATION, cluster, self.zcl.report(cluster, attribute, self._next_sequence()))

    def ask_specific_file(self, version: int, now: float) -> None:
        """Queue a QuerySpecificFileRequest; the answer's status is added to `ota.specific_answers`."""
        self.ota.ask_specific_file(version)
        self._after_ota(now)

    def announce(self) -> None:
        """Queue a Device_annce broadcast."""
        cluster, payload = self.zdo.announce(self._next_sequence())
        self._send(PROFILE_ZDO, cluster, payload, broadcast=True)

    def leave(self) -> None:
        """Forget the network. Flash keeps firmware and download."""
        self.ota.power_cycle()
        self.life = Life.LEFT
        self.joined = False
        self._life_ends = None
        self._events.append(NodeEvent.LEFT)

    # ---- within

    def _receive_zdo(self, frame: ApsFrame) -> None:
        answer = self.zdo.answer(frame.cluster, frame.payload, broadcast=frame.broadcast)
        if answer is not None:
            self._send(PROFILE_ZDO, answer[0], answer[1])
        if frame.cluster == zdo.MGMT_LEAVE and not frame.broadcast:
            if frame.payload[9:10] and frame.payload[9] & 0x80:  # leave and rejoin
                self._events.append(NodeEvent.REJOINED)
                self.announce()
            else:
                self.leave()

    def _receive_zcl(self, frame: ApsFrame, now: float) -> None:
        request = parse_zcl(frame.payload)
        if request is None:
            return
        if frame.cluster == CLUSTER_OTA and request.cluster_specific and self.life is not Life.UP:
            return  # on trial: the OTA client does not run yet
        if not request.cluster_specific:
            if request.command == zcl_server.DEFAULT_RESPONSE:
                if frame.cluster == CLUSTER_OTA and len(request.payload) >= 2:
                    self.ota.default_response(request.payload[0], request.payload[1], now)
                return
            answer = self.zcl.answer(frame.cluster, request)
        elif frame.cluster == CLUSTER_OTA and request.to_client and request.manufacturer is None:
            status = self.ota.receive(request.command, request.payload, now, broadcast=frame.broadcast)
            answer = None if status is None else zcl_default_response(request, status)
        elif frame.cluster == CLUSTER_POLL_CONTROL and self.polls.next_check_in is not None and not request.to_client:
            done = self.polls.receive(request.command, request.payload, now)
            quiet = request.disable_default_response and done == 0
            answer = None if quiet else zcl_default_response(request, done)
        else:
            known = frame.cluster in self.zcl.clusters
            status = zcl_server.UNSUP_CLUSTER_COMMAND if known else zcl_server.UNSUPPORTED_CLUSTER
            answer = zcl_default_response(request, status)
        if answer is not None and not frame.broadcast:
            self._send(frame.profile, frame.cluster, answer)

    def _after_ota(self, now: float) -> None:
        for command, payload in self.ota.to_send():
            self._send(PROFILE_HOME_AUTOMATION, CLUSTER_OTA, ota_request(self._next_sequence(), command, payload))
            self._poll_anchor = now
        image = self.ota.take_install()
        if image is not None:
            self.bootloader.stage(image)
            self.bootloader.request_swap()
            self.reboot(now)

    def _boot(self, cause: ResetCause, now: float) -> None:
        self.ota.power_cycle()
        self.resets += 1
        self.bootloader.reset(cause)
        version = self.running_version
        if not self.version_history or self.version_history[-1].version != version:
            if self.version_history and self.spec.forgets_configuration:
                self.zdo.bindings.clear()
                self.zcl.reporting.clear()
            self.version_history.append(VersionChange(now, version, cause))
        self._heard.clear()
        self._poll_anchor = now
        if self.joined:
            self._events.append(NodeEvent.REJOINED)
            self.announce()
        if self.bootloader.on_trial:
            self.life = Life.TESTING
            self._life_ends = now + self.spec.self_test_s
        else:
            self._run(now)

    def _next_life(self, now: float) -> None:
        match self.life:
            case Life.TESTING if self.spec.self_test_fails:
                self.life = Life.HUNG
                self._life_ends = now + self.spec.watchdog_s
            case Life.TESTING:
                self.bootloader.confirm()
                self._run(now)
            case Life.HUNG:
                self.reboot(now, ResetCause.WATCHDOG)
            case Life.DOWN:
                self._boot(self._reset_cause, now)
            case _:
                pass

    def _run(self, now: float) -> None:
        """The application starts: only now the OTA client does, so no query claims a version that is still on trial."""
        self.life = Life.UP
        self._life_ends = None
        self.ota.start(now, self.running_version)
        self.polls.start(now)

    def _send(self, profile: int, cluster: int, payload: bytes, *, broadcast: bool = False) -> None:
        self._out.append(self._frame(profile, cluster, payload, broadcast=broadcast))

    def _frame(self, profile: int, cluster: int, payload: bytes, *, broadcast: bool = False) -> ApsFrame:
        self._counter = (self._counter + 1) % 256
        endpoint = 0 if profile == PROFILE_ZDO else ENDPOINT
        remote = 0 if profile == PROFILE_ZDO else _COORDINATOR_ENDPOINT
        return ApsFrame(profile, cluster, endpoint, remote, payload, self._counter, broadcast)

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    def _drain(self, frame: ApsFrame) -> None:
        if self.battery_percent is not None:
            used = self.spec.battery_drain_percent_per_kb * frame.air_bytes / 1000
            self.battery_percent = max(0.0, self.battery_percent - used)

    def _attributes(self) -> dict[int, dict[int, zcl_server.Attribute]]:
        spec, attribute = self.spec, zcl_server.Attribute
        u8, enum8 = zcl_server.U8, zcl_server.ENUM8
        power: dict[int, zcl_server.Attribute] = {}
        if spec.battery_percent is not None:
            power = {0x0020: attribute(u8, lambda: 30), 0x0021: attribute(u8, self._half_percent)}
        return {
            CLUSTER_BASIC: {
                0x0000: attribute(u8, lambda: 3),
                0x0003: attribute(u8, lambda: spec.hardware_version or 0),
                0x0004: attribute(zcl_server.STRING, lambda: spec.manufacturer),
                0x0005: attribute(zcl_server.STRING, lambda: spec.model),
                0x0007: attribute(enum8, lambda: 0x01 if spec.battery_percent is None else 0x03),
                0x4000: attribute(zcl_server.STRING, lambda: f"{self.running_version:08x}"),
            },
            CLUSTER_POWER: power,
            CLUSTER_OTA: self._ota_attributes(),
            CLUSTER_POLL_CONTROL: self.polls.attributes(),
            **({CLUSTER_OWN: {}} if spec.tells_reset_cause else {}),
        }

    def _own_attributes(self) -> dict[tuple[int, int], dict[int, zcl_server.Attribute]]:
        """Of the manufacturer: why the node was last reset."""
        told = zcl_server.Attribute(zcl_server.ENUM8, lambda: RESET_CAUSES[self.bootloader.reset_cause])
        return {(self.spec.manufacturer_code, CLUSTER_OWN): {0x0000: told}} if self.spec.tells_reset_cause else {}

    def _ota_attributes(self) -> dict[int, zcl_server.Attribute]:
        spec, ota, attribute = self.spec, self.ota, zcl_server.Attribute
        u16, u32, enum8 = zcl_server.U16, zcl_server.U32, zcl_server.ENUM8
        habits = spec.habits
        found = {
            0x0000: attribute(zcl_server.EUI64, lambda: 0xFFFF_FFFF_FFFF_FFFF),
            0x0001: attribute(u32, lambda: ota.download.file_offset),
            0x0002: attribute(u32, lambda: self.running_version),
            0x0004: attribute(u32, lambda: ota.download.version),
            0x0006: attribute(enum8, lambda: ota.upgrade_status),
            0x0007: attribute(u16, lambda: spec.manufacturer_code),
            0x0008: attribute(u16, lambda: spec.image_type),
        }
        if habits.minimum_block_period is not None:
            found[0x0009] = attribute(u16, lambda: ota.minimum_block_period)
        if habits.cluster_revision is not None:
            found[_CLUSTER_REVISION] = attribute(u16, lambda: habits.cluster_revision or 0)
        return {number: a for number, a in found.items() if number not in habits.absent_attributes}

    def _half_percent(self) -> int:
        return _BATTERY_UNKNOWN if self.battery_percent is None else min(200, round(self.battery_percent * 2))


def describe_state(node: VirtualNode) -> str:
    """One word for people: what the node is doing."""
    if node.life is not Life.UP:
        return node.life.value
    return "idle" if node.ota.state is OtaState.IDLE else node.ota.state.value
