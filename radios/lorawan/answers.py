"""What an uplink of one node means for its steps. PURE.

Not here: what is asked (`questions`), and what the answers of all nodes mean for the next round (`rounds`).
"""

from dataclasses import dataclass, replace

from radios.lorawan import reboot
from radios.lorawan.cohort import FRAG_INDEX
from radios.lorawan.messages import Release, Unicast
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import clock_sync, codec, firmware_management, fragmentation, multicast
from radios.lorawan.packages.firmware_management import UpImageStatus
from radios.lorawan.session_node import SessionNode, Step
from radios.radio import Fact

_ACK_EXPIRES_S = 60.0
_AFTER_RESYNC_S = 10.0
_WINDOW_ERRORS_MOST = 3
_RESYNCS_MOST = 2
_WINDOWS_REFUSED_MOST = 24  # in one session: a clock beyond all means
_AHEAD_LEAST_S = 60.0
_WITHOUT_SESSION_MOST = 3
_OF_FIRMWARE = (firmware_management.DevVersionAns, firmware_management.DevUpgradeImageAns)
_BEFORE_BLOCK = frozenset({Step.GROUP, Step.BLOCK})
_WRAP_RISK = 128  # from so many missing on, "0 missing" may be 256


@dataclass(frozen=True, slots=True)
class Air:
    """What was on the air when an answer came."""

    highest: int  # counter sent
    poll: int  # number of the last poll
    still: bool  # the poll was the last thing sent
    polled: int | None = None  # counter sent at the last poll, which answers that come later are about; None: the same

    def told_at(self, *, alone: bool) -> int:
        """The counter that a status answer is about; `alone`: the node was asked by itself, just now."""
        return self.highest if alone or self.polled is None else min(self.polled, self.highest)


def decode(node: SessionNode, port: int, data: bytes) -> codec.Decoded[codec.Command] | None:
    """The commands of an uplink, by the versions that the node told; None: not a port of ours."""
    ports, profile = node.profile.ports, node.profile
    if port == ports.fragmentation:
        found = fragmentation.decode_uplink(data, profile.frag_version)
        return codec.Decoded(found.commands, found.error)
    if port == ports.multicast:
        groups = multicast.decode_uplink(data, profile.multicast_version)
        return codec.Decoded(groups.commands, groups.error)
    if port == ports.firmware:
        firmware = firmware_management.decode_uplink(data)
        return codec.Decoded(firmware.commands, firmware.error)
    if port == ports.clock and profile.clock_version:
        clock = clock_sync.decode_uplink(data, profile.clock_version)
        return codec.Decoded(clock.commands, clock.error)
    return None


def answer(out: Outgoing, node: SessionNode, command: codec.Command, received_at: float, air: Air, now: float) -> None:
    """One command of a node. What does not fit its step is ignored: it answers an older question."""
    if not node.profile.firmware_management and isinstance(command, _OF_FIRMWARE):
        _has_firmware_management(out, node)
    match command:
        case multicast.McGroupSetupAns(mc_group_id=group) if node.step is Step.GROUP and group == node.mc_group_id:
            _group_set_up(out, node, command, now)
        case fragmentation.FragSessionSetupAns() if node.step is Step.BLOCK and command.frag_index == FRAG_INDEX:
            _block_set_up(out, node, command, now)
        case multicast.McClassCSessionAns() | multicast.McClassBSessionAns() if (
            node.step is Step.WINDOW and command.mc_group_id == node.mc_group_id
        ):
            _window(out, node, command, received_at, now)
        case clock_sync.AppTimeReq() if node.resync:
            node.resync = False
            node.clock_error_s = 0.0
            node.ask_afresh(now + _AFTER_RESYNC_S)
        case fragmentation.FragSessionStatusAns() if command.frag_index == FRAG_INDEX:
            node.without_session = 0
            if node.unsure and node.step in _BEFORE_BLOCK:
                _standing(out, node, command, air, now)
            elif node.step is Step.RECEIVING:
                _status(out, node, command, air, now)
        case fragmentation.FragDataBlockReceivedReq() if command.frag_index == FRAG_INDEX:
            _block_received(out, node, command, now)
        case fragmentation.PackageVersionAns() if node.profile.frag_version == 1 and (
            node.poll_alone or (node.unsure and node.step in _BEFORE_BLOCK)
        ):
            _without_session(out, node, now)
        case firmware_management.DevDeleteImageAns() if node.step is Step.DROPPING and node.holds_image:
            node.holds_image = False
            node.ask_afresh()
        case firmware_management.DevUpgradeImageAns():
            _image(out, node, command, air, now)
        case firmware_management.DevRebootCountdownAns() if node.step is Step.INSTALLING:
            node.reboots_heard += 1
            out.move(node, Step.CONFIRMING)
            node.ask_afresh(now + command.countdown + out.settings.settle_s)
        case firmware_management.DevRebootTimeAns():
            reboot.told(out, node, command, received_at, now)
        case firmware_management.DevVersionAns():
            _version(out, node, command.fw_version, now)
        case fragmentation.FragSessionDeleteAns() if node.step is Step.DROPPING and not node.group_deleted:
            if node.grouped:
                node.group_deleted = True
                node.ask_afresh()
            else:
                dropped(out, node, now)
        case multicast.McGroupDeleteAns() if node.step is Step.DROPPING and node.group_deleted:
            dropped(out, node, now)


