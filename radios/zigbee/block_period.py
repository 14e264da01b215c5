"""MinimumBlockPeriod: how a node that offers it is slowed down by itself. Pure.

The attribute counts milliseconds in cluster revisions 1 and 3 and seconds in revision 2; what is not known is not set. The
node's own value comes with each of its block requests, so nothing has to be remembered.
"""

from typing import Final

WORTH_SETTING_S: Final = 0.1  # below it, delaying answers does as well
SET_AT_MOST_EVERY_S: Final = 20.0
MAX_PERIOD_S: Final = 10.0
_UNIT_S: Final = {1: 0.001, 2: 1.0, 3: 0.001}


def period_for(revision: int | None, wanted_s: float) -> int | None:
    """The attribute's value for so many seconds between blocks; None when the unit is not known."""
    unit = None if revision is None else _UNIT_S.get(revision)
    if unit is None:
        return None
    wanted_s = min(wanted_s, MAX_PERIOD_S)
    return int(wanted_s / unit) if wanted_s >= max(WORTH_SETTING_S, unit) else 0


def is_worth_setting(own: int, wanted: int) -> bool:
    """Whether the node's own value is so far from the wanted one that a WAIT_FOR_DATA is worth its air."""
    return own != wanted and not (0.5 * wanted <= own <= 1.5 * wanted)
