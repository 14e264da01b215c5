"""What a node says of its image, and of the version that it runs. PURE."""

from dataclasses import replace

from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import firmware_management
from radios.lorawan.packages.firmware_management import UpImageStatus
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.status_answers import Air, complete, ready
from radios.radio import Fact


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


def image(
    out: Outgoing, node: SessionNode, command: firmware_management.DevUpgradeImageAns, air: Air, now: float
) -> None:
    valid = command.up_image_status is UpImageStatus.VALID
    ours = valid and command.next_fw_version == out.cohort.version
    if node.step in (Step.INSTALLING, Step.CONFIRMING):
        if node.suspect:
            still_old(out, node, now, pending=ours)  # a bootloader that swaps keeps the old image in the slot
        return
    if node.step is Step.DROPPING and node.holds_image:
        # Only what waits there is deleted: one that runs or tries it may keep in the slot what it goes back to.
        node.holds_image = node.image_waits = ours
        node.ask_afresh()
        out.changed(node)
        return
    if node.step not in (Step.WINDOW, Step.RECEIVING, Step.VERIFYING):
        return
    if ours:
        if node.step is not Step.VERIFYING:
            complete(out, node, now)
        ready(out, node, now)
        node.image_waits = True
    elif command.up_image_status is UpImageStatus.WRONG_HARDWARE and not node.suspect:
        out.fail(node, now, "wrong_hardware", "DevUpgradeImageAns: image for other hardware")
    elif node.suspect or node.step is Step.VERIFYING:
        found = f"version {command.next_fw_version}" if valid else command.up_image_status.name
        image_refused(out, node, now, f"DevUpgradeImageAns: {found}", air.highest)


def may_hold(node: SessionNode, image_version: int, *, coding: bool) -> bool:
    """Whether it may have all of the block and not have said so: what is called off must not start at some later reboot.

    Or have it still, after it took it back. `coding`: all plain fragments are out.
    """
    runs = node.step is Step.RUNNING and node.version == image_version
    whole = not runs and (coding or node.step is Step.VERIFYING or node.unsure)
    return whole and node.profile.firmware_management


def has_firmware_management(out: Outgoing, node: SessionNode) -> None:
    """It was silent when it was asked for TS006, and has it after all: no need to wait until it updates itself."""
    node.profile = replace(node.profile, firmware_management=True)
    out.changed(node)
    if node.step in (Step.READY, Step.INSTALLING, Step.CONFIRMING):
        node.holds_image = True
    if node.step is Step.CONFIRMING:
        out.move(node, Step.INSTALLING)


def version(out: Outgoing, node: SessionNode, version: int, now: float) -> None:
    if node.unsure and node.step in (Step.READY, Step.INSTALLING) and version != out.cohort.version:
        node.unsure = False
        node.ask_afresh()
        out.changed(node)
    elif node.step in (Step.INSTALLING, Step.CONFIRMING) or (node.unsure and node.step is Step.READY):
        if version == out.cohort.version or node.started:
            node.version, node.holds_image, node.started = version, False, False
            out.move(node, Step.RUNNING)
            node.ask_afresh(now + out.settings.recheck_s)
            out.event(node, Fact.RUNNING, now, version=version)
        elif node.step is Step.CONFIRMING or not node.image_waits:
            node.ask_afresh()
            node.suspect = True  # not rebooted yet, or taken back by its bootloader: the image slot tells
    elif node.step is Step.RUNNING:
        node.recheck_s = min(max(node.recheck_s * 2, out.settings.recheck_s), out.settings.recheck_most_s)
        node.ask_afresh(now + node.recheck_s)
        if version != node.version:
            node.version = version
            out.changed(node)
            out.event(node, Fact.RUNNING, now, version=version)


def still_old(out: Outgoing, node: SessionNode, now: float, *, pending: bool) -> None:
    """After the reboot command the node says the old version; `pending`: the new image still waits on it."""
    node.suspect = False
    node.told_at = 0.0
    if pending and now < node.rebooted_by:
        node.ask_afresh(node.rebooted_by)  # it may be about to
        node.suspect = True
    elif pending and node.reboots_heard < out.settings.reboot_attempts:
        if node.step is Step.CONFIRMING:
            out.move(node, Step.INSTALLING)
        node.image_waits = True
        node.ask_afresh()
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
