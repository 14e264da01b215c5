"""The last complete set of verified metadata and trust documents, in one file that is replaced whole. SHELL.

python-tuf writes its files one by one and without fsync: after a power cut they can be torn or of different ages. This
bundle is what a restart stands on, and what repairs python-tuf's folder, so that a torn file never forgets a version
(which would open the door to a roll-back). Nothing in it is believed: it is verified again whenever it is read.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import structlog
from pydantic import ValidationError

from gatewayd.cloud.messages import Document
from gatewayd.folders import replace_file
from gatewayd.trust.metadata import MetadataFiles, version_of

log = structlog.get_logger()

FORMAT = 1

_UNFINISHED = re.compile(r"tmp[a-z0-9_]{8}")  # as Python's tempfile names what python-tuf then renames


@dataclass(frozen=True, slots=True)
class Bundle:
    files: MetadataFiles
    documents: Mapping[str, bytes]  # by target path
    checked_at: float  # Unix seconds of the last check with the repository


def load_bundle(path: Path) -> Bundle | None:
    """The bundle as written; None when there is none, or it cannot be read (then the network has to help)."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        stored = _Stored.model_validate_json(raw)
    except ValidationError as error:
        log.warning("trust_bundle_unreadable", path=str(path), faults=error.error_count())
        return None
    roles = {name: text.encode() for name, text in stored.roles.items()}
    files = MetadataFiles(stored.timestamp.encode(), stored.snapshot.encode(), stored.targets.encode(), roles)
    return Bundle(files, {name: text.encode() for name, text in stored.documents.items()}, stored.checked_at)


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Durable on return."""
    files = bundle.files
    stored = {
        "format": FORMAT,
        "checked_at": bundle.checked_at,
        "timestamp": files.timestamp.decode(),
        "snapshot": files.snapshot.decode(),
        "targets": files.targets.decode(),
        "roles": {name: data.decode() for name, data in files.roles.items()},
        "documents": {name: data.decode() for name, data in bundle.documents.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(stored).encode())


def metadata_file(folder: Path, role: str) -> Path:
    """Where python-tuf keeps a role (never root)."""
    return folder / f"{quote(role, '')}.json"


def seed(folder: Path, files: MetadataFiles) -> None:
    """Put back what python-tuf's folder has lost: files that are missing, unreadable or older than the bundle's."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"timestamp": files.timestamp, "snapshot": files.snapshot, "targets": files.targets, **files.roles}
    for role, data in named.items():
        path = metadata_file(folder, role)
        held = version_of(path.read_bytes()) if path.exists() else None
        if held is None or held < (version_of(data) or 0):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)


def sweep(folder: Path) -> None:
    """Remove what python-tuf was writing when an earlier process ended: it never looks at those files again."""
    for path in folder.glob("tmp*"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what python-tuf wrote durable, also after a check that failed half-way: it has seen newer versions."""
    for path in (*folder.glob("*.json"), *(folder / "root_history").glob("*.json")):
        _fsync(path)
    for path in (folder / "root_history", folder):
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Stored(Document):
    format: int
    checked_at: float
    timestamp: str
    snapshot: str
    targets: str
    roles: dict[str, str]
    documents: dict[str, str]
