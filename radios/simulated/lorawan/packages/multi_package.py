"""TS007, multi-package access: port 225. Only what tells the node's packages; commands of others are not taken."""

from collections.abc import Callable, Sequence

from radios.simulated.lorawan.packages.commands import Answer

_PACKAGE_VERSION, _DEV_PACKAGE = 0x00, 0x01


class MultiPackage:
    """`packages`: (id, version, port) of all that the node has."""

    package, port = 0, 225

    def __init__(self, version: int, packages: Callable[[], Sequence[tuple[int, int, int]]]) -> None:
        self.version = version
        self.malformed = 0
        self._packages = packages

    def receive(self, payload: bytes, now: float, *, multicast: bool) -> list[Answer]:
        del now
        commands, token = payload[:-1], payload[-1:]
        if multicast or not token or any(cid not in (_PACKAGE_VERSION, _DEV_PACKAGE) for cid in commands):
            self.malformed += 1
            return []
        answer = b""
        for cid in commands:
            if cid == _PACKAGE_VERSION:
                answer += bytes([_PACKAGE_VERSION, self.package, self.version])
            else:
                told = self._packages()
                answer += bytes([_DEV_PACKAGE, len(told)]) + b"".join(bytes(entry) for entry in told)
        return [Answer(answer + token)] if answer else []

    def next_deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> list[Answer]:
        del now
        return []
