"""What an uplink of one node means for its steps. PURE.

Not here: what is asked (`questions`), and what the answers of all nodes mean for the next round (`rounds`).
"""

from dataclasses import dataclass

from radios.lorawan.cohort import FRAG_INDEX, MC_GROUP_ID
from radios.lorawan.messages import Release, Unicast
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import clock_sync, codec, firmware_management, fragmentation, multicast
from radios.lorawan.packages.firmware_management import UpImageStatus
from radios.lorawan.session_node import SessionNode, Step
from radios.radio import Fact

_ACK_EXPIRES_S = 60.0
_AFTER_RESYNC_S = 10.0
_WINDOW_ERRORS_MOST = 3
_WRAP_RISK = 128  # from so many missing on, "0 missing" may be 256


@dataclass(frozen=True, slots=True)
class Air:
    """What was on the air when an answer came."""

    highest: int  # counter sent
    poll: int  # number of the last poll
    still: bool  # the poll was the last thing sent


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
    match command:
        case multicast.McGroupSetupAns(mc_group_id=group) if node.step is Step.GROUP and group == MC_GROUP_ID:
            _group_set_up(out, node, command, now)
        case fragmentation.FragSessionSetupAns() if node.step is Step.BLOCK and command.frag_index == FRAG_INDEX:
            _block_set_up(out, node, command, now)
        case multicast.McClassCSessionAns() if node.step is Step.WINDOW and command.mc_group_id == MC_GROUP_ID:
            _window(out, node, command, received_at, now)
        case clock_sync.AppTimeReq() if node.resync:
            node.resync = False
            node.ask_afresh(now + _AFTER_RESYNC_S)
        case fragmentation.FragSessionStatusAns() if command.frag_index == FRAG_INDEX:
            if node.step is Step.RECEIVING:
                _status(out, node, command, air, now)
        case fragmentation.FragDataBlockReceivedReq() if command.frag_index == FRAG_INDEX:
            _block_received(out, node, command, now)
        case firmware_management.DevUpgradeImageAns():
            _image(out, node, command, now)
        case firmware_management.DevRebootCountdownAns() if node.step is Step.INSTALLING:
            node.reboots_heard += 1
            out.move(node, Step.CONFIRMING)
            node.ask_afresh(now + command.countdown + out.settings.settle_s)
        case firmware_management.DevVersionAns():
            _version(out, node, command.fw_version, now)
        case fragmentation.FragSessionDeleteAns() if node.step is Step.DROPPING and not node.group_deleted:
            node.group_deleted = True
            node.ask_afresh()
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
        node.block.refuted(air_highest)
        return
    node.image_refused += 1
    if node.image_refused < out.settings.verify_attempts:
        node.ask_afresh(now + out.settings.verify_every_s)  # it may still be checking the signature
    else:
        out.again(node, now, "invalid_image", detail)


def _group_set_up(out: Outgoing, node: SessionNode, command: multicast.McGroupSetupAns, now: float) -> None:
    if command.id_error:
        out.fail(node, now, "refused", "McGroupSetupAns: IDError")
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
    out: Outgoing, node: SessionNode, command: multicast.McClassCSessionAns, received_at: float, now: float
) -> None:
    if command.dr_error or command.freq_error:
        cohort = out.cohort
        out.fail(node, now, "refused", f"DR{cohort.data_rate} at {cohort.frequency_hz} Hz: {command}")
        return
    expected = node.window_from - received_at
    told = command.time_to_start
    if told is not None and abs(told - expected) <= out.settings.clock_tolerance_s:
        node.window_errors = 0
        out.move(node, Step.RECEIVING)
        return
    node.window_errors += 1
    node.ask_afresh()
    if told is None and command.mc_group_undefined and node.window_errors >= _WINDOW_ERRORS_MOST:
        # Version 1 says so of a start in the past too; by now it is the group that is gone.
        node.window_errors = 0
        out.move(node, Step.GROUP)
    else:
        node.resync = node.profile.clock_version is not None


