"""Failures of tasks: found out without losing a cancellation, and put into words for logs and operators."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiomqtt

from gatewayd.errors import GatewaydError


async def outcome_of(work: Coroutine[Any, Any, None], name: str) -> BaseException | None:
    """How it failed, if it did. In a task of its own, so that being cancelled is never mixed up with its failure.

    (A task group whose child fails while the group is cancelled raises the failure, and the cancellation is lost.)
    """
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved; who cancels us no longer cares
        raise
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _first(error: BaseException) -> BaseException:
    """The first real error in nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def code_of(error: BaseException) -> str:
    error = _first(error)
    if isinstance(error, GatewaydError):
        return error.code
    return "unavailable" if isinstance(error, aiomqtt.MqttError | OSError) else "bug"


def text_of(error: BaseException) -> str:
    error = _first(error)
    text = str(error) or type(error).__name__
    return text if error.__cause__ is None else f"{text} ({error.__cause__})"
