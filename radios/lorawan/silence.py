"""What it means that a node has not answered so many times. PURE.

Called when the wait for the last request is over. What is asked instead follows from the node's state (`questions`).
"""

import math

from radios.lorawan.answers import dropped
from radios.lorawan.image_answers import image_refused, still_old
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.session_node import BEFORE_DATA, UNPROVEN_MOST, SessionNode, Step
from radios.radio import Fact

# Unanswered DevUpgradeImageReq after which silence means no. Where 4 of 10 are lost on the way there or back, 12 in a row
# are in one of 60,000 nodes, and each costs a whole delivery; 20 are in one of 90 million.
_SILENT_VERIFY_MOST = 20
_SOUNDED_MOST = 6  # before the first coded fragment, which may spoil what it holds: worth more patience
_ALONE_MOST = 2  # times that one node is asked for its status, or a doubtful one for its image


def give_up(out: Outgoing, node: SessionNode, highest: int, expires: float | None, now: float) -> None:
    """`highest`: counter sent. `expires`: of the order, Unix seconds."""
    if node.step is Step.DROPPING and node.holds_image and node.asked >= out.settings.drop_attempts:
        node.holds_image = False
        node.ask_afresh()
    elif node.step is Step.DROPPING and node.asked >= out.settings.drop_attempts:
        if node.group_deleted or not node.grouped:
            dropped(out, node, now, "the node did not answer")
        else:
            node.group_deleted = True
            node.ask_afresh()
    elif node.poll_alone and node.asked >= (_SOUNDED_MOST if highest <= out.cohort.nb_frag else _ALONE_MOST):
        node.ask_afresh()
    elif node.suspect and node.step is Step.RECEIVING and node.asked >= _ALONE_MOST and node.unproven < UNPROVEN_MOST:
        node.unproven += 1  # a lost frame is no answer
        node.ask_afresh()
    elif node.suspect and node.step is Step.RECEIVING and node.asked >= _ALONE_MOST:
        # LoRa Basics Modem up to 4.5.0 answers only when the image is valid.
        image_refused(out, node, now, "no answer to DevUpgradeImageReq", highest)
    elif node.suspect and node.asked >= _ALONE_MOST:
        node.unproven += 1
        if _is_mute(node):
            still_old(out, node, now, pending=False)
        else:
            node.ask_afresh(now)
    elif node.step is Step.WINDOW and node.resync:
        node.resync = False  # ForceDeviceResyncReq has no answer of its own
        node.ask_afresh()
    elif node.step is Step.VERIFYING and node.asked >= _SILENT_VERIFY_MOST:
        node.image_refused = out.settings.verify_attempts
        image_refused(out, node, now, "no answer to DevUpgradeImageReq", highest)
    elif node.step is Step.CONFIRMING and not node.profile.firmware_management:
        if now >= node.installing_since + out.settings.unproven_after_s:
            out.fail(node, now, "unproven", "it has the block and no TS006 to tell what it runs")
    elif (
        node.step in BEFORE_DATA and not out.cohort.data_started and not node.said_late and _is_past(expires, out, now)
    ):
        # No verdict: so says a clock that may have leapt, and whoever ordered it knows better.
        node.said_late = True
        out.event(node, Fact.STALLED, now, code="expired", detail="the order expired before the node was set up")


def _is_mute(node: SessionNode) -> bool:
    """Whether a node that tells its old version says nothing of an image because it holds no valid one any more.

    Each time it was asked `_ALONE_MOST` times in vain, after a version had come through. How many requests for that were
    needed says what the link lets through, and that lost frames explain the silence is to be one in a million.
    """
    answered = min(0.5, node.unproven / max(1, node.version_requests))
    return _ALONE_MOST * node.unproven * math.log1p(-answered) < -math.log(1e6)


def _is_past(expires: float | None, out: Outgoing, now: float) -> bool:
    return expires is not None and out.settings.wall.unix(now) >= expires
