import io
import json
import logging as stdlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gatewayd.service.logging import LIBRARIES, configure


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = stdlib.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: stdlib.getLogger(name).level for name in LIBRARIES}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        stdlib.getLogger(name).setLevel(old)
    stdlib.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    structlog.get_logger("gatewayd.test").info("node_version", node="zigbee:1", version=5, raw=b"\x01\xff")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "node_version",
        "node": "zigbee:1",
        "version": 5,
        "raw": "01ff",
        "level": "info",
        "logger": "gatewayd.test",
    }


def test_stdlib_logs_take_the_same_way() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    stdlib.getLogger("zigpy.application").warning("lost %s", "the dongle", extra={"key_bytes": "00ff"})
    stdlib.getLogger("radios.lorawan").info("queue\nempty")
    first, second = lines(stream)
    assert (first["event"], first["logger"], first["key_bytes"]) == ("lost the dongle", "zigpy.application", "***")
    assert (second["event"], second["level"]) == ("queue\nempty", "info")


@pytest.mark.parametrize(("level", "heard"), [("info", ["b", "d"]), ("debug", ["a", "b", "c", "d"])])
def test_libraries_are_quieter_than_we_are(level: Any, heard: list[str]) -> None:
    stream = io.StringIO()
    configure("json", level, stream)
    structlog.get_logger("gatewayd").debug("a")
    structlog.get_logger("gatewayd").info("b")
    stdlib.getLogger("bellows.ash").info("c")
    stdlib.getLogger("bellows.ash").warning("d")
    assert [line["event"] for line in lines(stream)] == heard


@pytest.mark.parametrize("style", ["console", "json"])
def test_secrets_do_not_reach_the_log(style: Any) -> None:
    stream = io.StringIO()
    configure(style, "debug", stream)
    structlog.get_logger("gatewayd").info(
        "start",
        password="hunter2",
        cloud={"MQTT_Password": "hunter2", "keys": [{"key_bytes": b"hunter2", "secret": "hunter2"}]},
        api_token="hunter2",
        token_file=None,
    )
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


@pytest.mark.parametrize("style", ["console", "json"])
def test_tracebacks_show_no_local_variables(style: Any) -> None:
    stream = io.StringIO()
    configure(style, "debug", stream)

    def fails() -> None:
        held = "hun" + "ter2"
        raise ValueError(len(held))

    try:
        fails()
    except ValueError:
        structlog.get_logger("gatewayd").exception("broken")
    assert "ValueError: 7" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_configuring_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("json", "info", first)
    configure("json", "info", second)
    structlog.get_logger("gatewayd").info("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_the_journal_is_told_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure("json", "info", stream)
        structlog.get_logger("gatewayd").error("bad")
        stream.seek(0)
        assert stream.read().startswith('<3>{"event": "bad"')


def test_the_radio_libraries_never_tell_the_networks_key() -> None:
    """bellows warns with the whole key in it, and logs frames with keys at debug."""
    stream = io.StringIO()
    configure("json", "debug", stream)
    key = ":".join(f"{byte:02x}" for byte in range(0xA0, 0xB0))
    stdlib.getLogger("bellows.ezsp.v4").warning("Couldn't add Key(key=%s, seq=0) of %s", key, "00:12:4b:00:00:00:00:01")
    stdlib.getLogger("bellows.ash").debug("Sending frame %r", bytes(range(0xA0, 0xB0)))
    stdlib.getLogger("zigpy.backups").debug("Restoring backup %s", key)
    (line,) = lines(stream)
    assert line["event"] == "Couldn't add Key(key=***, seq=0) of 00:12:4b:00:00:00:00:01"
