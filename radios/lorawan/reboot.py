"""When a node starts its new image: it is told of the moment, or told to count down when that has come. PURE.

A node that can tell the time is told ahead (DevRebootTimeReq), so that it starts at the moment and not with its next uplink
after it. Until then it can be taken back. One that cannot, or whose answer shows another time, is told when the time has come.
"""

from typing import Final

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.gps_time import WRAP_S
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import firmware_management
from radios.lorawan.session_node import SessionNode, Step
from radios.radio import Fact, Want
from radios.wall_time import WallTime

LEAD_S: Final = 60.0  # at least so long before it is told
_COUNTDOWN_MOST_S = 3600  # that a node is left alone, whatever it says
_TOLD_OR_AFTER = (Step.INSTALLING, Step.CONFIRMING)


def moment(node: SessionNode, wall: WallTime) -> float:
    """When it is to start, on the radio's clock, whatever the wall clock's steps made of the hour; 0: at once."""
    return 0.0 if node.install_at is None else wall.at(node.install_at)


def begins_at(node: SessionNode, wall: WallTime) -> float:
    """When it is told: room for two requests before the moment, where it can tell the time. 0: at once."""
    if node.install_at is None:
        return 0.0
    return moment(node, wall) - (max(LEAD_S, 2 * node.profile.answer_timeout_s) if _knows_time(node) else 0.0)


def is_ahead(node: SessionNode, wall: WallTime, now: float) -> bool:
    """Whether the moment is still to come."""
    return now < moment(node, wall)


def is_due(node: SessionNode, wall: WallTime, now: float) -> bool:
    """Whether it is told (again). It first has to say that the image waits, and again after a command that it may have heard,
    and where it rebooted by itself: one that started it and took it back would otherwise be sent into a second reboot."""
    told_ahead = node.told_at > now and is_ahead(node, wall, now)
    return node.want is Want.INSTALL and (node.image_waits or told_ahead)


def command(node: SessionNode, settings: SessionSettings, now: float) -> firmware_management.DownlinkCommand:
    if not is_ahead(node, settings.wall, now):
        return firmware_management.DevRebootCountdownReq(countdown=settings.reboot_countdown_s)
    gps_s = settings.gps.at(moment(node, settings.wall)) + node.clock_error_s
    return firmware_management.DevRebootTimeReq(reboot_time=int(gps_s) % WRAP_S)


def sent(node: SessionNode, settings: SessionSettings, now: float) -> None:
    """A command goes out that is to be obeyed, or answered, before `node.not_before`."""
    at = moment(node, settings.wall)
    node.reboots += 1
    node.told_at = at if at > now else 0.0
    node.image_waits = node.obeyed = False
    node.unproven = node.version_requests = 0
    node.rebooted_by = node.not_before + settings.reboot_countdown_s + settings.settle_s


def not_sent(node: SessionNode) -> None:
    """The network server did not take the last command."""
    node.image_waits = True


def heard(out: Outgoing, node: SessionNode, f_cnt: int) -> None:
    """Where its frame counter begins anew, it joined again: it may have rebooted by itself, and have started the image."""
    before, node.f_cnt = node.f_cnt, f_cnt
    if f_cnt >= before:
        return
    if node.image_waits:
        node.image_waits = False
        out.changed(node)
    elif node.step in _TOLD_OR_AFTER:
        _obeyed(node)


def to_cancel(node: SessionNode, now: float) -> bool:
    """Whether it was told of a moment that no longer holds."""
    return node.told_at > now and (node.want is not Want.INSTALL or node.timeless)


def silent_until(node: SessionNode, settings: SessionSettings, now: float) -> float:
    """Nothing is asked before: it waits for the moment, as told, or we do."""
    if node.step not in _TOLD_OR_AFTER or to_cancel(node, now):
        return now
    if node.step is Step.CONFIRMING and node.told_at:
        return max(now, node.told_at + settings.settle_s)
    waits = node.step is Step.INSTALLING and not _knows_time(node)
    return max(now, moment(node, settings.wall)) if waits else now


def come(out: Outgoing, node: SessionNode, now: float) -> None:
    """The moment that it was told of has come, heard or not: its version says before anything else whether it was.

    One that certainly was not told, or says that its image still waits, is not told what is no longer wanted.
    """
    passed = 0.0 < node.told_at <= now
    if node.step is Step.DROPPING and passed:
        node.told_at, node.image_waits = 0.0, False  # taken back or not: its slot tells
    if node.step is not Step.INSTALLING:
        return
    if passed:
        out.move(node, Step.CONFIRMING)
    elif node.want is not Want.INSTALL and node.image_waits and not to_cancel(node, now):
        _taken_back(out, node, now)


def directed(out: Outgoing, node: SessionNode, now: float) -> None:
    """Something else is wanted of the node."""
    if node.told_at <= now:
        return
    node.image_waits = True
    if node.want is Want.INSTALL and moment(node, out.settings.wall) != node.told_at and node.step is Step.CONFIRMING:
        out.move(node, Step.INSTALLING)  # told of another moment
    node.ask_afresh()


def _obeyed(node: SessionNode) -> None:
    """It answered the last command, or joined again after it: some reboot without an answer, and must not do so for ever."""
    if node.reboots and not node.obeyed:
        node.obeyed = True
        node.reboots_heard += 1


def counts(out: Outgoing, node: SessionNode, answer: firmware_management.DevRebootCountdownAns, now: float) -> None:
    """It counts down. What it will not, or for months, as its answer may say, its version and its slot tell."""
    wait_s = 0 if answer.countdown == firmware_management.COUNTDOWN_CANCEL else answer.countdown
    until = now + min(wait_s, _COUNTDOWN_MOST_S) + out.settings.settle_s
    _obeyed(node)
    node.rebooted_by = max(node.rebooted_by, until)
    out.move(node, Step.CONFIRMING)
    node.ask_afresh(until)


def told(
    out: Outgoing, node: SessionNode, answer: firmware_management.DevRebootTimeAns, received_at: float, now: float
) -> None:
    """What it says of the moment: how long it is to it, or that it was taken back."""
    if answer.reboot_time == firmware_management.REBOOT_TIME_CANCEL:
        if to_cancel(node, now):
            node.told_at = 0.0
            _taken_back(out, node, now)
        return
    if node.step is not Step.INSTALLING or node.told_at <= now:
        return
    tolerance_s = out.settings.clock_tolerance_s
    off_s = received_at + answer.reboot_time - node.told_at  # it may have heard the request an answer's time ago
    if answer.reboot_time and -tolerance_s <= off_s <= tolerance_s + node.profile.answer_timeout_s:
        _obeyed(node)
        out.move(node, Step.CONFIRMING)
        return
    node.timeless = True
    if not answer.reboot_time:
        node.told_at, node.image_waits = 0.0, True  # it has no clock, or thinks that the moment is past
    node.ask_afresh()
    out.changed(node)


def _taken_back(out: Outgoing, node: SessionNode, now: float) -> None:
    node.image_waits = True
    if node.step in _TOLD_OR_AFTER and node.want is not Want.INSTALL:
        out.move(node, Step.READY)
        out.event(node, Fact.READY, now)
    node.ask_afresh()
    out.changed(node)


def _knows_time(node: SessionNode) -> bool:
    return node.profile.firmware_management and node.profile.clock_version is not None and not node.timeless
