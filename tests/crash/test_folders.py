"""What a power cut leaves, as `interpose.c` keeps it: names as of the last sync of their folder, files as of their own."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import interpose

pytestmark = pytest.mark.services

WRITER = """
import os, sys
from pathlib import Path
from gatewayd.folders import make_folder, sync
from tests.crash.interpose import How, arm

state, durable = Path(sys.argv[1]), Path(sys.argv[2])
arm(state, durable.with_name("calls"), 0, How.CUT, durable)
make_folder(state / "made" / "with-care")
(state / "in-haste").mkdir()
for name in ("synced", "forgotten", "cut"):
    with (state / "made" / "with-care" / name).open("wb") as file:
        file.write(b"first ")
        file.flush()
        if name != "forgotten":
            os.fsync(file.fileno())
        file.write(b"second")
        file.flush()
        if name == "synced":
            os.fsync(file.fileno())
sync(state / "made" / "with-care")
(state / "made" / "with-care" / "later").touch()
(state / "made" / "with-care" / "synced").rename(state / "made" / "with-care" / "renamed")
(state / "old").unlink()
"""

PUBLISHER = """
import hashlib, sys
from pathlib import Path
from gatewayd.publisher.files import copy_file, remove_file, write_file
from gatewayd.publisher.keys import write_private
from tests.crash.interpose import How, arm

state, durable = Path(sys.argv[1]), Path(sys.argv[2])
arm(state, durable.with_name("calls"), 0, How.CUT, durable)
write_file(state / "targets" / "releases" / "meter" / "1.2.0.json", b"document")
copy_file(Path(sys.argv[3]), state / "payloads" / "image", sys.argv[4])
write_private(state / "keys" / "deep" / "root.pem", b"key")
remove_file(state / "old")
"""


def left(state: Path) -> dict[str, bytes | bool]:
    """Files with their bytes, folders with False."""
    return {str(path.relative_to(state)): path.is_file() and path.read_bytes() for path in state.rglob("*")}


def test_what_the_publisher_writes_survives_with_the_folders_on_the_way(tmp_path: Path) -> None:
    library = interpose.build(tmp_path)
    state, durable, image = tmp_path / "state", tmp_path / "durable", tmp_path / "image"
    state.mkdir()
    durable.mkdir()
    image.write_bytes(b"image")
    (state / "old").write_bytes(b"there before")
    digest = hashlib.sha256(b"image").hexdigest()
    command = [sys.executable, "-c", PUBLISHER, str(state), str(durable), str(image), digest]
    subprocess.run(command, cwd=interpose.ROOT, env=interpose.preloaded(library), check=True)
    interpose.cut_power(state, durable)
    assert {name: data for name, data in left(state).items() if data is not False} == {
        "targets/releases/meter/1.2.0.json": b"document",
        "payloads/image": b"image",
        "keys/deep/root.pem": b"key",
    }


def test_a_folder_made_durable_survives_and_another_does_not(tmp_path: Path) -> None:
    library = interpose.build(tmp_path)
    state, durable = tmp_path / "state", tmp_path / "durable"
    state.mkdir()
    durable.mkdir()
    (state / "old").write_bytes(b"there before")
    command = [sys.executable, "-c", WRITER, str(state), str(durable)]
    subprocess.run(command, cwd=interpose.ROOT, env=interpose.preloaded(library), check=True)
    interpose.cut_power(state, durable)
    assert left(state) == {
        "old": b"there before",  # its end was not made durable
        "made": False,
        "made/with-care": False,
        "made/with-care/synced": b"first second",
        "made/with-care/forgotten": b"",
        "made/with-care/cut": b"first ",
    }
