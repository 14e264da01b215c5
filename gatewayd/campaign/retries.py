"""Who is tried again, when, and how often. PURE.

By itself a campaign tries failed nodes again, within the limits for their model. Everything else, a node that has rolled
back above all, is tried anew only when a revision asks for it, once for each time that it is asked.
"""

import re
from functools import lru_cache

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.payloads import payload_of
from gatewayd.campaign.situation import Situation
from gatewayd.cloud.campaign_policy import ModelLimits, Policy, Retriable, Retry
from gatewayd.cloud.messages import Desired, Payload
from gatewayd.nodes.node import Node

# Failures that another attempt cannot mend: the image or the node is wrong for the other.
FINAL_FAILURES = frozenset({"invalid_image", "wrong_hardware", "unsupported", "no_space"})
LOST = "lost"  # the code of nodes of which nothing was heard any more
MOVED = "moved"  # the code of nodes that other hands have brought to another firmware


def will_retry(it: Situation, update: NodeUpdate) -> bool:
    """Whether the outcome is not the last word: the campaign tries again by itself, or was asked to."""
    if it.campaign.desired is Desired.CANCELLED or it.expired:
        return False
    return is_asked(it, update) or _by_itself(it, update)


def is_asked(it: Situation, update: NodeUpdate) -> bool:
    """Whether another try is asked for, by a revision that came after the outcome."""
    retry = it.campaign.retry
    if retry is None or update.revision >= (retry.revision or it.campaign.revision):
        return False
    match update.state:
        case State.FAILED:
            outcome = Retriable.FAILED
        case State.ROLLED_BACK:
            outcome = Retriable.ROLLED_BACK
        case State.SKIPPED if update.code == MOVED:
            outcome = Retriable.MOVED
        case _:
            return False
    named = _named(retry)
    return outcome in retry.outcomes and (named is None or update.node in named)


def pause_s(it: Situation, update: NodeUpdate) -> float:
    """Between the failure and the next attempt: twice as long after each one. A delta's failure needs no pause."""
    if by_delta(it, update) or is_asked(it, update):
        return 0.0
    policy = it.campaign.policy
    _, first_s = limits(it.nodes.get(update.node), policy)
    longest_s = max(policy.retry_most_s, first_s)
    return float(min(first_s * 2 ** min(_attempts(update) - 1, 32), longest_s))


def limits(node: Node | None, policy: Policy) -> tuple[int, int]:
    """Most attempts, and the pause after the first one in seconds, for the node's model."""
    for model in policy.models:
        if node is not None and _fits(model, node):
            return model.max_attempts or policy.max_attempts, model.retry_after_s or policy.retry_after_s
    return policy.max_attempts, policy.retry_after_s


def by_delta(it: Situation, update: NodeUpdate) -> bool:
    payload = payload_in(it, update)
    return payload is not None and payload.kind == "delta"


def payload_in(it: Situation, update: NodeUpdate) -> Payload | None:
    """What the update delivers; None when the release has no such payload (any more)."""
    return None if it.release is None else payload_of(update.transfer, it.release)


def _by_itself(it: Situation, update: NodeUpdate) -> bool:
    # A delta that failed says nothing of the node: the full image is tried, whatever else the policy allows. Where the
    # bootloader applies it the node comes back with its old version. Whether it was heard running the new one meanwhile
    # does not matter: that depends on when the gateway was up and the node awake, and not on what happened to the node.
    if update.state is State.ROLLED_BACK:
        return by_delta(it, update)
    if update.state is not State.FAILED:
        return False
    if _is_silent(it, update):
        return False
    most, _ = limits(it.nodes.get(update.node), it.campaign.policy)
    return (_attempts(update) < most and update.code not in FINAL_FAILURES) or by_delta(it, update)


def _is_silent(it: Situation, update: NodeUpdate) -> bool:
    """Of a node given up after its installation had begun: not heard since. It may be broken, and answers no further attempt."""
    node = it.nodes.get(update.node)
    return update.code == LOST and update.installing_at > 0 and (node is None or node.last_seen <= update.radio_since)


def _attempts(update: NodeUpdate) -> int:
    """Those that count against the limit."""
    return update.attempt - update.first_attempt + 1


def _fits(model: ModelLimits, node: Node) -> bool:
    if model.hardware is not None and model.hardware != node.hardware:
        return False
    return model.model is None or (node.model is not None and _pattern(model.model).fullmatch(node.model) is not None)


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


@lru_cache(maxsize=16)
def _named(retry: Retry) -> frozenset[str] | None:
    return None if retry.nodes is None else frozenset(retry.nodes)
