"""What was published earlier: the versions of the signed metadata that are still on the disk. SHELL."""

import json
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined] # public names, but not in its __all__

from gatewayd.errors import ConfigError


def images_before(metadata: Path, targets: Path, path: str) -> set[str]:
    """SHA-256 of the full images that the release of this path has had; empty when it never was one.

    ConfigError names a file that cannot be read.
    """
    found = set()
    place = metadata
    try:
        for place in metadata.glob("*.releases.json"):
            listed = Metadata[Targets].from_bytes(place.read_bytes()).signed.targets
            if path in listed:
                place = targets / listed[path].get_prefixed_paths()[0]
                payloads = json.loads(place.read_bytes())["payloads"]
                found |= {str(payload["sha256"]) for payload in payloads if payload["kind"] == "full"}
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RepositoryError) as error:
        raise ConfigError(f"{place}: not what was published: {error!r}") from error
    return found
