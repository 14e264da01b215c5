"""GPS time, in which TS003 and TS005 count: seconds since 1980-01-06 00:00 UTC without leap seconds.

Unix time has no name for a leap second itself; during one, the Unix second before midnight repeats. Leap seconds that
are announced after this table was written must be added to it (IERS Bulletin C).
"""

from bisect import bisect_right
from collections import deque
from statistics import median

from radios.wall_time import WallTime

GPS_EPOCH_UNIX_S = 315_964_800
AGREES_S = 60.0
"""An uplink is so long on its way at most: by less, GPS time at the gateways tells nothing about the wall clock."""
WRAP_S = 1 << 32
"""SessionTime and DeviceTime are modulo this."""

LEAP_SECONDS_UNIX_S = (
    362_793_600,  # 1981-07-01: the first second after the leap second, as in every line
    394_329_600,  # 1982-07-01
    425_865_600,  # 1983-07-01
    489_024_000,  # 1985-07-01
    567_993_600,  # 1988-01-01
    631_152_000,  # 1990-01-01
    662_688_000,  # 1991-01-01
    709_948_800,  # 1992-07-01
    741_484_800,  # 1993-07-01
    773_020_800,  # 1994-07-01
    820_454_400,  # 1996-01-01
    867_715_200,  # 1997-07-01
    915_148_800,  # 1999-01-01
    1_136_073_600,  # 2006-01-01
    1_230_768_000,  # 2009-01-01
    1_341_100_800,  # 2012-07-01
    1_435_708_800,  # 2015-07-01
    1_483_228_800,  # 2017-01-01
)
# GPS second at which the new offset holds: the n-th leap second (from 0) ends n + 1 s later than Unix time says.
_LEAP_SECONDS_GPS_S = tuple(unix - GPS_EPOCH_UNIX_S + n + 1 for n, unix in enumerate(LEAP_SECONDS_UNIX_S))


def gps_from_unix(unix_s: float) -> float:
    """GPS seconds since its epoch; negative before it, as where a clock was never set: what goes on air is modulo 2^32."""
    return unix_s - GPS_EPOCH_UNIX_S + bisect_right(LEAP_SECONDS_UNIX_S, unix_s)


def unix_from_gps(gps_s: float) -> float:
    """Unix seconds; a leap second itself is the second after it. ValueError for times before the epoch."""
    if gps_s < 0:
        raise ValueError(f"GPS time must not be negative: {gps_s}")
    passed = bisect_right(_LEAP_SECONDS_GPS_S, gps_s)
    if passed < len(_LEAP_SECONDS_GPS_S) and gps_s >= _LEAP_SECONDS_GPS_S[passed] - 1:
        passed += 1  # within the leap second: Unix time would go back, so it stands at the second after it
        return float(LEAP_SECONDS_UNIX_S[passed - 1])
    return gps_s + GPS_EPOCH_UNIX_S - passed


def unwrap(gps_mod_s: int, near_gps_s: float) -> int:
    """The GPS second nearest to `near_gps_s` that is `gps_mod_s` modulo 2^32."""
    half = WRAP_S // 2
    base = int(near_gps_s)
    return base + ((gps_mod_s - base + half) % WRAP_S) - half


class GpsTime:
    """GPS time at a moment of the radio's clock: by the wall clock, unless gateways with GPS know that it is wrong."""

    def __init__(self, wall: WallTime) -> None:
        self._wall = wall
        self._ahead_s: deque[float] = deque(maxlen=5)  # of the radio's clock; most are right, though some come late

    def at(self, when: float) -> float:
        by_wall = gps_from_unix(self._wall.unix(when))
        if not self._ahead_s:
            return by_wall
        told = when + median(self._ahead_s)
        return by_wall if abs(told - by_wall) <= AGREES_S else told

    def heard(self, gps_s: float, now: float) -> None:
        """A gateway's time of an uplink that came now."""
        self._ahead_s.append(gps_s - now)
