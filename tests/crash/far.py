"""The gateway's end of the pipe to the world: a mesh like the simulated one, on which the simulated radio library stands."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.node import VirtualNode


class FarMesh:
    """As `Mesh` for the radio library, and an agenda for the loop: every call is answered by the world before it returns.

    `nodes` are copies: who they are, not what they hold.
    """

    def __init__(self, connection: Connection, nodes: dict[str, VirtualNode]) -> None:
        self._connection = connection
        self.nodes = nodes
        self.route_recorded: object = None
        self._coordinator: Any = None
        self._done: dict[int, Callable[[bool], None]] = {}
        self._calls = 0
        self._deadline: float | None = None
        self.ask("listen", False)  # when something is due

    def ask(self, name: str, *arguments: object) -> Any:
        """One request to the world; what it has to tell is told before the answer is returned."""
        self._connection.send((name, arguments))
        result, news, self._deadline = self._connection.recv()
        for what, key, more in news:
            if what == "done":
                self._done.pop(key)(more)
            elif self._coordinator is not None and what == "frame":
                self._coordinator.frame_received(self.nodes[key], more)
            elif self._coordinator is not None:
                self._coordinator.node_changed(self.nodes[key], more)
        return result

    # -- agenda

    def next_deadline(self) -> float | None:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        self.ask("pass_time", now)

    # -- mesh

    @property
    def coordinator(self) -> Any:
        return self._coordinator

    @coordinator.setter
    def coordinator(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self.ask("listen", coordinator is not None)

    def unicast(
        self, destination: int, frame: ApsFrame, now: float, *, acknowledged: bool, done: Callable[[bool], None]
    ) -> None:
        self._calls += 1
        self._done[self._calls] = done
        self.ask("unicast", self._calls, destination, frame, now, acknowledged)

    def broadcast(self, frame: ApsFrame, now: float, *, to_sleepy: bool = False) -> None:
        self.ask("broadcast", frame, now, to_sleepy)

    def permit_joining(self, seconds: float, now: float) -> None:
        self.ask("permit_joining", seconds, now)
