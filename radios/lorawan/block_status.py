"""What one node holds of a data block, read from its FragSessionStatusAns. PURE.

Device libraries disagree on the two numbers (protocol notes 1.6). Semtech's LoRaMac-node says the last counter seen and the
losses among the plain fragments, which never go down (`LAST`); LoRa Basics Modem says how many of the counters seen were
received and how many fragments are still missing (`COUNT`). MissingFrag is modulo 256 in both. The style is inferred
only from a pair of numbers that the other style cannot produce.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil

from radios.lorawan.demand import Demand, Loss, demand

_WRAP = 256
_LOSS_TRIED_MOST = 1000  # older evidence fades: links change
_AMPLE = 0.7  # deviations beyond the mean that a node gets which is served alone
_UNCHANGED = 16  # coded fragments without any effect: the node is deaf, or it is complete and its style was misread
_PLAUSIBLE = 0.7  # deviations before the expected end at which a node that cannot tell may be complete


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
    at_counter: int = 0  # highest counter sent that `missing` takes account of; no repairs while the style is not COUNT
    told_at: int = 0  # highest counter sent when it last told anything
    lost: float = 0.0  # of so many tried, for its loss
    tried: float = 0.0
    confirmed: int = 0  # fragments known to be on the node, never going down
    tail: int = 0  # part of `missing` that the node does not know of: plain fragments after the last one that it saw
    refuted_at: int = 0  # highest counter sent when the node was known not to be complete, though it could not tell
    missing_low: int = 0  # as the node said
    same_since: int = 0  # highest counter sent when it said these two numbers first
    last_seen: int = 0  # the least counter of which it has told that it saw it, or one after it
    unsent: list[int] = field(default_factory=list)  # the cohort's: counters that no gateway sent, which are no loss

    @property
    def loss(self) -> Loss:
        return Loss(self.lost, self.tried)

    def take(self, received: int, missing_low: int, highest: int, *, still: bool, sent: int | None = None) -> None:
        """An answer about the time when `highest` had been sent; `still`: nothing else was on its way to the node.

        `sent`: by the time of the answer, when that is more: a node may make up its answer when it sends it. An answer to
        an older poll than was answered already, as one that comes late, changes nothing: the newer one knew of all that it says.
        """
        if highest < self.told_at:
            return
        self._infer_style(received, missing_low, highest, highest if sent is None else sent, still=still)
        same = (received, missing_low) == (self.received, self.missing_low)
        if not same or not self.same_since:
            self.same_since = highest
        self.received, self.missing_low = received, missing_low
        self.last_seen = self.seen(received, missing_low)
        if highest <= self.nb_frag:
            self._take_plain(received, missing_low, highest, still=still)
        elif same and self.missing is not None and received < self.nb_frag:
            self._take_nothing(highest)
        else:
            self._take_coded(missing_low, highest)
        self.told_at = highest
        self._confirm(received, missing_low, highest)

    def _take_plain(self, received: int, missing_low: int, highest: int, *, still: bool) -> None:
        if still and self.style is StatusStyle.COUNT:
            self.missing, self.tail = max(missing_low, highest - received), 0
        else:
            missing = missing_low
            if self.missing is not None:
                while missing < self.missing - self.tail:
                    missing += _WRAP
            self.tail = self._tail(received, missing, highest) if still else 0
            self.missing = missing + self.tail
        unsent = self._unsent(0, highest)
        self.lost, self.tried = float(max(0, self.missing - unsent)), float(highest - unsent)
        self.at_counter = highest

    def _take_nothing(self, highest: int) -> None:
        """It has seen nothing since it told last: in both styles the first number grows with every fragment until it is complete."""
        first = max(self.told_at, self.nb_frag)
        coded = highest - first - self._unsent(first, highest)
        plain = max(0, self.nb_frag - max(self.at_counter, self.told_at))
        self.missing, self.tail = (self.missing or 0) + plain, self.tail + plain
        if self.style is StatusStyle.COUNT and coded > 0:
            self._tried(coded, coded)
        self.at_counter = highest

    def _take_coded(self, missing_low: int, highest: int) -> None:
        """From what it missed before, it can have lost the plain ones and gained the coded ones sent since."""
        before = self.missing or 0
        unseen = self.nb_frag if self.missing is None else max(0, self.nb_frag - self.at_counter)
        first = max(self.told_at, self.at_counter, self.nb_frag)  # what it told before may be of coded ones already
        coded = highest - first - self._unsent(first, highest)
        self.tail = 0
        unsent = self._unsent(self.at_counter, self.nb_frag)
        expected = before + unsent + (unseen - unsent) * self.loss.mean
        if self.style is StatusStyle.LAST:
            # It tells the losses, not what the coded fragments have repaired.
            self.missing = max(before, _meant(missing_low, before, before + unseen, expected))
            self.at_counter = max(self.nb_frag, self.at_counter)
            if unseen:
                unsent = self._unsent(0, self.nb_frag)
                self.lost, self.tried = float(max(0, self.missing - unsent)), float(self.nb_frag - unsent)
            return
        expected -= coded * (1 - self.loss.mean)
        self.missing = _meant(missing_low, before - coded, before + unseen, expected)
        if self.style is None and not unseen and self.missing < before:
            self.style = StatusStyle.COUNT
        if self.style is None:
            # Nothing was repaired, or it does not tell: like the losses, to be disproved by the image alone.
            self.at_counter = max(self.nb_frag, self.at_counter)
            return
        if not unseen and self.missing and coded > 0:
            self._tried(coded, coded - min(coded, max(0, before - self.missing)))
        self.at_counter = highest

    def seen(self, received: int, missing_low: int) -> int:
        """The least counter that the node must have seen to say so."""
        return received + missing_low if self.style is StatusStyle.COUNT else received

    def claims_complete(self, received: int, missing_low: int) -> bool:
        """Whether the node says that it has the block. 256 missing read 0 too: the image must still be proven."""
        return missing_low == 0 and received >= self.nb_frag

    def doubtful(self, missing_low: int, highest: int) -> bool:
        """Whether the node may be complete although it says that it is not."""
        if missing_low == 1 and self.received >= self.nb_frag - 1:
            return True  # LoRa Basics Modem keeps saying 1 after a reception without loss
        if highest <= self.nb_frag:
            return False
        if self.style is StatusStyle.COUNT:
            # Where the last fragments were lost, as many as before, the last counter seen and the losses read like a count.
            return highest - max(self.same_since, self.nb_frag, self.refuted_at) >= _UNCHANGED
        expected = self.demand(highest)
        return expected is None or expected.at(-_PLAUSIBLE) <= 0

    def refuted(self, highest: int) -> None:
        """The image is not on the node, whatever the status said: at least one fragment is missing."""
        self.refuted_at = max(self.refuted_at, highest)
        if not self.missing:
            self.missing = _WRAP if self.style is StatusStyle.COUNT and self.received < highest else 1

    def demand(self, highest: int) -> Demand | None:
        """Coded fragments that it still needs when `highest` has been sent; None while it has not answered."""
        if self.missing is None:
            return None
        loss = self.loss
        plain, first = min(highest, self.nb_frag), max(self.at_counter, self.nb_frag)
        unsent = self._unsent(self.at_counter, plain)
        more = max(0, plain - self.at_counter - unsent) * loss.mean
        since = max(0, highest - first - self._unsent(first, highest))
        found = demand(self.missing + unsent + more, more * (1 - loss.mean), loss, since)
        if self.style is not StatusStyle.COUNT and self.refuted_at >= max(self.nb_frag, self.at_counter):
            found = found.beyond(self.refuted_at - highest)
        return found

    def need(self, highest: int) -> int:
        """New coded fragments to send so that this node completes, by its own loss; at least one."""
        found = self.demand(highest)
        return 1 if found is None else max(1, ceil(found.at(_AMPLE)))

    def _unsent(self, after: int, upto: int) -> int:
        """Counters above `after`, up to `upto`, that were never on the air."""
        return sum(after < n <= upto for n in self.unsent) if self.unsent else 0

    def _tried(self, tried: int, lost: int) -> None:
        fade = min(1.0, _LOSS_TRIED_MOST / (self.tried + tried))
        self.lost, self.tried = (self.lost + lost) * fade, (self.tried + tried) * fade

    def _tail(self, received: int, missing: int, highest: int) -> int:
        """Plain fragments sent after the last one that the node saw: lost too, but not in its numbers yet."""
        last = received if self.style is StatusStyle.LAST else received + missing
        return max(0, min(highest, self.nb_frag) - last)

    def _infer_style(self, received: int, missing_low: int, highest: int, sent: int, *, still: bool) -> None:
        if not missing_low or self.style is StatusStyle.LAST:
            return
        if received + missing_low > sent or (still and received == highest and missing_low > 1):
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


def _meant(low: int, least: int, most: int, expected: float) -> int:
    """The number with this low byte between `least` and `most`; of several, the one nearest to what is expected."""
    found = range(max(0, least) + (low - max(0, least)) % _WRAP, most + 1, _WRAP)
    return min(found, key=lambda number: abs(number - expected), default=low)
