"""zigpy's values as plain JSON, and plain JSON as zigpy's values.

enumeration  {"value": 1, "name": "Up_closed"}; `name` null where zigpy knows none. Taken: either of them, or both.
bitmap       {"value": 3, "flags": ["Alarm_1", "Alarm_2"]}. Taken: the number or the list of flags.
truth value, number, text as they are; NaN and infinity null; octets as hexadecimal digits; addresses and keys as
zigpy writes them; structures as objects, lists as lists. An enumeration or bitmap without names is a number.
"""

import enum
import math
from typing import Any, Final

import zigpy.types as t
import zigpy.zcl.foundation as zcl

from radios.errors import Unsupported
from radios.radio import Json

MAX_TEXT: Final = 1024
_MAX_ITEMS: Final = 256
_MAX_DEPTH: Final = 6


def plain(value: Any, depth: int = 0) -> Json:
    """The value as JSON can say it; never raises, sizes bounded."""
    if value is None or depth > _MAX_DEPTH or isinstance(value, t.NoData):
        return None
    if isinstance(value, bool | t.Bool):
        return bool(value)
    if isinstance(value, enum.Enum):
        return _enumeration(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray):
        return bytes(value[: MAX_TEXT // 2]).hex()
    if isinstance(value, t.EUI64 | t.KeyData):
        return str(value)
    if isinstance(value, str):
        # A surrogate, as a node may well send it, could not be published.
        return str(value)[:MAX_TEXT].encode("utf-8", "replace").decode()
    if isinstance(value, zcl.TypeValue):
        return plain(value.value, depth + 1)
    if isinstance(value, t.Struct):
        return fields_of(value, depth + 1)
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value[:_MAX_ITEMS]]
    return str(value)[:MAX_TEXT]


def fields_of(value: Any, depth: int = 0) -> dict[str, Json]:
    """The fields of a structure or command that are there."""
    found = ((field.name, getattr(value, field.name)) for field in type(value).fields)
    return {name: plain(item, depth) for name, item in found if item is not None}


def typed(value: Json, kind: Any, where: str) -> Any:
    """The JSON value as one of zigpy's types. Unsupported says where and what was expected."""
    try:
        return _typed(value, kind, where)
    except Unsupported:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise Unsupported(f"{where}: {value!r} is no {_name(kind)}: {error}") from None


def zcl_type(name: Json, where: str) -> Any:
    """A ZCL data type (foundation.DataType) by its name in zigpy or its number. Unsupported when there is none."""
    try:
        if isinstance(name, str):
            return zcl.DataType[name if name in zcl.DataType.__members__ else f"{name}_"]
        if isinstance(name, int) and not isinstance(name, bool):
            return zcl.DataType.from_type_id(name)
    except (KeyError, ValueError):
        pass
    raise Unsupported(f"{where}: {name!r} is no ZCL data type (uint8, int16, bool, string, ... or its number)")


def is_analog(kind: Any) -> bool:
    """Whether a ZCL data type is one that changes by amounts, so that reports may wait for an amount."""
    return kind.type_class is zcl.Analog


def _enumeration(value: Any) -> Json:
    known = type(value).__members__
    if not known:
        return int(value)
    if isinstance(value, enum.Flag):
        flags: list[Json] = [name for name, flag in known.items() if flag.value and flag in value]
        return {"value": int(value), "flags": flags}  # type: ignore[call-overload]  # zigpy's are numbers too
    return {"value": int(value), "name": value.name if value.name in known else None}


def _typed(value: Json, kind: Any, where: str) -> Any:
    if issubclass(kind, t.Bool):
        if value not in (True, False, 0, 1):
            raise ValueError("true or false")
        return kind(bool(value))
    if issubclass(kind, enum.Enum):
        return _member(value, kind)
    if issubclass(kind, t.EUI64 | t.KeyData):
        return kind.convert(_expect(value, str))
    if issubclass(kind, t.Struct):
        return _structure(_expect(value, dict), kind, where)
    if issubclass(kind, bytes):
        return kind(bytes.fromhex(_expect(value, str)))
    if issubclass(kind, str):
        return kind(_expect(value, str))
    if issubclass(kind, int):
        return kind(_expect(value, int))
    if issubclass(kind, float):
        return kind(_expect(value, int, float))
    if issubclass(kind, list) and hasattr(kind, "_item_type"):
        return kind([_typed(item, kind._item_type, where) for item in _expect(value, list)])
    raise TypeError("such values cannot be given here")


def _member(value: Json, kind: Any) -> Any:
    if isinstance(value, dict):
        value = value.get("value", value.get("name", value.get("flags")))
    if isinstance(value, list) and issubclass(kind, enum.Flag):
        whole = 0
        for name in value:
            whole |= int(_by_name(name, kind))
        return kind(whole)
    if isinstance(value, str):
        return _by_name(value, kind)
    return kind(_expect(value, int))


def _by_name(name: Json, kind: Any) -> Any:
    if name not in kind.__members__:
        raise ValueError(f"known: {', '.join(list(kind.__members__)[:40]) or 'numbers only'}")
    return kind[name]


def _structure(value: Any, kind: Any, where: str) -> Any:
    known = {field.name: field for field in kind.fields}
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    made = {name: _typed(item, known[name].type, f"{where}.{name}") for name, item in value.items()}
    whole = kind(**made)
    whole.serialize()  # raises for what is missing
    return whole


def _expect(value: Json, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
