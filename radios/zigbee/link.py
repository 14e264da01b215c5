"""Keeps zigpy's application up: opens the radio, waits for its end, opens it again with back-off, until cancelled."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from radios.clock import Clock
from radios.radio import Json

_LOG = logging.getLogger(__name__)
_SHUTDOWN_TIMEOUT_S = 3.0
_STEADY_AFTER_S = 60.0  # a link that held so long starts again without back-off


class RadioLink:
    """`application` is the radio library's class; `listener` gets zigpy's events (device_initialized, ...)."""

    def __init__(
        self,
        application: Callable[[], type],
        config: dict[str, Json],
        clock: Clock,
        listener: object,
        *,
        form_network: bool,
        max_wait_s: float,
    ) -> None:
        self._application = application
        self._config = config
        self._clock = clock
        self._listener = listener
        self._form_network = form_network
        self._max_wait_s = max_wait_s
        self._lost = asyncio.Event()
        self.app: Any = None  # set before the radio starts: nodes may talk during start-up
        self.up = False
        self.error = ""
        self.starts = 0

    async def run(self, on_up: Callable[[], None]) -> None:
        attempt = 0
        while True:
            begun = self._clock.now()
            try:
                await self._once(on_up)
            except Exception as error:  # noqa: BLE001  # the radio's top task: libraries raise what they like
                self.error = f"{type(error).__name__}: {error}"
                _LOG.warning("Zigbee radio is not available: %s", self.error)
            attempt = 0 if self._clock.now() - begun > _STEADY_AFTER_S else attempt + 1
            longest = min(self._max_wait_s, 0.5 * 2**attempt)
            wait = longest * (0.5 + 0.5 * random.random())  # noqa: S311  # jitter, no secret
            await self._clock.sleep_until(self._clock.now() + wait)

    async def _once(self, on_up: Callable[[], None]) -> None:
        self._lost.clear()
        app = await self._application().new(self._config, start_radio=False)  # type: ignore[attr-defined]  # zigpy's
        self.app = app
        try:
            app.add_listener(self._listener)
            app.add_listener(self)
            await app.startup(auto_form=self._form_network)
            self.starts += 1
            self.up = True
            self.error = ""
            on_up()
            await self._lost.wait()
            _LOG.warning("Zigbee radio lost: %s", self.error)
        finally:
            self.up = False
            self.app = None
            await _shut_down(app)

    def connection_lost(self, error: Exception | None) -> None:
        """zigpy's event."""
        self.up = False
        self.error = f"connection lost: {error!r}"
        self._lost.set()


async def _shut_down(app: Any) -> None:
    try:
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
            await app.shutdown()
    except Exception as error:  # noqa: BLE001  # what is left of a lost radio may fail in any way; a new one is opened
        _LOG.warning("Zigbee radio did not shut down cleanly: %r", error)
