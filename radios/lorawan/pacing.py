"""How fast frames have to go so that all of them are sent in time, and no faster. PURE.

A duty cycle is judged over any hour, so hours that are filled can be filled evenly; only what remains beside them has to
go early. All times are seconds, all work is time on air.
"""

from collections.abc import Iterable

from radios.lorawan.airtime import WINDOW_S


def earliest_end(now: float, work_s: float, budget_s: float, counting: Iterable[tuple[float, float]] = ()) -> float:
    """About when so much work can be over, if it begins at once; `counting`: (end, airtime) of the last hour, oldest first."""
    counting = list(counting)
    over = work_s + sum(airtime for _, airtime in counting) - budget_s
    if over <= 0:
        return now + work_s
    for end, airtime in counting:
        over -= airtime
        if over <= 0:
            return max(now + work_s, end + WINDOW_S)
    hours, rest = divmod(over, budget_s)
    return now + (hours + (rest > 0)) * WINDOW_S + (rest or budget_s)


def share_for(work_s: float, left_s: float, budget_s: float) -> float:
    """Share of the time that frames take from now on, so that the work is done in `left_s`, with full hours at the end."""
    hours, part_s = divmod(max(left_s, 0.0), WINDOW_S)
    due_s = work_s - hours * budget_s
    if due_s > 0 and part_s <= 0:
        return 1.0
    early = due_s / part_s if due_s > 0 else 0.0
    return min(1.0, max(early, work_s / left_s if left_s > 0 else 1.0))
