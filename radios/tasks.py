"""Tasks of a radio that nobody waits for: what one raises is logged and ends nothing else. SHELL.

Who owns the group of tasks gives and takes it; not responsible for what the tasks do.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

_LOG = logging.getLogger(__name__)


class RadioTasks:
    """Between `begin` and `end` work is run; before and after, it is closed without a step."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None

    @property
    def open(self) -> bool:
        return self._group is not None

    def begin(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def end(self) -> None:
        self._group = None

    def spawn(self, work: Coroutine[Any, Any, object] | Awaitable[object]) -> None:
        """Run as a task of this radio; what it raises is our own mistake, is logged, and ends nothing else."""
        task_body = guarded(work)
        try:
            if self._group is not None:
                task = self._group.create_task(task_body)
                if isinstance(work, Coroutine):
                    task.add_done_callback(lambda _: work.close())  # one that is cancelled before its first step
                return
        except RuntimeError:
            pass  # the group is shutting down
        task_body.close()
        if isinstance(work, Coroutine):
            work.close()


async def guarded(work: Awaitable[object]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001  # the top of every task of the radio
        _LOG.exception("radio: a task failed")
