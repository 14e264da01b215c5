"""The request that a node's step asks for, as bytes. PURE, and without any decision about when it is sent."""

from dataclasses import dataclass

from radios.lorawan import keys, reboot
from radios.lorawan.cohort import (
    DESCRIPTOR,
    FRAG_INDEX,
    BlockSource,
    Cohort,
    SessionSettings,
    beacon_at,
    beacon_time_out_for,
    time_out_for,
)
from radios.lorawan.gps_time import WRAP_S
from radios.lorawan.keys import Key
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multicast
from radios.lorawan.session_node import SessionNode, Step
from radios.radio import Want

INSTALL, VERSION = "install", "DevVersionReq"  # names of questions: a command to reboot, what it runs
WINDOW_REQUESTS = frozenset({"McClassCSessionReq", "McClassBSessionReq"})
PROMPT_S = 30.0
"""From a request that goes down with the uplink just heard to the start that it asks for; its clock may be off a little."""
_MC_F_COUNT_MOST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Question:
    name: str  # a node that is asked another name is asked afresh
    port: int
    data: bytes


_ASKING = frozenset(
    {
        Step.GROUP,
        Step.BLOCK,
        Step.WINDOW,
        Step.VERIFYING,
        Step.INSTALLING,
        Step.CONFIRMING,
        Step.RUNNING,
        Step.DROPPING,
    }
)


def asks(node: SessionNode) -> bool:
    """Whether there can be a question to the node now. Cheap: it is called for every node, again and again."""
    if node.unsure:
        return True
    if node.step is Step.RECEIVING:
        return node.poll_alone or node.suspect
    return node.step in _ASKING


def question(
    node: SessionNode, cohort: Cohort, mc_key: Key, block: BlockSource, settings: SessionSettings, now: float
) -> Question | None:
    """What to ask the node now; None: nothing. ImageError when a MIC needs an image that cannot be read."""
    if node.want is Want.HOLD and node.step not in (Step.INSTALLING, Step.CONFIRMING, Step.RUNNING):
        return None
    match node.step:
        case Step.READY | Step.INSTALLING if node.unsure:
            return _firmware(VERSION, node, firmware_management.DevVersionReq())
        case Step.GROUP | Step.BLOCK if node.unsure:
            return _status(node)
        case Step.GROUP:
            return _group_setup(node, cohort, mc_key)
        case Step.BLOCK:
            return _block_setup(node, cohort, block)
        case Step.WINDOW:
            return _resync(node) if node.resync else _session(node, cohort, settings, now)
        case Step.RECEIVING if node.poll_alone:
            return _status(node)
        case Step.RECEIVING if node.suspect:
            return _upgrade_image(node)
        case Step.VERIFYING:
            return _upgrade_image(node)
        case Step.INSTALLING | Step.CONFIRMING | Step.DROPPING if reboot.to_cancel(node, now):
            cancel = firmware_management.DevRebootTimeReq(reboot_time=firmware_management.REBOOT_TIME_CANCEL)
            return _firmware("cancel", node, cancel)
        case Step.INSTALLING if node.suspect:
            return _upgrade_image(node)
        case Step.INSTALLING if reboot.is_due(node, settings.wall, now):
            return _firmware(INSTALL, node, reboot.command(node, settings, now))
        case Step.CONFIRMING if node.suspect:
            return _upgrade_image(node)
        case Step.INSTALLING | Step.CONFIRMING | Step.RUNNING:
            return _firmware(VERSION, node, firmware_management.DevVersionReq())
        case Step.DROPPING if node.holds_image and not node.image_waits:
            return _upgrade_image(node)
        case Step.DROPPING if node.holds_image:
            command = firmware_management.DevDeleteImageReq(fw_to_delete_version=cohort.version)
            return _firmware("DevDeleteImageReq", node, command)
        case Step.DROPPING:
            return _group_delete(node) if node.group_deleted else _block_delete(node)
    return None


def session_start(node: SessionNode, cohort: Cohort, settings: SessionSettings, now: float) -> float:
    """SessionTime (of the radio's clock) of a McClassC/BSessionReq sent now: late ones start when they can have arrived."""
    arrives_s = settings.answer_timeout_s / 2 if node.profile.always_on else node.profile.answer_timeout_s
    if node.prompt:
        arrives_s = min(arrives_s, PROMPT_S)
    start = max(cohort.window_start, now + arrives_s)
    return start if cohort.ping_periodicity is None else beacon_at(start, settings.gps)


