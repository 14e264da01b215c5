"""Which fragment counters of a cohort are used, by multicast and by unicast alike. PURE.

Durable before they are used; a coded counter is used once, whoever it is for.
"""

from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages.fragmentation import N_MAX

GAP = 64  # coded counters that other hardware may have used beyond what a node saw


class Counters:
    def __init__(self, out: Outgoing) -> None:
        self._out = out
        self.next = out.cohort.next_counter()
        self.highest = max(out.cohort.reserved, self.next - 1)  # that a node can have seen
        self.revision = 0  # counts changes to what was never on the air

    @property
    def coding(self) -> bool:
        """All plain fragments are out."""
        return self.next > self._out.cohort.nb_frag

    @property
    def used_up(self) -> bool:
        return self.next > N_MAX

    def reserve(self, first: int, count: int, *, now: int = 1) -> None:
        """`now` counters from `first` are about to be used, and `count` may be; plain and coded never in one piece."""
        cohort = self._out.cohort
        if first + now - 1 <= cohort.reserved:
            return
        end = cohort.nb_frag if first <= cohort.nb_frag else N_MAX
        cohort.reserved = min(end, first + count - 1)
        cohort.mark = first - 1
        cohort.data_started = True
        self._out.cohort_changed()

    def back_to(self, n: int) -> None:
        """Plain fragments from `n` on go out again, to a node that is served alone and has not seen them."""
        self.next = n

    def proved(self, n: int) -> bool:
        """A node has seen counter `n`, which other hardware sent since the backup. Whether that is news."""
        cohort = self._out.cohort
        if n <= self.highest:
            return False
        cohort.mark = min(n, cohort.nb_frag)
        # Others may have sent more than this node saw. Up to the last plain one that does no harm: nodes drop what they
        # passed, and whoever lost too much is still found out before the first coded one.
        cohort.reserved = n if n <= cohort.nb_frag else min(N_MAX, n + GAP)
        self.next = cohort.next_counter()
        self.highest = cohort.reserved
        self._out.cohort_changed()
        return True

    def transmitted(self, n: int, *, sent: bool) -> None:
        """What gateways did with a fragment to the group. Not journalled at once: a crash makes it a lost one, no more."""
        unsent = self._out.cohort.unsent
        if sent is (n in unsent):
            (unsent.remove if sent else unsent.append)(n)
            self.revision += 1

    def sent(self, n: int) -> None:
        self.next = max(self.next, n + 1)
        self.highest = max(self.highest, n)
        self._out.cohort.mark = max(self._out.cohort.mark, n)
