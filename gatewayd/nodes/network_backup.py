"""Backups of a radio's network, kept as files: what a new dongle needs so that no node has to be paired again.

The radio says what is in one; here it is decided when one is made, and how many are kept. A backup holds the network's
key: the files are for the daemon's user alone, and nothing of them is logged, shown or reported.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gatewayd.folders import make_folder, sync
from radios.errors import RadioError
from radios.radio import Json, NodeCommand, NodeId, NodeObservation, Radio

SETTLE_S = 60.0  # after a node joined or left: others may follow
RETRY_S = 60.0
NEWEST_KEPT = 5  # whatever their day

_NAME = re.compile(r"[a-z]+-(\d{8})T\d{6}Z(-[a-z-]+)?\.json")

log = structlog.get_logger()


class NetworkBackups:
    """Of one radio, in `folder`: every `every_s` seconds, when nodes joined or left, and around a restore.

    Kept are the newest of each of the last `keep_days` days that have one, and the newest few.
    """

    def __init__(
        self, radio: Radio, folder: Path, every_s: float, keep_days: int, wall_now: Callable[[], float]
    ) -> None:
        self._radio = radio
        self._folder = folder
        self._every_s = every_s
        self._keep_days = keep_days
        self._wall_now = wall_now
        self._nodes: set[NodeId] = set()
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._made_at: float | None = None
        self._error = ""

    async def run(self) -> None:
        """Until cancelled. What fails is said in the status and tried again."""
        newest = await asyncio.to_thread(self.files)
        if newest:
            self._made_at = await asyncio.to_thread(lambda: newest[-1].stat().st_mtime)
        wait_s = SETTLE_S  # the radio has to come up first
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                due = self._made_at is None or self._wall_now() - self._made_at >= self._every_s
            else:
                await asyncio.sleep(SETTLE_S)
                due = True
            if due:
                self._changed.clear()
                if await self.take() is None:
                    self._changed.set()
                    await asyncio.sleep(RETRY_S)
                    continue
            wait_s = min(self._every_s, 600.0)  # not all at once: the wall clock may be set

    def observe(self, seen: NodeObservation) -> None:
        """A node that is new, or gone, makes a backup due."""
        if seen.joined is True and seen.node not in self._nodes:
            self._nodes.add(seen.node)
        elif seen.joined is False and seen.node in self._nodes:
            self._nodes.discard(seen.node)
        else:
            return
        self._changed.set()

    def changed(self) -> None:
        """The network is another one."""
        self._changed.set()

    async def take(self, reason: str = "") -> Path | None:
        """Make one now. None when that failed, which is logged once per cause. `reason`: a word for the file's name."""
        async with self._taking:
            try:
                result = await self._radio.manage(NodeCommand("backup"))
            except RadioError as error:
                self._failed(str(error))
                return None
            if not result.ok or not isinstance(result.value, dict):
                self._failed(result.detail)
                return None
            now = self._wall_now()
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
            path = self._folder / f"{self._radio.kind}-{stamp}{f'-{reason}' if reason else ''}.json"
            try:
                await asyncio.to_thread(_write_private, path, result.value)
                await asyncio.to_thread(self._rotate)
            except OSError as error:
                self._failed(f"{path}: {error.strerror}")
                return None
            self._made_at, self._error = now, ""
            log.info("network_backup", radio=self._radio.kind, file=path.name)
            return path

    def files(self) -> list[Path]:
        """The backups, the oldest first."""
        try:
            found = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(path for path in found if path.name.startswith(f"{self._radio.kind}-"))

    def status(self) -> dict[str, Json]:
        """For operators."""
        made_at = (
            None if self._made_at is None else datetime.fromtimestamp(self._made_at, UTC).isoformat("T", "seconds")
        )
        return {"made_at": made_at, "error": self._error}

    def _failed(self, why: str) -> None:
        if why != self._error:
            log.warning("network_backup_failed", radio=self._radio.kind, error=why)
        self._error = why

    def _rotate(self) -> None:
        for path in self._folder.glob(f".{self._radio.kind}-*.json.new"):  # a process was killed while it wrote
            path.unlink(missing_ok=True)
        files = self.files()
        kept = set(files[-NEWEST_KEPT:])
        by_day = {path.name.partition("-")[2][:8]: path for path in files}  # the newest of each day
        kept.update(by_day[day] for day in sorted(by_day)[-self._keep_days :])
        for path in files:
            if path not in kept:
                path.unlink(missing_ok=True)


def _write_private(path: Path, document: Json) -> None:
    """Whole or not at all, readable by its owner alone."""
    make_folder(path.parent, 0o700)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)