def dropped(out: Outgoing, node: SessionNode, now: float, detail: str = "") -> None:
    """A DROP is done."""
    out.event(node, Fact.DROPPED, now, detail=detail)
    out.leave(node, Release(node.dev_eui, again=False, reason="dropped"))


def image_refused(out: Outgoing, node: SessionNode, now: float, detail: str, air_highest: int) -> None:
    """There is no valid image on the node, or it does not say so."""
    if node.suspect and node.step is Step.RECEIVING:
        node.ask_afresh()
        node.unproven = 0
        node.block.refuted(air_highest)
        return
    node.image_refused += 1
    if node.image_refused < out.settings.verify_attempts:
        node.ask_afresh(now + out.settings.verify_every_s)  # it may still be checking the signature
    else:
        out.again(node, now, "invalid_image", detail)


def _group_set_up(out: Outgoing, node: SessionNode, command: multicast.McGroupSetupAns, now: float) -> None:
    if command.id_error:
        _no_multicast(out, node, "McGroupSetupAns: IDError")
    elif out.cohort.closed:
        out.move(node, Step.WINDOW)  # the group was made anew; the session on the node stays, it may hold data
    else:
        out.move(node, Step.BLOCK)


def _block_set_up(out: Outgoing, node: SessionNode, command: fragmentation.FragSessionSetupAns, now: float) -> None:
    if command.accepted:
        out.move(node, Step.SET_UP)
    elif command.session_cnt_replay:
        out.again(node, now, "refused", f"FragSessionSetupAns: SessionCnt {node.session_cnt} was used before")
    elif command.not_enough_memory:
        out.fail(node, now, "no_space", f"FragSessionSetupAns: no memory for {out.cohort.size} bytes")
    else:
        out.fail(node, now, "refused", f"FragSessionSetupAns: {command}")


def _window(
    out: Outgoing,
    node: SessionNode,
    command: multicast.McClassCSessionAns | multicast.McClassBSessionAns,
    received_at: float,
    now: float,
) -> None:
    if isinstance(command, multicast.McClassBSessionAns) is (out.cohort.ping_periodicity is None):
        return  # of another session
    if command.dr_error or command.freq_error:
        _no_multicast(out, node, f"DR{out.cohort.data_rate} at {out.cohort.frequency_hz} Hz: {command}")
        return
    expected = node.window_from - received_at
    told = command.time_to_start
    if told is not None and abs(told - expected) <= out.settings.clock_tolerance_s:
        node.window_errors = 0
        out.move(node, Step.RECEIVING)
        return
    node.window_errors += 1
    node.windows_refused += 1
    node.ask_afresh()
    if node.windows_refused >= _WINDOWS_REFUSED_MOST:
        _no_multicast(out, node, f"its clock cannot be met: {command}")
    elif told is None and command.mc_group_undefined and node.window_errors >= _WINDOW_ERRORS_MOST:
        # Version 1 says so of a start in the past too; by now it is the group that is gone.
        node.window_errors = 0
        out.move(node, Step.GROUP)
    elif node.profile.clock_version is not None and node.window_errors <= _RESYNCS_MOST:
        node.resync = True
    elif told is not None:
        node.clock_error_s += expected - told  # it is told the time by its own clock
    else:
        node.clock_error_s = _ahead_s(node.clock_error_s)


def _ahead_s(thought_s: float) -> float:
    """How far a node's clock may be ahead that calls a start missed; where it accepts one, its answer tells.

    First that it was set since, as by a reboot.
    """
    return 0.0 if thought_s < 0 else max(_AHEAD_LEAST_S, 4 * thought_s)


