"""The documents that the repository's metadata list: read as they are listed, written where they are listed. SHELL.

Says nothing of what a document may hold (`trust_lists.py`, `firmware.py`), and signs nothing (`metadata.py`): what is put
here is trusted once its metadata are.
"""

from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.errors import ConfigError
from gatewayd.publisher.files import write_file
from gatewayd.publisher.metadata import MetadataSet, target_file
from gatewayd.trust.repository import CAMPAIGN_KEYS, MANUFACTURERS


class Documents:
    """`folder` is that of the targets. ConfigError when what is listed is not here as it is listed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, current: MetadataSet, path: str) -> bytes:
        """The bytes of a listed target."""
        listed = current.releases if path.startswith("releases/") else current.targets
        target = listed.signed.targets[path]
        place = self._folder / target.get_prefixed_paths()[0]
        try:
            raw = place.read_bytes()
            target.verify_length_and_hashes(raw)
        except OSError as error:
            raise ConfigError(f"{place}: {error.strerror}") from error
        except RepositoryError as error:
            raise ConfigError(f"{place}: {error}") from error
        return raw

    def releases(self, current: MetadataSet) -> Iterator[tuple[str, messages.Release]]:
        """By path, in no order."""
        for path in current.releases.signed.targets:
            raw = self.read(current, path)
            yield path, messages.parse(messages.Release, raw, path, messages.RELEASE_MAX_BYTES)

    def campaign_keys(self, current: MetadataSet) -> messages.CampaignKeys:
        return messages.parse(messages.CampaignKeys, self.read(current, CAMPAIGN_KEYS), CAMPAIGN_KEYS)

    def manufacturers(self, current: MetadataSet) -> messages.Manufacturers:
        return messages.parse(messages.Manufacturers, self.read(current, MANUFACTURERS), MANUFACTURERS)

    def put(self, current: MetadataSet, path: str, data: bytes) -> None:
        """List it under targets; the role is still to be signed."""
        current.targets.signed.targets[path] = target = target_file(path, data)
        self._write(target, data)

    def put_release(self, current: MetadataSet, path: str, data: bytes) -> None:
        """List it under releases; the role is still to be signed."""
        current.releases.signed.targets[path] = target = target_file(path, data)
        self._write(target, data)

    def _write(self, target: TargetFile, data: bytes) -> None:
        for name in target.get_prefixed_paths():
            write_file(self._folder / name, data)
