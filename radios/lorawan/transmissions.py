"""What became of the multicast frames of one cohort, by what gateways say. PURE.

Pairs a fragment counter with the FCnt that the network server gave its frame. A gateway may speak before the network server's
answer is here, twice, or never: what is not known counts as sent, and nothing waits for it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from radios.lorawan.gateway_bus import FrameKey, Transmitted

_KEPT_MOST = 256


@dataclass(frozen=True, slots=True)
class Verdict:
    """`n`: fragment counter, None for a poll. `status`: of the last gateway that refused; empty when one has sent it."""

    n: int | None
    status: str

    @property
    def sent(self) -> bool:
        return not self.status


@dataclass(slots=True)
class _Frame:
    n: int | None
    gateways: frozenset[str]
    refused: set[str] = field(default_factory=set)
    judged: bool | None = None  # whether it was sent, as last told


class Transmissions:
    """The last frames of one cohort."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0
        self._frames: OrderedDict[FrameKey, _Frame] = OrderedDict()
        self._early: OrderedDict[FrameKey, list[Transmitted]] = OrderedDict()

    def given(self, key: FrameKey, n: int | None, gateways: Iterable[str]) -> list[Verdict]:
        """The network server took a frame; what gateways said of it before this was known."""
        self._frames.pop(key, None)  # FCnt of so long ago: another frame
        self._frames[key] = _Frame(n, frozenset(gateways))
        while len(self._frames) > _KEPT_MOST:
            self._frames.popitem(last=False)
        told = [self.heard(word) for word in self._early.pop(key, ())]
        return [verdict for verdict in told if verdict is not None]

    def heard(self, word: Transmitted) -> Verdict | None:
        """A gateway's word. None: nothing is known that was not known before.

        One gateway that sent it is enough; it is refused when all of them have refused it.
        """
        if word.key is None or not word.told:
            return None
        frame = self._frames.get(word.key)
        if frame is None:
            self._early.setdefault(word.key, []).append(word)
            while len(self._early) > _KEPT_MOST:
                self._early.popitem(last=False)
            return None
        if word.sent:
            if frame.judged:
                return None
            self.refused -= frame.judged is False
            self.sent += 1
            frame.judged = True
            return Verdict(frame.n, "")
        frame.refused.add(word.gateway_id)
        if frame.judged is not None or not frame.gateways <= frame.refused:
            return None
        self.refused += 1
        frame.judged = False
        return Verdict(frame.n, word.status)
