"""What an uplink of one node means for its steps: its commands, by the step that they answer to. PURE.

Not here: what is asked (`questions`), and what the answers of all nodes mean for the next round (`rounds`).
"""

from radios.lorawan import reboot
from radios.lorawan.cohort import FRAG_INDEX
from radios.lorawan.image_answers import has_firmware_management, image, version
from radios.lorawan.messages import Release
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import clock_sync, codec, firmware_management, fragmentation, multicast
from radios.lorawan.session_node import BEFORE_BLOCK, SessionNode, Step
from radios.lorawan.set_up_answers import block_set_up, group_set_up, window
from radios.lorawan.status_answers import Air, block_received, standing, status, without_session
from radios.radio import Fact

_AFTER_RESYNC_S = 10.0
_OF_FIRMWARE = (firmware_management.DevVersionAns, firmware_management.DevUpgradeImageAns)


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
        has_firmware_management(out, node)
    match command:
        case multicast.McGroupSetupAns(mc_group_id=group) if node.step is Step.GROUP and group == node.mc_group_id:
            group_set_up(out, node, command, now)
        case fragmentation.FragSessionSetupAns() if node.step is Step.BLOCK and command.frag_index == FRAG_INDEX:
            block_set_up(out, node, command, now)
        case multicast.McClassCSessionAns() | multicast.McClassBSessionAns() if (
            node.step is Step.WINDOW and command.mc_group_id == node.mc_group_id
        ):
            window(out, node, command, received_at, now)
        case clock_sync.AppTimeReq() if node.resync:
            node.resync = False
            node.clock_error_s = 0.0
            node.ask_afresh(now + _AFTER_RESYNC_S)
        case fragmentation.FragSessionStatusAns() if command.frag_index == FRAG_INDEX:
            node.without_session = 0
            if node.unsure and node.step in BEFORE_BLOCK:
                standing(out, node, command, air, now)
            elif node.step is Step.RECEIVING:
                status(out, node, command, air, now)
        case fragmentation.FragDataBlockReceivedReq() if command.frag_index == FRAG_INDEX:
            block_received(out, node, command, now)
        case fragmentation.PackageVersionAns() if node.profile.frag_version == 1 and (
            node.poll_alone or (node.unsure and node.step in BEFORE_BLOCK)
        ):
            without_session(out, node, now)
        case firmware_management.DevDeleteImageAns() if node.step is Step.DROPPING and node.holds_image:
            node.holds_image = False
            node.ask_afresh()
        case firmware_management.DevUpgradeImageAns():
            image(out, node, command, air, now)
        case firmware_management.DevRebootCountdownAns() if node.step is Step.INSTALLING:
            reboot.counts(out, node, command, now)
        case firmware_management.DevRebootTimeAns():
            reboot.told(out, node, command, received_at, now)
        case firmware_management.DevVersionAns():
            version(out, node, command.fw_version, now)
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
