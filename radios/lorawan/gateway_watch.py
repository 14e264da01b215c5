"""What the gateway bus tells of the air: other people's downlinks enter the ledgers, our own frames are judged. PURE.

Our multicasts are in the ledgers since they were handed over; everything else that a gateway sends, our single downlinks
included, is booked as it is heard, because only the bus knows by which gateway and in which receive window it went.
"""

from collections import OrderedDict
from collections.abc import Callable

from radios.lorawan.air_book import AirBook
from radios.lorawan.gateway_bus import TX_DUTY_CYCLE, FrameKey, GatewayAck, GatewayBus, GatewayDownlink, Transmitted

_SEEN_MOST = 1024


class GatewayWatch:
    """`ours(word)` hands a gateway's word on, and says whether it is about a multicast of ours."""

    def __init__(self, book: AirBook, ours: Callable[[Transmitted], bool]) -> None:
        self.downlinks = 0
        self.acks = 0
        self.unacknowledged = 0
        self.unsaved = False  # the ledgers changed since they were journalled
        self._book = book
        self._ours = ours
        self._bus = GatewayBus()
        self._seen: OrderedDict[tuple[FrameKey | None, str], None] = OrderedDict()

    @property
    def hears(self) -> bool:
        """Whether the bus tells anything: its topics are right, and may be read."""
        return self.downlinks > 0

    def changed(self) -> None:
        """The ledgers have, by what was not heard."""
        self.unsaved = True

    def hear(self, event: GatewayDownlink | GatewayAck, now: float) -> None:
        words: list[Transmitted] = []
        match event:
            case GatewayDownlink():
                self.downlinks += 1
                self._bus.downlink(event.gateway_id, event.downlink_id, event.frames, now)
            case GatewayAck():
                self.acks += 1
                word = self._bus.ack(event.gateway_id, event.downlink_id, event.statuses)
                words += [] if word is None else [word]
        overdue = self._bus.overdue(now)
        self.unacknowledged += len(overdue)
        for word in words + overdue:
            self.unsaved |= self._take(word, now)

    def _take(self, word: Transmitted, now: float) -> bool:
        booked = self._ours(word) and self._first(word)
        ledger = self._book.ledger(word.gateway_id, word.frequency_hz)
        if ledger is None or not word.airtime_s:
            return False
        used = word.sent or not word.told  # what is not known may have been sent
        if booked and not used and word.status != TX_DUTY_CYCLE:
            ledger.give_back(word.airtime_s)  # of a full duty cycle nothing: the gateway knows better
        elif not booked and used:
            ledger.add(now, word.airtime_s)
        else:
            return False
        return True

    def _first(self, word: Transmitted) -> bool:
        """A frame is booked once; a network server that hears no acknowledgement sends it again."""
        place = word.key, word.gateway_id
        if place in self._seen:
            return False
        self._seen[place] = None
        while len(self._seen) > _SEEN_MOST:
            self._seen.popitem(last=False)
        return True
