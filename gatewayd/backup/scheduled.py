"""Backups of the whole gateway at intervals, into a folder that the operator chose: best on another disk or machine. SHELL.

What fails is said in the status and the gateway's health and tried again; a backup is removed only when newer ones are there.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from gatewayd.backup.take import file_name, take
from gatewayd.config import Config
from gatewayd.errors import ConfigError, StoreError
from radios.radio import Json

SETTLE_S = 120.0  # after the start: radios come up first
RETRY_S = 600.0
LOOK_S = 600.0  # not all at once: the wall clock may be set
OVERDUE_TIMES = 2.0  # of the interval: the last one that succeeded is older than it may be, whatever keeps the next

_STAMP = re.compile(r"\d{8}T\d{6}Z")

log = structlog.get_logger()


class ScheduledBackups:
    """`fresh` keeps a backup of the radios' networks in the state folder first. `passphrase` reads it, at each use."""

    def __init__(
        self,
        state: Path,
        gateway: str,
        folder: Path,
        every_s: float,
        keep: int,
        wall_now: Callable[[], float],
        fresh: Callable[[], Awaitable[object]],
        *,
        passphrase: Callable[[], str | None] = lambda: None,
        payloads: bool = False,
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._folder = folder
        self._every_s = every_s
        self._keep = keep
        self._wall_now = wall_now
        self._fresh = fresh
        self._passphrase = passphrase
        self._payloads = payloads
        self._made_at: float | None = None
        self._error = ""
        self._tried = False

    @classmethod
    def configured(
        cls, config: Config, wall_now: Callable[[], float], fresh: Callable[[], Awaitable[object]]
    ) -> Self | None:
        """None without a table [backup]."""
        settings, gateway = config.backup, config.gateway
        if settings is None:
            return None
        secret = settings.passphrase_file
        return cls(
            gateway.state_dir,
            gateway.id,
            settings.folder,
            settings.every_h * 3600.0,
            settings.keep,
            wall_now,
            fresh,
            passphrase=(lambda: None) if secret is None else secret.read,
            payloads=settings.payloads,
        )

    async def run(self) -> None:
        """Until cancelled."""
        self._made_at = await asyncio.to_thread(self._newest)
        await asyncio.sleep(SETTLE_S)
        while True:
            if self._made_at is not None and 0 <= self._wall_now() - self._made_at < self._every_s:
                await asyncio.sleep(LOOK_S)
            elif not await self.make():
                await asyncio.sleep(RETRY_S)

    async def make(self) -> bool:
        """One now. False when that failed, which is logged once per cause."""
        await self._fresh()
        now = self._wall_now()
        try:
            path = await asyncio.to_thread(self._take, datetime.fromtimestamp(now, UTC))
        except (StoreError, ConfigError, OSError) as error:
            if str(error) != self._error:
                log.warning("backup_failed", error=str(error))
            self._error, self._tried = str(error), True
            return False
        self._made_at, self._error, self._tried = now, "", True
        log.info("backup", file=path.name)
        return True

    def files(self) -> list[Path]:
        """Of this gateway, the oldest first."""
        before, _, after = file_name(self._gateway, datetime.fromtimestamp(0, UTC)).partition("19700101T000000Z")
        found = [path for path in self._folder.iterdir() if path.name.startswith(before) and path.name.endswith(after)]
        return sorted(p for p in found if _STAMP.fullmatch(p.name[len(before) : -len(after)]))

    def status(self) -> dict[str, Json]:
        """For operators. `age_s`: of the newest one that succeeded."""
        if self._made_at is None:
            return {"made_at": None, "age_s": None, "failing": bool(self._error), "error": self._error}
        made_at = datetime.fromtimestamp(self._made_at, UTC).isoformat("T", "seconds")
        return {
            "made_at": made_at,
            "age_s": round(self._age_s(self._made_at)),
            "failing": bool(self._error),
            "error": self._error,
        }

    def trouble(self) -> tuple[str, str] | None:
        """(code, detail) for the gateway's health, the code empty when nothing is wrong. None: not known yet after a start."""
        made = self._made_at
        ago = (
            "none was made since the start"
            if made is None
            else f"the last one was made {datetime.fromtimestamp(made, UTC):%F %T}Z"
        )
        if self._error:
            return "backup_failed", f"{self._error}; {ago}"
        if made is not None and self._age_s(made) > OVERDUE_TIMES * self._every_s:
            return "backup_overdue", ago
        fresh = made is not None and self._age_s(made) < self._every_s
        return ("", "") if self._tried or fresh else None

    def _age_s(self, made_at: float) -> float:
        return max(0.0, self._wall_now() - made_at)

    def _take(self, now: datetime) -> Path:
        if not self._folder.is_dir():
            # It may be a disk that is not there: a folder made in its place would fill this one.
            raise StoreError(f"{self._folder}: is no folder")
        path = self._folder / file_name(self._gateway, now)
        take(self._state, self._gateway, path, now, passphrase=self._passphrase(), payloads=self._payloads)
        # Those from the future were made while the clock was ahead: as the newest they would stay for ever, and each that is
        # made now would go at once.
        stamped = sorted(self.files(), key=lambda file: (file.name <= path.name, file.name))
        for old in stamped[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def _newest(self) -> float | None:
        try:
            files = self.files()
        except OSError:
            return None
        return files[-1].stat().st_mtime if files else None
