"""`gatewayd demo` as a process: what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 60.0


def processes_naming(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue  # it has just ended
        if os.fsencode(folder) in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


@pytest.mark.services
@pytest.mark.parametrize(("number", "options", "status"), [(signal.SIGINT, [], 0), (signal.SIGTERM, ["--once"], 130)])
def test_a_signal_ends_the_demo_and_all_its_processes(
    tmp_path: Path, number: signal.Signals, options: list[str], status: int
) -> None:
    folder, log = tmp_path / "site", tmp_path / "log"
    command = [sys.executable, "-m", "gatewayd", "demo", "--keep", str(folder), *options]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as demo:
        try:
            end = time.monotonic() + LIMIT_S
            while "status page" not in log.read_text():
                assert demo.poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            assert len(processes_naming(folder)) >= 3  # itself, the broker, the daemon
            demo.send_signal(number)
            assert demo.wait(LIMIT_S) == status, log.read_text()
        finally:
            demo.kill()
    assert processes_naming(folder) == []
    assert "Traceback" not in log.read_text()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    command = [sys.executable, "-m", "gatewayd", "demo", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