def _group_setup(node: SessionNode, cohort: Cohort, mc_key: Key) -> Question | None:
    if node.root_key is None:
        return None
    derive = keys.mc_root_key_1_0 if node.profile.mac_version < (1, 1) else keys.mc_root_key_1_1
    command = multicast.McGroupSetupReq(
        mc_group_id=node.mc_group_id,
        mc_addr=cohort.mc_addr,
        mc_key_encrypted=keys.encrypt_mc_key(keys.mc_ke_key(derive(node.root_key)), mc_key),
        min_mc_f_count=0,
        max_mc_f_count=_MC_F_COUNT_MOST,
    )
    return _multicast("McGroupSetupReq", node, command)


def _block_setup(node: SessionNode, cohort: Cohort, block: BlockSource) -> Question | None:
    second = node.profile.frag_version >= 2
    if second and node.root_key is None:
        return None
    command = fragmentation.FragSessionSetupReq(
        frag_index=FRAG_INDEX,
        mc_group_bit_mask=1 << node.mc_group_id if node.grouped else 0,
        nb_frag=cohort.nb_frag,
        frag_size=cohort.frag_size,
        block_ack_delay=cohort.block_ack_delay,
        padding=cohort.padding,
        descriptor=DESCRIPTOR,
        ack_reception=second,
        session_cnt=node.session_cnt if second else None,
        mic=block.mic(node.root_key, node.session_cnt) if second and node.root_key is not None else None,
    )
    data = fragmentation.encode(command, node.profile.frag_version)
    return Question("FragSessionSetupReq", node.profile.ports.fragmentation, data)


def _session(node: SessionNode, cohort: Cohort, settings: SessionSettings, now: float) -> Question:
    start = session_start(node, cohort, settings, now)
    if cohort.ping_periodicity is not None:
        class_b = multicast.McClassBSessionReq(
            mc_group_id=node.mc_group_id,
            session_time=round(settings.gps.at(start)) % WRAP_S,  # beacons keep the node's clock
            time_out=beacon_time_out_for(cohort.window_end - start),
            periodicity=cohort.ping_periodicity,
            dl_frequency_hz=cohort.frequency_hz,
            dr=cohort.data_rate,
        )
        return _multicast("McClassBSessionReq", node, class_b)
    command = multicast.McClassCSessionReq(
        mc_group_id=node.mc_group_id,
        session_time=int(settings.gps.at(start) + node.clock_error_s) % WRAP_S,
        time_out=time_out_for(cohort.window_end - start),
        dl_frequency_hz=cohort.frequency_hz,
        dr=cohort.data_rate,
    )
    return _multicast("McClassCSessionReq", node, command)


def _resync(node: SessionNode) -> Question:
    command = clock_sync.ForceDeviceResyncReq(nb_transmissions=1)
    data = clock_sync.encode(command, node.profile.clock_version or 1)
    return Question("ForceDeviceResyncReq", node.profile.ports.clock, data)


def _status(node: SessionNode) -> Question:
    status = fragmentation.FragSessionStatusReq(frag_index=FRAG_INDEX, participants=True)
    version = node.profile.frag_version
    commands: list[fragmentation.DownlinkCommand] = [status]
    if version == 1 and node.asked:
        commands.insert(0, fragmentation.PackageVersionReq())  # tells a node without its session from a silent one
    data = fragmentation.encode(commands, version)
    return Question("FragSessionStatusReq", node.profile.ports.fragmentation, data)


def _upgrade_image(node: SessionNode) -> Question:
    return _firmware("DevUpgradeImageReq", node, firmware_management.DevUpgradeImageReq())


def _block_delete(node: SessionNode) -> Question:
    data = fragmentation.encode(fragmentation.FragSessionDeleteReq(frag_index=FRAG_INDEX), node.profile.frag_version)
    return Question("FragSessionDeleteReq", node.profile.ports.fragmentation, data)


def _group_delete(node: SessionNode) -> Question:
    return _multicast("McGroupDeleteReq", node, multicast.McGroupDeleteReq(mc_group_id=node.mc_group_id))


def _multicast(name: str, node: SessionNode, command: multicast.DownlinkCommand) -> Question:
    return Question(name, node.profile.ports.multicast, multicast.encode(command, node.profile.multicast_version))


def _firmware(name: str, node: SessionNode, command: firmware_management.DownlinkCommand) -> Question:
    return Question(name, node.profile.ports.firmware, firmware_management.encode(command))
