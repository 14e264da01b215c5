"""systemd's own judgement of the units, and what the daemon relies on in them."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("gatewayd*.*"))


@pytest.mark.services
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit_without_a_word(unit: Path, tmp_path: Path) -> None:
    """ExecStart must exist to be verified: the copies have a program that does, and are the same otherwise."""
    program = shutil.which("true")
    for each in UNITS:
        text, replaced = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={program}", each.read_text())
        assert replaced == (each.suffix == ".service")
        (tmp_path / each.name).write_text(text)
    tool = shutil.which("systemd-analyze")
    assert tool is not None, "systemd-analyze is missing: run tests/services.sh"
    command = [tool, "verify", "--man=no", str(tmp_path / unit.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def settings(unit: str) -> dict[str, str]:
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "systemd" / unit)
    return {key: value for section in parser.sections() for key, value in parser[section].items()}


def test_the_daemon_is_supervised() -> None:
    unit = settings("gatewayd.service")
    assert (unit["Type"], unit["Restart"], unit["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert unit["WatchdogSec"] == "30s"
    assert unit["ExecStart"].endswith("bin/gatewayd run --config /etc/gatewayd/gatewayd.toml")
    assert unit["StateDirectory"] == "gatewayd"


def test_the_daemon_may_read_the_clocks_state() -> None:
    """ProtectClock= forbids adjtimex, by a filter that no later one can lift: no time would ever be trusted."""
    text = (ROOT / "systemd/gatewayd.service").read_text()
    assert not re.search(r"(?m)^ProtectClock=", text)
    filters = re.findall(r"(?m)^SystemCallFilter=(.*)$", text)
    assert "adjtimex" in filters[-1]


@pytest.mark.parametrize("unit", [unit.name for unit in UNITS if unit.suffix == ".service"])
def test_no_unit_runs_as_root(unit: str) -> None:
    found = settings(unit)
    assert found["User"] not in ("", "root")
    assert found["NoNewPrivileges"] == "yes"
    assert found["CapabilityBoundingSet"] == ""


@pytest.mark.services
def test_the_services_script_is_quiet_when_all_is_there() -> None:
    done = subprocess.run([ROOT / "tests/services.sh"], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ((), "mosquitto systemd softhsm2 xdelta3 strace gcc libc6-dev"),
        (("build", "true"), "gcc libc6-dev"),
        (("build", "false"), "gcc libc6-dev python3-dev"),
    ],
    ids=["servers", "compiler", "headers"],
)
def test_the_services_script_says_what_is_missing_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], missing: str
) -> None:
    """A user who may not install anything, on a machine without the tools. `true` and `false` play a Python."""
    for tool in ("sh", "sed", "tail", "true", "false"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    script = (ROOT / "tests/services.sh").read_text().replace(":/usr/sbin:/sbin", "")
    done = subprocess.run(
        [str(tmp_path / "sh"), "-s", *arguments],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stderr == f"tests: missing: {missing}. Install with: sudo apt-get install {missing}\n"