def _status(
    out: Outgoing, node: SessionNode, command: fragmentation.FragSessionStatusAns, air: Air, now: float
) -> None:
    node.answered_poll = air.poll
    if node.poll_alone:
        node.poll_alone = False
        node.ask_afresh()
    if command.session_does_not_exist:
        out.again(node, now, "session_lost", "FragSessionStatusAns: SessionDoesNotExist")
        return
    if command.memory_error:
        out.again(node, now, "no_space", "FragSessionStatusAns: more was lost than the node can make up")
        return
    if command.mic_error:
        out.again(node, now, "invalid_image", "FragSessionStatusAns: MICError")
        return
    block, before = node.block, node.block.confirmed
    wrapped = (block.missing or 0) >= _WRAP_RISK
    received, missing = command.nb_frag_received, command.missing_frag
    block.take(received, missing, air.highest, still=air.still)
    if block.claims_complete(received, missing) and not wrapped:
        _complete(out, node, now)
        return
    node.suspect = air.still and (missing == 0 or block.doubtful(missing, air.highest))
    if block.confirmed > before:
        out.event(node, Fact.PROGRESS, now)


def _complete(out: Outgoing, node: SessionNode, now: float) -> None:
    node.block.confirmed = node.block.nb_frag
    out.move(node, Step.VERIFYING)
    out.event(node, Fact.COMPLETE, now)


def _block_received(
    out: Outgoing, node: SessionNode, command: fragmentation.FragDataBlockReceivedReq, now: float
) -> None:
    data = fragmentation.encode(
        fragmentation.FragDataBlockReceivedAns(frag_index=FRAG_INDEX), node.profile.frag_version
    )
    port = node.profile.ports.fragmentation
    out.act(Unicast(node.dev_eui, port, data, now + _ACK_EXPIRES_S, "FragDataBlockReceivedAns"))
    if node.step not in (Step.WINDOW, Step.RECEIVING):
        return
    if command.mic_error:
        if node.step is Step.RECEIVING:
            out.again(node, now, "invalid_image", "FragDataBlockReceivedReq: MICError")
    else:
        _complete(out, node, now)


def _image(out: Outgoing, node: SessionNode, command: firmware_management.DevUpgradeImageAns, now: float) -> None:
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
        out.move(node, Step.READY)
        out.event(node, Fact.READY, now)
    elif command.up_image_status is UpImageStatus.WRONG_HARDWARE and not node.suspect:
        out.fail(node, now, "wrong_hardware", "DevUpgradeImageAns: image for other hardware")
    elif node.suspect or node.step is Step.VERIFYING:
        found = f"version {command.next_fw_version}" if valid else command.up_image_status.name
        image_refused(out, node, now, f"DevUpgradeImageAns: {found}", out.cohort.mark)


def _version(out: Outgoing, node: SessionNode, version: int, now: float) -> None:
    if node.step in (Step.INSTALLING, Step.CONFIRMING):
        if version == out.cohort.version:
            node.version = version
            out.move(node, Step.RUNNING)
            node.ask_afresh(now + out.settings.recheck_s)
            out.event(node, Fact.RUNNING, now, version=version)
        elif node.reboots:
            node.ask_afresh()
            node.suspect = True  # not rebooted yet, or taken back by its bootloader: the image slot tells
            node.version = version
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
    if pending and node.reboots_heard < out.settings.reboot_attempts:
        if node.step is Step.CONFIRMING:
            out.move(node, Step.INSTALLING)
        node.ask_afresh(now + out.settings.settle_s)
    elif pending:
        out.fail(
            node, now, "refused", f"the node did not start the image after {node.reboots_heard} commands that it heard"
        )
    else:
        out.move(node, Step.RUNNING)
        node.ask_afresh(now + out.settings.recheck_s)
        out.event(node, Fact.RUNNING, now, version=node.version)
