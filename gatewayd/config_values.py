"""Kinds of values in the configuration: addresses, URLs, paths and files with secrets. Each raises ValueError in words."""

import ipaddress
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationInfo

from gatewayd.cloud.messages import DeltaFormat
from gatewayd.errors import ConfigError
from radios.zigbee.quirks import Quirk, quirks_from

ROOT_MAX_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret that is in a file. It is read at each use, and kept by nobody."""

    path: Path

    def read(self) -> str:
        """The text of the file without white space around it. ConfigError when it cannot be read or is empty."""
        try:
            secret = self.path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: cannot be read: {error}") from None
        if not secret:
            raise ConfigError(f"{self.path}: is empty")
        return secret


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the status endpoint listens: a loopback host and port (0: any free one), or a UNIX socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine can be meant."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host in `host:port`, `[v6]:port` or a URL; empty when there is none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


def check_url(text: str) -> str:
    """An https URL, or an http one on loopback; no user, password, query or fragment in it."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise ValueError("must be an https URL")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(f"must be https: http is accepted on loopback only, not for {host}")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or fragment")
    return text.rstrip("/")


def host_port(text: str) -> str:
    """`host:port` or `[v6]:port`."""
    try:
        parts = urlsplit(f"//{text}")
        complete = bool(parts.hostname and parts.port) and "@" not in text and parts.netloc == text
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("must be host:port")
    return text


def check_serial_or_socket(text: str) -> str:
    """An absolute device path, or socket://host:port."""
    if text.startswith("socket://"):
        host_port(text.removeprefix("socket://"))
    elif not text.startswith("/"):
        raise ValueError("must be an absolute path, best below /dev/serial/by-id, or socket://host:port")
    return text


def check_timezone(text: str) -> str:
    """A zone of the IANA database, such as Europe/Berlin."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone of this machine's database; an example is Europe/Berlin") from None
    return text


def both_or_none(key: Path | None, info: ValidationInfo) -> Path | None:
    """A client's certificate and its key."""
    if "cert" in info.data and (key is None) != (info.data["cert"] is None):
        raise ValueError("`cert` and `key` belong together")
    return key


def not_the_start(end: int, info: ValidationInfo) -> int:
    """Hours of the day from `start` to `end` that are not empty."""
    if end == info.data.get("start"):
        raise ValueError("must differ from `start`")
    return end


def check_proxy(text: str) -> str:
    """http://host:port; credentials go into keys of their own, so that no log shows them."""
    url = urlsplit(text)
    if url.scheme != "http" or not url.hostname or url.username or url.path.strip("/"):
        raise ValueError('must be like "http://proxy.example.org:3128", with credentials in keys of their own')
    return text


def minute_of_day(value: object) -> int:
    """Minutes since midnight of a time like "22:30"."""
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a time of day like "22:30"')
    return 60 * int(match[1]) + int(match[2])


def quirk_tables(value: object) -> tuple[Quirk, ...]:
    """The tables [[zigbee.quirks]]: whom they are for, and what they change."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError("must be tables: [[zigbee.quirks]]")
    return quirks_from(value)


def delta_formats(value: object) -> object:
    """Names of patch formats."""
    if not isinstance(value, list):
        return value
    unknown = [name for name in value if name not in set(DeltaFormat)]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no format of deltas; known: {', '.join(DeltaFormat)}")
    return tuple(DeltaFormat(name) for name in value)


def reset_cause_values(value: object) -> object:
    """What the values of an attribute mean: TOML has texts for keys, which hold numbers here."""
    if not isinstance(value, dict) or not value:
        raise ValueError('must be a table of values and words: { "1" = "power_on", "2" = "watchdog" }')
    found = {}
    for key, word in value.items():
        try:
            number = int(key, 0) if isinstance(key, str) else int(key)
        except ValueError:
            raise ValueError(f"{key!r} is no number") from None
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise ValueError(f"{word!r} is no word for {key!r}: letters, digits and _, at most 32")
        found[number] = word
    return found


_WORD = re.compile(r"[a-z0-9_]{1,32}")


def parse_listen(value: object) -> Listen:
    """`127.0.0.1:8470`, `[::1]:8470`, `unix:/path` or an absolute path."""
    if isinstance(value, Listen):
        return value
    text = value.removeprefix("unix:") if isinstance(value, str) else ""
    if text.startswith("/"):
        if len(os.fsencode(text)) > 107:  # sun_path of unix(7)
            raise ValueError("is too long for a UNIX socket: at most 107 bytes")
        return Listen(path=Path(text))
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.netloc != text:
        raise ValueError("must be host:port or unix:/absolute/path")
    if not is_loopback(host):
        raise ValueError(f"must be loopback or a UNIX socket, not {host}: put a proxy with TLS and log-in before it")
    return Listen(host=host, port=port)


def resolved_path(value: object, info: ValidationInfo) -> Path:
    """The path, relative to the folder of the configuration file (context `folder`)."""
    if isinstance(value, Path):
        path = value
    elif isinstance(value, str) and value and "\0" not in value:
        path = Path(value)
    else:
        raise ValueError("must be a path")
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(os.path.normpath(folder / path))


def public_file(value: object, info: ValidationInfo) -> Path:
    """A file that exists and can be read."""
    path = resolved_path(value, info)
    _mode(path)
    return path


def tuf_root(value: object, info: ValidationInfo) -> Path:
    """A file that says it is TUF root metadata; whether it can be trusted is trust's business."""
    path = public_file(value, info)
    try:
        with path.open("rb") as file:
            kind = json.loads(file.read(ROOT_MAX_BYTES))["signed"]["_type"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind != "root":
        raise ValueError(f"{path} is no root.json of a TUF repository")
    return path


def private_file(value: object, info: ValidationInfo) -> Path:
    """A readable file that is closed to group and others."""
    path = resolved_path(value, info)
    mode = _mode(path)
    if mode & 0o077 and not _is_credential(path):
        raise ValueError(f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 it")
    return path


def secret_file(value: object, info: ValidationInfo) -> SecretFile:
    """As `private_file`."""
    return SecretFile(private_file(value, info))


def not_reserved(digits: str) -> str:
    """Of a PAN's id: ValueError for what stands for none or all."""
    if set(digits) in ({"0"}, {"f"}) or digits == "fffe":
        raise ValueError(f"{digits} is reserved")
    return digits


def tuple_of_list(value: object) -> object:
    """TOML has lists; settings are immutable."""
    return tuple(value) if isinstance(value, list) else value


def _mode(path: Path) -> int:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read by this user")
    return mode


def _is_credential(path: Path) -> bool:
    # systemd's LoadCredential= guards its folder, and shows its ACL as a group-readable mode.
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.is_relative_to(folder)
