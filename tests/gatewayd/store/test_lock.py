"""One daemon, or one restore, on a state folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.errors import StoreError
from gatewayd.store.lock import StateLock


def test_the_second_is_told_who_has_it_and_then_gets_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with StateLock(folder):
        with (
            pytest.raises(StoreError, match=rf"in use by another gatewayd \(process {os.getpid()}\)"),
            StateLock(folder),
        ):
            pass
        with pytest.raises(StoreError), StateLock(folder):
            pass
    with StateLock(folder):
        assert (folder / "lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.services
def test_it_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gatewayd.store.lock import StateLock\n"
        "StateLock(Path(sys.argv[1])).__enter__()\nprint('locked', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "locked\n"), done.stderr
    with StateLock(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_makes_in_the_daemons_folder_is_the_daemons(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    with StateLock(folder):
        made = (folder / "lock").stat()
        assert (made.st_uid, made.st_gid) == (4711, 4712)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/state"), StateLock(tmp_path / "file" / "state"):
        pass
