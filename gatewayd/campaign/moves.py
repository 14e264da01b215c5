"""Nodes that other hands have brought to another firmware: noticed and said, never overwritten silently. PURE.

A node has one transfer at a time, so while it is ours nobody else here could have moved it. One that still waits may have been
moved by another campaign of this gateway: `own_versions` are the versions which those explain.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.retries import MOVED
from gatewayd.campaign.selection import Skip
from gatewayd.campaign.situation import Situation
from gatewayd.nodes.node import Node


def unexplained(updates: Iterable[NodeUpdate], nodes: Mapping[str, Node]) -> list[str]:
    """Nodes that run what neither they began with nor this campaign brings: ask what other campaigns of ours did."""
    return [
        update.node
        for update in updates
        if (not update.ended or update.state is State.UPDATED)
        and (node := nodes.get(update.node)) is not None
        and node.version not in (None, update.version_before, update.target_version)
    ]


def noticed(it: Situation, update: NodeUpdate) -> NodeUpdate | Skip:
    """For an update before its installation: `Skip` when other hands moved the node; else the update, brought up to date."""
    node = it.nodes.get(update.node)
    if node is None or node.version is None or node.version in (update.version_before, update.target_version):
        return update
    if update.version_before is None or node.version in it.own_versions.get(update.node, ()):
        return update if update.want else replace(update, version_before=node.version)
    return Skip(MOVED, _words(it, node, update.version_before))


def noticed_late(it: Situation, update: NodeUpdate) -> NodeUpdate:
    """For a node that was updated: it stays so, and that it runs something newer by now is said, once for each version."""
    node = it.nodes.get(update.node)
    if (
        update.state is not State.UPDATED
        or node is None
        or node.version is None
        or node.version == update.version
        or node.version_at is None
        or node.version_at <= update.radio_since
        or not it.versions.newer(node.hardware, node.version, update.target_version)
        or node.version in it.own_versions.get(update.node, ())
    ):
        return update
    return replace(update, version=node.version, code=MOVED, detail=_words(it, node, update.target_version))


def _words(it: Situation, node: Node, before: int) -> str:
    was, now = (it.versions.shown(node.hardware, v) for v in (before, node.version or 0))
    return f"by other hands the node went from {was} to {now}"
