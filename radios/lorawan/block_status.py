"""What one node holds of a data block, read from its FragSessionStatusAns. PURE.

Device libraries disagree on the two numbers (protocol notes 1.6). Semtech's LoRaMac-node says the last counter seen and the
losses among the plain fragments, which never go down (`LAST`); LoRa Basics Modem says how many of the counters seen were
received and how many fragments are still missing (`COUNT`). MissingFrag is modulo 256 in both. The style is inferred
only from a pair of numbers that the other style cannot produce.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

_WRAP = 256
_LOSS_LEAST = 0.01
_LOSS_MOST = 0.9
_LOSS_UNKNOWN = 0.1
_SPARE_FRAGMENTS = 2  # the code needs 1.5 to 1.8 more than were lost, on the mean


class StatusStyle(StrEnum):
    COUNT = "count"
    LAST = "last"


@dataclass(slots=True)
class BlockStatus:
    """Running knowledge of one node. `missing` is None until it answered once."""

    nb_frag: int
    style: StatusStyle | None = None
    received: int = 0  # as the node said
    missing: int | None = None  # fragments still to be made up, as far as known
    at_counter: int = 0  # highest counter sent when `missing` was last told or estimated anew
    loss: float = _LOSS_UNKNOWN
    confirmed: int = 0  # fragments known to be on the node, never going down
    tail: int = 0  # part of `missing` that the node does not know of: plain fragments after the last one that it saw

    def take(self, received: int, missing_low: int, highest: int, *, still: bool) -> None:
        """An answer that came when `highest` had been sent; `still`: nothing else was on its way to the node."""
        self._infer_style(received, missing_low, highest, still=still)
        self.received = received
        plain = highest <= self.nb_frag
        if plain and still and self.style is StatusStyle.COUNT:
            self.missing, self.tail = max(missing_low, highest - received), 0
        elif plain or self.missing is None:
            missing = missing_low
            if self.missing is not None:
                while missing < self.missing - self.tail:
                    missing += _WRAP
            self.tail = self._tail(received, missing, highest) if still else 0
            self.missing = missing + self.tail
        elif self.style is StatusStyle.LAST:
            # It tells the losses, not what the coded fragments have repaired.
            self.missing = max(self.missing, missing_low)
        else:
            down = self.missing - (self.missing - missing_low) % _WRAP
            self.missing = down if down >= 0 else missing_low
        if plain and still and highest:
            self.loss = min(_LOSS_MOST, max(_LOSS_LEAST, self.missing / highest))
        if self.style is not StatusStyle.LAST or plain:
            self.at_counter = highest
        self._confirm(received, missing_low, highest)

    def claims_complete(self, received: int, missing_low: int) -> bool:
        """Whether the node says that it has the block. 256 missing read 0 too: the image must still be proven."""
        return missing_low == 0 and received >= self.nb_frag

    def doubtful(self, missing_low: int, highest: int) -> bool:
        """Whether the node may be complete although it says that it is not."""
        if missing_low == 1 and self.received >= self.nb_frag - 1:
            return True  # LoRa Basics Modem keeps saying 1 after a reception without loss
        return self.style is not StatusStyle.COUNT and highest > self.nb_frag

    def refuted(self, highest: int) -> None:
        """The image is not on the node, whatever the status said: at least one fragment is missing."""
        if not self.missing:
            self.missing = _WRAP if self.style is StatusStyle.COUNT and self.received < highest else 1

    def need(self, highest: int) -> int:
        """New coded fragments to send so that this node completes, by its own loss."""
        missing = self.missing if self.missing is not None else max(1, ceil(self.nb_frag * self.loss))
        if missing and self.style is not StatusStyle.COUNT:
            since = max(0, highest - max(self.at_counter, self.nb_frag))
            missing = max(missing - int(since * (1 - self.loss)), 2 + missing // 20)
        return ceil((max(missing, 1) + _SPARE_FRAGMENTS) / (1 - self.loss))

    def _tail(self, received: int, missing: int, highest: int) -> int:
        """Plain fragments sent after the last one that the node saw: lost too, but not in its numbers yet."""
        last = received if self.style is StatusStyle.LAST else received + missing
        return max(0, min(highest, self.nb_frag) - last)

    def _infer_style(self, received: int, missing_low: int, highest: int, *, still: bool) -> None:
        if not missing_low or self.style is StatusStyle.LAST:
            return
        if received + missing_low > highest or (still and received == highest and missing_low > 1):
            self.style = StatusStyle.LAST
        elif self.style is None and still and received + missing_low == highest:
            self.style = StatusStyle.COUNT

    def _confirm(self, received: int, missing_low: int, highest: int) -> None:
        missing = max(self.missing or 0, missing_low)
        if self.style is StatusStyle.COUNT:
            known = min(received, self.nb_frag - missing)
        else:
            # Either style may be behind the numbers: take the reading that claims less.
            known = min(received, self.nb_frag) - (missing - self.tail if highest <= self.nb_frag else missing)
        self.confirmed = max(self.confirmed, known)
