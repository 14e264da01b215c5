"""What a power cut leaves, as `interpose.c` keeps it: names as of the last sync of their folder, files as of their own."""

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


def test_a_folder_made_durable_survives_and_another_does_not(tmp_path: Path) -> None:
    library = interpose.build(tmp_path)
    state, durable = tmp_path / "state", tmp_path / "durable"
    state.mkdir()
    durable.mkdir()
    (state / "old").write_bytes(b"there before")
    command = [sys.executable, "-c", WRITER, str(state), str(durable)]
    subprocess.run(command, cwd=interpose.ROOT, env=interpose.preloaded(library), check=True)
    interpose.cut_power(state, durable)
    left = {str(path.relative_to(state)): path.is_file() and path.read_bytes() for path in state.rglob("*")}
    assert left == {
        "old": b"there before",  # its end was not made durable
        "made": False,
        "made/with-care": False,
        "made/with-care/synced": b"first second",
        "made/with-care/forgotten": b"",
        "made/with-care/cut": b"first ",
    }
