"""Which nodes a campaign means, and which payload each of them gets. PURE."""

from collections.abc import Collection
from dataclasses import dataclass

from gatewayd.campaign.payloads import payload_for
from gatewayd.campaign.policy import Deferral
from gatewayd.campaign.versions import Versions
from gatewayd.cloud.messages import Manufacturers, Payload, Selection
from gatewayd.errors import Refused
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.rollback import check_rollback


@dataclass(frozen=True, slots=True)
class Skip:
    """The node is meant, but this release is not for it; final. `code` is stable."""

    code: str
    detail: str


def is_meant(node: Node, selection: Selection, release: VerifiedRelease) -> bool:
    """Whether the campaign gets a row for this node: named, or of the release's hardware when nobody is named."""
    if selection.nodes is not None:
        return node.id in selection.nodes
    return node.hardware in release.document.hardware


def choose(
    node: Node,
    release: VerifiedRelease,
    manufacturers: Manufacturers,
    attempt: int = 1,
    unusable: Collection[str] = (),
    versions: Versions | None = None,
) -> Payload | Skip | Deferral:
    """The payload for the node, or why there is none. `attempt` and `unusable` as for `payload_for`.

    What nodes report is ordered by `versions`; both rollback floors hold.
    """
    document = release.document
    versions = versions or Versions()
    if node.hardware is None or node.version is None:
        return Deferral("version_unknown", "the node has not told its hardware and version yet")
    if node.hardware not in document.hardware:
        return Skip("wrong_hardware", f"the node is {node.hardware}, the release is for {', '.join(document.hardware)}")
    if node.version == document.node_version:
        return Skip("already", f"the node runs {document.version} already")
    if not versions.ordered(node.hardware, node.version, document.node_version):
        shown = versions.shown(node.hardware, node.version)
        return Deferral("version_unordered", f"the node runs {shown}, of no release known here: it may be a newer one")
    if versions.newer(node.hardware, node.version, document.node_version):
        return Skip(
            "newer", f"the node runs {versions.shown(node.hardware, node.version)}, newer than {document.version}"
        )
    return barred(node, release, manufacturers) or payload_for(node, release, attempt, unusable)


def barred(node: Node, release: VerifiedRelease, manufacturers: Manufacturers) -> Skip | None:
    """Why a rollback floor keeps the release from the node. Floors rise, also while a node is under way."""
    if node.hardware is None:
        return None  # asked again when it has told
    try:
        check_rollback(release.document, node.hardware, manufacturers, node.security_version)
    except Refused as error:
        return Skip(error.code, error.detail)
    return None
