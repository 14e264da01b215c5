"""Sequences of commands in one payload, and the answers that a package gives."""

from collections.abc import Mapping
from dataclasses import dataclass

PACKAGE_VERSION = 0x00


@dataclass(frozen=True, slots=True)
class Answer:
    """One command to send up. `within_s`: at a random moment of that span, to spare the gateway (0: with the others)."""

    payload: bytes
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Commands:
    commands: tuple[tuple[int, bytes], ...]
    complete: bool  # False: what follows the last command made no sense


def split_commands(payload: bytes, lengths: Mapping[int, int]) -> Commands:
    """Cut a payload into (CID, body) by the body lengths; stops at the first unknown or cut-off command."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(payload):
        length = lengths.get(payload[at])
        if length is None or at + 1 + length > len(payload):
            return Commands(tuple(found), complete=False)
        found.append((payload[at], payload[at + 1 : at + 1 + length]))
        at += 1 + length
    return Commands(tuple(found), complete=True)


def package_version_answer(package: int, version: int) -> Answer:
    return Answer(bytes([PACKAGE_VERSION, package, version]))
