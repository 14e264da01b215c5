"""Answers on their way to one node: the one that waits for its time, and those beside the download. PURE.

The client has one request under way, so one answer waits; what it asks for anew takes its place. What is answered, and when
a block may go out, is decided elsewhere (`ota_session`, `pacing`).
"""

from radios.zigbee.ota_commands import ServerCommand
from radios.zigbee.ota_frames import default_response, reply
from radios.zigbee.session_output import Outgoing, Purpose

_ASIDES_MOST = 4


class SessionAnswers:
    """`to` is the endpoint that asked last."""

    __slots__ = ("_asides", "_waiting", "to")

    def __init__(self, to: int) -> None:
        self.to = to
        self._waiting: tuple[float, float, Outgoing] | None = None  # due, asked, frame
        self._asides: list[Outgoing] = []

    @property
    def due(self) -> float | None:
        """When the answer that waits is to go out."""
        return None if self._waiting is None else self._waiting[0]

    def reply(self, command: ServerCommand, tsn: int, now: float) -> None:
        """At once."""
        self.put(Outgoing(reply(command, tsn), self.to, Purpose.ANSWER), now, now)

    def default(self, command: int, status: int, tsn: int, now: float) -> None:
        """A default response, at once."""
        self.put(Outgoing(default_response(command, status, tsn), self.to, Purpose.ANSWER), now, now)

    def aside(self, command: ServerCommand, tsn: int) -> None:
        """To what is no matter of this download: it takes no place of its answers."""
        most = _ASIDES_MOST - 1
        self._asides = [*self._asides[-most:], Outgoing(reply(command, tsn), self.to, Purpose.ANSWER)]

    def put(self, frame: Outgoing, due: float, asked: float) -> None:
        self._waiting = due, asked, frame

    def withdraw(self) -> None:
        """What waits is not to be said any more."""
        self._waiting = None

    def take(self, now: float, stale_after_s: float) -> list[Outgoing]:
        """What is due, once. An answer that was asked for so long ago is left out: the client has asked again."""
        frames, self._asides = self._asides, []
        if self._waiting is not None and self._waiting[0] <= now:
            _, asked, frame = self._waiting
            self._waiting = None
            if now - asked <= stale_after_s:
                frames.append(frame)
        return frames
