"""What goes wrong with messages of the host, or with the whole dongle, on request."""

from dataclasses import dataclass


@dataclass(slots=True)
class Faults:
    """How many of the next messages. Set the numbers; they count down. `hung` stays until it is taken away."""

    busy: int = 0  # sendUnicast answered NETWORK_BUSY
    undelivered: int = 0  # accepted, then messageSentHandler says DELIVERY_FAILED; nothing goes on air
    swallowed: int = 0  # accepted, and messageSentHandler never comes; nothing goes on air
    hung: bool = False  # the dongle says nothing any more, not even that it got a frame (ASH), and hears nothing