def _status(
    out: Outgoing, node: SessionNode, command: fragmentation.FragSessionStatusAns, air: Air, now: float
) -> None:
    node.answered_poll = air.poll
    told_at = air.told_at(alone=node.poll_alone)
    if node.poll_alone:
        node.poll_alone = False
        node.ask_afresh()
    if command.session_does_not_exist:
        out.again(node, now, "session_lost", "FragSessionStatusAns: SessionDoesNotExist")
        return
    if command.memory_error:
        limit = max(0, min(node.block.missing or 1, out.cohort.nb_frag) - 1)
        out.again(node, now, "no_space", "FragSessionStatusAns: more was lost than the node can make up", limit=limit)
        return
    if command.mic_error:
        out.again(node, now, "invalid_image", "FragSessionStatusAns: MICError")
        return
    of_group = not (node.unicast or out.cohort.unicast)
    if of_group and not command.nb_frag_received and told_at >= max(out.cohort.nb_frag, out.settings.deaf_fragments):
        _deaf(out, node, now, told_at)
        return
    block, before = node.block, node.block.confirmed
    wrapped = (block.missing or 0) >= _WRAP_RISK
    received, missing = command.nb_frag_received, command.missing_frag
    block.take(received, missing, told_at, still=air.still, sent=air.highest)
    if block.claims_complete(received, missing) and not wrapped:
        _complete(out, node, now)
        if not node.profile.firmware_management:
            _ready(out, node, now, "unverified", "by its status alone")
        return
    whole = air.still and air.highest >= block.nb_frag
    node.suspect = whole and (missing == 0 or block.doubtful(missing, air.highest))
    if node.suspect and not node.profile.firmware_management:
        _doubtful_for_good(out, node, air, now)
    if node.step is Step.RECEIVING and block.confirmed > before:
        out.event(node, Fact.PROGRESS, now)


def _without_session(out: Outgoing, node: SessionNode, now: float) -> None:
    """Version 1 has no word for a session that is gone (a reboot): asked for its version too, the node says only that."""
    node.without_session += 1
    if node.without_session < _WITHOUT_SESSION_MOST:
        return
    if node.unsure:
        _gone(out, node)
    else:
        out.again(node, now, "session_lost", "the node answers, but not for its fragmentation session")


def _standing(
    out: Outgoing, node: SessionNode, command: fragmentation.FragSessionStatusAns, air: Air, now: float
) -> None:
    """After a restore: what the node holds by now of a session that the backup knows, and may know too little of."""
    if command.session_does_not_exist:
        _gone(out, node)
    elif command.memory_error or command.mic_error:
        out.again(
            node, now, "no_space" if command.memory_error else "invalid_image", f"FragSessionStatusAns: {command}"
        )
    else:
        block, before = node.block, node.block.confirmed
        received, missing = command.nb_frag_received, command.missing_frag
        # How a node counts is told from what was sent, which is just what we do not know.
        block.take(received, missing, air.highest, still=block.style is not None, sent=fragmentation.N_MAX)
        node.unsure = False
        node.ask_afresh()
        out.changed(node)
        if block.confirmed > before:
            out.event(node, Fact.PROGRESS, now)
        if block.claims_complete(received, missing):
            _complete(out, node, now)
            if not node.profile.firmware_management:
                _ready(out, node, now, "unverified", "by its status alone")
        elif out.cohort.unicast:
            out.move(node, Step.RECEIVING)


def _gone(out: Outgoing, node: SessionNode) -> None:
    """The session that the backup knows is over, or never came to be: the node may run the image, which it is asked next."""
    out.leave(node, Release(node.dev_eui, again=True, reason="restored", detail="it has no session by now"))


def _no_multicast(out: Outgoing, node: SessionNode, detail: str) -> None:
    out.leave(node, Release(node.dev_eui, again=True, reason="no_multicast", detail=detail))


def _deaf(out: Outgoing, node: SessionNode, now: float, told_at: int) -> None:
    """A session alone was bad luck, a clock perhaps; twice it is other keys or another radio. It gets a plain pass of its own."""
    detail = f"it has heard none of {told_at} fragments to the group"
    if node.attempt > 1:
        _no_multicast(out, node, detail)
    else:
        out.again(node, now, "deaf", detail)


def _doubtful_for_good(out: Outgoing, node: SessionNode, air: Air, now: float) -> None:
    """It may have all, and has no TS006 to say so: more coded fragments, a few times, and then nobody can know."""
    node.suspect = False
    node.image_refused += 1
    node.block.refuted(air.highest)
    if node.image_refused >= out.settings.verify_attempts:
        out.fail(node, now, "unproven", "its status never says that it has the block, and it has no TS006")


def _complete(out: Outgoing, node: SessionNode, now: float) -> None:
    node.block.confirmed = node.block.nb_frag
    out.move(node, Step.VERIFYING)
    out.event(node, Fact.COMPLETE, now)


def _ready(out: Outgoing, node: SessionNode, now: float, code: str = "", detail: str = "") -> None:
    node.holds_image = node.profile.firmware_management  # else it can neither be asked nor be told to delete it
    out.move(node, Step.READY)
    out.event(node, Fact.READY, now, code=code, detail=detail)


