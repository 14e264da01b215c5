"""What is wrong with a configuration file, in words, and where. Pure; what may be in it is `gatewayd.config`'s."""

import difflib
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails


def fault(error: ErrorDetails, root: type[BaseModel]) -> str:
    """One fault of a file of this model, with its key."""
    location = error["loc"]
    match error["type"]:
        case "missing":
            what = "is missing"
        case "extra_forbidden":
            what = "is no known key" + _hint(location, root)
        case "value_error":
            what = str(error.get("ctx", {}).get("error", error["msg"]))
        case "string_pattern_mismatch":
            what = f"must look like {error['ctx']['pattern']}"
        case _:
            what = error["msg"][:1].lower() + error["msg"][1:]
    return f"{_key(location)}: {what}"


def line_of(text: str, location: tuple[int | str, ...]) -> int:
    """The line of a key, or of the nearest table around it; 0 when the file does not show one."""
    names = [part for part in location if isinstance(part, str)]
    table: list[str] = []
    best, depth = 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([A-Za-z0-9_.\s-]+)\]", line):
            table = [part.strip() for part in header[1].split(".")]
            here = table
        elif key := re.match(r"\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=", line):
            here = [*table, *(part.strip() for part in key[1].split("."))]
        else:
            continue
        if here == names[: len(here)] and len(here) > depth:
            best, depth = number, len(here)
    return best


def _key(location: tuple[int | str, ...]) -> str:
    """`[zigbee] device`, `[cloud.tls] ca`, `[payload] urls[0]`, or `[cloud]` for a table."""
    names = [part for part in location if isinstance(part, str)]
    index = "".join(f"[{part}]" for part in location if isinstance(part, int))
    if len(names) == 1:
        return f"[{names[0]}]"
    return f"[{'.'.join(names[:-1])}] {names[-1]}{index}"


def _hint(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    key = str(location[-1])
    known = _known_keys(location[:-1], root)
    if f"{key}_file" in known:
        return f"; secrets are given by file: {key}_file"
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _known_keys(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in location:
        annotation = model.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
