"""How the sessions' frames leave: what the service asks of whoever owns the radio."""

from collections.abc import Coroutine
from typing import Any, Protocol

from radios.radio import NodeId


class Transmit(Protocol):
    """Sends a frame; True when it was acknowledged, or without `acknowledged`, when the dongle is content."""

    def __call__(
        self, node: NodeId, endpoint: int, frame: bytes, *, acknowledged: bool = True
    ) -> Coroutine[Any, Any, bool]: ...