def _block_received(
    out: Outgoing, node: SessionNode, command: fragmentation.FragDataBlockReceivedReq, now: float
) -> None:
    data = fragmentation.encode(
        fragmentation.FragDataBlockReceivedAns(frag_index=FRAG_INDEX), node.profile.frag_version
    )
    port = node.profile.ports.fragmentation
    out.act(Unicast(node.dev_eui, port, data, now + _ACK_EXPIRES_S, "FragDataBlockReceivedAns"))
    if node.step not in (Step.WINDOW, Step.RECEIVING) and not (node.unsure and node.step in _BEFORE_BLOCK):
        return
    if command.mic_error:
        if node.step is Step.RECEIVING:
            out.again(node, now, "invalid_image", "FragDataBlockReceivedReq: MICError")
    else:
        _complete(out, node, now)
        if not node.profile.firmware_management:
            _ready(out, node, now, detail="FragDataBlockReceivedReq: its MIC is good")


def _image(
    out: Outgoing, node: SessionNode, command: firmware_management.DevUpgradeImageAns, air: Air, now: float
) -> None:
    valid = command.up_image_status is UpImageStatus.VALID
    if node.step in (Step.INSTALLING, Step.CONFIRMING):
        if node.suspect:
            _still_old(out, node, now, pending=valid)
        return
    if node.step not in (Step.WINDOW, Step.RECEIVING, Step.VERIFYING):
        return
    if valid and command.next_fw_version == out.cohort.version:
        if node.step is not Step.VERIFYING:
            _complete(out, node, now)
        _ready(out, node, now)
    elif command.up_image_status is UpImageStatus.WRONG_HARDWARE and not node.suspect:
        out.fail(node, now, "wrong_hardware", "DevUpgradeImageAns: image for other hardware")
    elif node.suspect or node.step is Step.VERIFYING:
        found = f"version {command.next_fw_version}" if valid else command.up_image_status.name
        image_refused(out, node, now, f"DevUpgradeImageAns: {found}", air.highest)


def _has_firmware_management(out: Outgoing, node: SessionNode) -> None:
    """It was silent when it was asked for TS006, and has it after all: no need to wait until it updates itself."""
    node.profile = replace(node.profile, firmware_management=True)
    out.changed(node)
    if node.step in (Step.READY, Step.INSTALLING, Step.CONFIRMING):
        node.holds_image = True
    if node.step is Step.CONFIRMING:
        out.move(node, Step.INSTALLING)


def _version(out: Outgoing, node: SessionNode, version: int, now: float) -> None:
    if node.unsure and node.step in (Step.READY, Step.INSTALLING) and version != out.cohort.version:
        node.unsure = False
        node.ask_afresh()
        out.changed(node)
    elif node.step in (Step.INSTALLING, Step.CONFIRMING) or (node.unsure and node.step is Step.READY):
        if version == out.cohort.version:
            node.version, node.holds_image = version, False
            out.move(node, Step.RUNNING)
            node.ask_afresh(now + out.settings.recheck_s)
            out.event(node, Fact.RUNNING, now, version=version)
        elif node.reboots and node.started:
            node.version, node.holds_image, node.started = version, False, False
            out.move(node, Step.RUNNING)
            node.ask_afresh(now + out.settings.recheck_s)
            out.event(node, Fact.RUNNING, now, version=version)
        elif node.reboots:
            node.ask_afresh()
            node.suspect = True  # not rebooted yet, or taken back by its bootloader: the image slot tells
    elif node.step is Step.RUNNING:
        node.recheck_s = min(max(node.recheck_s * 2, out.settings.recheck_s), out.settings.recheck_most_s)
        node.ask_afresh(now + node.recheck_s)
        if version != node.version:
            node.version = version
            out.changed(node)
            out.event(node, Fact.RUNNING, now, version=version)


def _still_old(out: Outgoing, node: SessionNode, now: float, *, pending: bool) -> None:
    """After the reboot command the node says the old version; `pending`: the new image still waits on it."""
    node.suspect = False
    node.told_at = 0.0
    if pending and node.reboots_heard < out.settings.reboot_attempts:
        if node.step is Step.CONFIRMING:
            out.move(node, Step.INSTALLING)
        node.ask_afresh(now + out.settings.settle_s)
    elif pending:
        out.fail(
            node, now, "refused", f"the node did not start the image after {node.reboots_heard} commands that it heard"
        )
    else:
        # It may have told its version before it rebooted, and run the new one by now: only what it says from here on counts.
        node.started = True
        if node.step is Step.INSTALLING:
            out.move(node, Step.CONFIRMING)
        node.ask_afresh()
