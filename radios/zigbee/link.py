"""Keeps zigpy's application up: opens the radio, waits for its end, opens it again with back-off, until cancelled.

Also the one place where something is done with a dongle that has no network, or apart from it: forming, restoring.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from zigpy.exceptions import NetworkNotFormed

from radios.clock import Clock
from radios.errors import LinkError
from radios.radio import Json
from radios.zigbee.device_table import make_device_table

_LOG = logging.getLogger(__name__)
_SHUTDOWN_TIMEOUT_S = 3.0
_START_TIMEOUT_S = 180.0  # a network that is formed scans all channels; a library that hangs must not hang for ever
_STEADY_AFTER_S = 60.0  # a link that held so long starts again without back-off

T = TypeVar("T")
Errand = Callable[[Any], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    do: Callable[[], Awaitable[None]]
    outcome: asyncio.Future[Any]


class RadioLink:
    """`application` is the radio library's class; `listener` gets zigpy's events (device_initialized, ...).

    `known_network` says in words which network the nodes are in, given zigpy's application: where there is one, a dongle
    without a network is left alone. `replacement` is what brings one into it after all, if there is such. `forming` is
    zigpy's configuration of a network that is formed.
    """

    def __init__(
        self,
        application: Callable[[], type],
        config: dict[str, Json],
        clock: Clock,
        listener: object,
        *,
        form_network: bool,
        max_wait_s: float,
        known_network: Callable[[Any], str] = lambda _: "",
        replacement: Callable[[], Errand[object] | None] = lambda: None,
        forming: Mapping[str, Json] | None = None,
    ) -> None:
        self._application = application
        self._config = config
        self._clock = clock
        self._listener = listener
        self._form_network = form_network
        self._max_wait_s = max_wait_s
        self._known_network = known_network
        self._replacement = replacement
        self._forming = dict(forming or {})
        self._ended = asyncio.Event()  # the link was lost, or an errand waits
        self._errands: list[_Waiting] = []
        self._up_since: float | None = None
        self.app: Any = None  # set before the radio starts: nodes may talk during start-up
        self.up = False
        self.error = ""
        self.starts = 0

    async def run(self, on_up: Callable[[], None]) -> None:
        try:
            await self._serve(on_up)
        finally:
            while self._errands:
                self._errands.pop().outcome.cancel()

    async def _serve(self, on_up: Callable[[], None]) -> None:
        attempt = 0
        while True:
            self._ended.clear()
            while self._errands:
                await self._errands.pop(0).do()
            self._up_since = None
            wait_again = True
            try:
                wait_again = await self._once(on_up)
            except Exception as error:  # noqa: BLE001  # the radio's top task: libraries raise what they like
                self.error = f"{type(error).__name__}: {error}"
                _LOG.warning("Zigbee radio is not available: %s", self.error)
            if self._errands or not wait_again:
                continue
            held = self._up_since is not None and self._clock.now() - self._up_since > _STEADY_AFTER_S
            attempt = 0 if held else attempt + 1
            longest = min(self._max_wait_s, 0.5 * 2 ** min(attempt, 16))
            wait = longest * (0.5 + 0.5 * random.random())  # noqa: S311  # jitter, no secret
            await self._rest(wait)

    async def apart(self, errand: Errand[T], *, to_form: bool = False) -> T:
        """Run `errand` on a connected application whose network is not started; the link is down meanwhile.

        `to_form`: with the settings of a network that is formed. It is done by the link's own task and finished even when the caller is cancelled. LinkError when the dongle cannot
        be opened; what the errand raises comes through.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        config = self._config_to_form() if to_form else self._config

        async def do() -> None:
            try:
                try:
                    async with asyncio.timeout(_START_TIMEOUT_S), self._connected(config) as app:
                        result = await errand(app)
                except (OSError, TimeoutError) as error:
                    raise LinkError(f"the dongle cannot be used now: {type(error).__name__}: {error}") from error
            except Exception as error:  # noqa: BLE001  # the caller judges it
                if not outcome.done():
                    outcome.set_exception(error)
            else:
                if not outcome.done():
                    outcome.set_result(result)

        self._errands.append(_Waiting(do, outcome))
        self._ended.set()
        return await outcome

    async def _once(self, on_up: Callable[[], None]) -> bool:
        """Whether to rest before the next try."""
        app = await self._new(self._config)
        self.app = app
        replacement = None
        try:
            app.add_listener(self._listener)
            app.add_listener(self)
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await app.startup(auto_form=False)
            except NetworkNotFormed:
                replacement = self._replacement()
                if replacement is None and not self._may_form(app):
                    return True
            else:
                self.starts += 1
                self.up = True
                self._up_since = self._clock.now()
                self.error = ""
                on_up()
                await self._ended.wait()
                if self._errands and not self.error:
                    _LOG.info("Zigbee radio is closed for an errand")
                    return False
                _LOG.warning("Zigbee radio lost: %s", self.error)
                return True
        finally:
            self.up = False
            self.app = None
            app.remove_listener(self)  # what an application says while it is shut down is not about the next one
            await _shut_down(app)
        if replacement is not None:
            _LOG.warning("the dongle has no network: that of the restored gateway is brought into it")
            async with asyncio.timeout(_START_TIMEOUT_S), self._connected(self._config) as fresh:
                await replacement(fresh)
            return False
        # Not with `auto_form`: forming on a channel of its choice, bellows registers twice for frames, and would hand
        # every one over twice. So the network is formed apart, and started by an application that is new.
        _LOG.warning("the dongle has no network: a new one is formed")
        async with asyncio.timeout(_START_TIMEOUT_S), self._connected(self._config_to_form()) as fresh:
            await fresh.form_network()
        return False

    def _may_form(self, app: Any) -> bool:
        known = self._known_network(app)
        if known:
            self.error = (
                f"the dongle has no network, but the nodes are in one ({known}): none is formed, it would leave them "
                "behind. Bring it back with `gatewayd zigbee restore BACKUP`, or begin anew with `gatewayd zigbee form`"
            )
        elif not self._form_network:
            self.error = "the dongle has no network, and none may be formed"
        else:
            return True
        _LOG.error("Zigbee: %s", self.error)
        return False

    @contextlib.asynccontextmanager
    async def _connected(self, config: dict[str, Json]) -> AsyncIterator[Any]:
        app = await self._new(config)
        try:
            await app.connect()
            yield app
        finally:
            await _shut_down(app)

    async def _new(self, config: dict[str, Json]) -> Any:
        """An application with its database open; one that nobody wants any more is closed again."""
        if isinstance(path := config.get("database_path"), str):
            await asyncio.to_thread(make_device_table, Path(path))
        making = asyncio.ensure_future(self._application().new(config, start_radio=False))  # type: ignore[attr-defined]  # zigpy's
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await _shut_down(await making)
            raise

    def _config_to_form(self) -> dict[str, Json]:
        return {**self._config, "network": self._forming}

    async def _rest(self, wait_s: float) -> None:
        """Shorter when an errand comes."""
        sleep = asyncio.ensure_future(self._clock.sleep_until(self._clock.now() + wait_s))
        called = asyncio.ensure_future(self._called())
        try:
            await asyncio.wait({sleep, called}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            called.cancel()

    async def _called(self) -> None:
        while not self._errands:
            self._ended.clear()
            await self._ended.wait()

    def connection_lost(self, error: Exception | None) -> None:
        """zigpy's event."""
        self.up = False
        self.error = f"connection lost: {error!r}"
        self._ended.set()


async def _shut_down(app: Any) -> None:
    try:
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
            await app.shutdown()
    except Exception as error:  # noqa: BLE001  # what is left of a lost radio may fail in any way; a new one is opened
        _LOG.warning("Zigbee radio did not shut down cleanly: %r", error)
