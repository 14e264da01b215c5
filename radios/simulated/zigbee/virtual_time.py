"""An event loop whose time passes by itself when there is nothing to do, and simulations that live on its time.

Responsible for benches and tests in which hours pass in seconds, deterministically: no real sleeping, no timer of the
operating system. Threads and sockets still work, in real time: while a thread of the executor is at work, time stands.
"""

import asyncio
import selectors
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

from radios.wall_time import WallTime

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
START_S = 1_700_000_000.0  # Unix time at which virtual time starts
_GRACE_S = 0.02  # real seconds to wait at a time for threads and sockets
_STUCK_S = 30.0  # real seconds without any event after which nothing will ever happen


class Agenda(Protocol):
    """A sans-I/O simulation: `Mesh` is one."""

    def next_deadline(self) -> float | None: ...

    def handle_timeout(self, now: float) -> None: ...


class Stuck(RuntimeError):
    """The program waits for something that cannot happen any more."""


class _Selector(selectors.DefaultSelector):
    """Asks for I/O without waiting, and lets time pass instead."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: Callable[[float | None], float] = lambda _: 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        wait_s = self.idle(timeout)
        return super().select(wait_s) if wait_s else ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual Unix time. Simulations given to `attach` are run between the loop's own events."""

    def __init__(self, start: float = START_S) -> None:
        self._virtual_now = start
        self._touched = False
        self._agendas: list[Agenda] = []
        self._threads = 0
        self._idle_real_s = 0.0
        selector = _Selector()
        super().__init__(selector)
        # asyncio runs a timer when it is due within this; a nanosecond is nothing to a float of Unix time.
        self._clock_resolution = 1e-6
        selector.idle = self._pass_time

    def time(self) -> float:
        return self._virtual_now

    def attach(self, agenda: Agenda) -> None:
        """Run this simulation on the loop's time. It must only be called from the loop's thread."""
        self._agendas.append(agenda)

    def detach(self, agenda: Agenda) -> None:
        self._agendas.remove(agenda)

    # ---- what asyncio calls

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> events.Handle:
        self._touched = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> events.TimerHandle:
        self._touched = True
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    # ---- within

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._threads -= 1

    def _pass_time(self, timeout: float | None) -> float:
        """Nothing is ready: simulate until something is. Real seconds to wait for the outside instead."""
        if self._threads:
            return _GRACE_S
        limit = None if timeout is None else self._virtual_now + timeout
        self._touched = False
        moved = False
        while not self._touched:
            due = [
                (when, at) for at, agenda in enumerate(self._agendas) if (when := agenda.next_deadline()) is not None
            ]
            when, at = min(due) if due else (None, 0)
            if when is None or (limit is not None and when > limit):
                break
            self._virtual_now = max(self._virtual_now, when)
            self._agendas[at].handle_timeout(self._virtual_now)
            moved = True
        if not self._touched and limit is not None:
            self._virtual_now = max(self._virtual_now, limit)
            moved = True
        self._idle_real_s = 0.0 if moved or self._touched else self._idle_real_s + _GRACE_S
        if self._idle_real_s > _STUCK_S:
            raise Stuck("no timer is armed, no simulation has anything to do, and no socket or thread says anything")
        return 0.0 if moved or self._touched else _GRACE_S


class LoopClock:
    """`radios.clock.Clock` on the time of a `VirtualLoop` (the running one)."""

    scale = 1.0

    def __init__(self, loop: VirtualLoop | None = None) -> None:
        self.wall = WallTime()
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(left)


def run_virtual(main: Coroutine[Any, Any, T], *, start: float = START_S) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)


def run_agenda(agenda: Agenda, now: float, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
    """Without any event loop: run a simulation for so long, or until the condition holds; the time it is then."""
    end = now + seconds
    while not until():
        deadline = agenda.next_deadline()
        if deadline is None or deadline > end:
            return end
        now = max(now, deadline)
        agenda.handle_timeout(now)
    return now
