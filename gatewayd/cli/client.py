"""Asks the daemon's status endpoint, over TCP on loopback or a UNIX socket. Blocking: for the command line only."""

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gatewayd.config_values import Listen, parse_listen
from gatewayd.errors import ConfigError, Refused, Unavailable
from gatewayd.status.token import TOKEN_FILE

TIMEOUT_S = 130.0  # a radio command may take the endpoint's whole limit
ANSWER_MAX_BYTES = 32 * 2**20

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """One daemon. `token_file` is read only to change something."""

    listen: Listen
    token_file: Path | None = None

    @classmethod
    def at(cls, url: str, token_file: Path | None = None) -> "Client":
        """From `http://127.0.0.1:8470` or `unix:/path`. ConfigError when it is neither, or not this machine."""
        try:
            return cls(parse_listen(url.removeprefix("http://").rstrip("/")), token_file)
        except ValueError as error:
            raise ConfigError(f"{url}: {error}") from None

    def get(self, *path: str, **query: str | int) -> Answer:
        """Refused when the daemon refuses, Unavailable when it does not answer."""
        return self._ask("GET", path, query, None, {})

    def post(self, *path: str, body: Answer) -> Answer:
        return self._ask("POST", path, {}, json.dumps(body), self._operator())

    def _operator(self) -> dict[str, str]:
        if self.token_file is None:
            raise ConfigError(f"needs the operator's token: --config FILE, or --token-file .../{TOKEN_FILE}")
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.token_file}: cannot be read, are you the daemon's user? {error}") from None
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def _ask(
        self, method: str, path: tuple[str, ...], query: dict[str, str | int], body: str | None, headers: dict[str, str]
    ) -> Answer:
        target = "/api/v1/" + "/".join(quote(part, safe="") for part in path)
        if query:
            target += "?" + urlencode(query)
        connection = _connection(self.listen)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            raw = response.read(ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"no daemon answers at {self.listen}: {error}") from None
        finally:
            connection.close()
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unavailable(f"what answers at {self.listen} is no gatewayd (status {response.status})")
        if "error" in answer:
            raise Refused(str(answer["error"].get("code")), str(answer["error"].get("detail")))
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _connection(listen: Listen) -> http.client.HTTPConnection:
    if listen.path is not None:
        return _UnixConnection(listen.path)
    return http.client.HTTPConnection(listen.host, listen.port, timeout=TIMEOUT_S)
