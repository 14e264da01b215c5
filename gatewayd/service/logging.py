"""The log: structlog and the libraries' stdlib logging through one handler, as lines for people or JSON for machines.

Responsible for form, level and for keeping secrets out by the names of keys; what is logged is the callers' business.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

LIBRARIES = ("zigpy", "bellows", "aiomqtt", "mqtt", "aiohttp", "asyncio", "tuf", "securesystemslib", "grpc", "amqtt")
"""They say at `info` what concerns only themselves: below `warning` they are heard with level `debug` only."""

KEY_HOLDERS = ("zigpy", "bellows", "zigpy_znp", "zigpy_deconz", "zigpy_xbee", "zigpy_zboss")
"""Below `info` these log frames with the network's keys in them: never heard, whatever the level."""

HIDDEN = "***"

_SECRET = re.compile(r"secret|password|passwd|token|key_bytes|authorization|private", re.IGNORECASE)
_KEY_DIGITS = re.compile(r"\b(?:[0-9a-f]{2}:){15}[0-9a-f]{2}\b", re.IGNORECASE)  # as zigpy writes a key of 128 bits
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)

Event = MutableMapping[str, Any]
Processor = Callable[[Any, str, Event], Any]


def configure(
    style: Literal["console", "json"], level: Literal["debug", "info", "warning", "error"], stream: TextIO = sys.stderr
) -> None:
    """Send every log of the process to `stream`. May be called again; replaces what was."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:1], structlog.stdlib.ExtraAdder(), *shared[1:]],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(style, stream),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    for name in KEY_HOLDERS:
        logging.getLogger(name).setLevel(max(number, logging.INFO if number <= logging.DEBUG else logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def hide_secrets(_logger: Any, _method: str, event: Event) -> Event:
    """Values whose key names a secret become `***`, at any depth; so do the digits of keys within the libraries' texts."""
    for key, value in event.items():
        event[key] = without_secrets(value, key)
        if isinstance(value, str):
            event[key] = _KEY_DIGITS.sub(HIDDEN, event[key])
    return event


def without_secrets(value: object, key: object = "") -> object:
    """The value with everything replaced that stands under a key that names a secret."""
    if isinstance(key, str) and _SECRET.search(key) and value is not None and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, Mapping):
        return {k: without_secrets(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def _renderers(style: str, stream: TextIO) -> list[Processor]:
    if style == "json":
        to_json = structlog.processors.JSONRenderer(serializer=_dumps)
        line: Processor = _with_priority(to_json) if _is_journal(stream) else to_json
        return [structlog.processors.format_exc_info, line]
    # Not the default (rich) tracebacks: they print local variables, and with them secrets.
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _dumps(event: object, **options: Any) -> str:
    options["default"] = _plain
    return json.dumps(event, ensure_ascii=False, **options)


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return str(value)


def _with_priority(renderer: Processor) -> Processor:
    def render(logger: Any, method: str, event: Event) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), 6)
        return f"<{priority}>{renderer(logger, method, event)}"

    return render


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream is journald's, as $JOURNAL_STREAM (device:inode) says; only it takes the priority off."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
