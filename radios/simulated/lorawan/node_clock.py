"""A node's idea of GPS time: set once, then drifting. GPS counts from 1980-01-06 and is 18 s ahead of UTC since 2017."""

from dataclasses import dataclass

_GPS_EPOCH_UNIX_S = 315_964_800
_LEAP_SECONDS = 18


def gps_of_unix(unix_s: float) -> float:
    return unix_s - _GPS_EPOCH_UNIX_S + _LEAP_SECONDS


@dataclass(slots=True)
class NodeClock:
    """Reads `error_s` off at `synced_at` and gains `drift_ppm` from there."""

    synced_at: float
    error_s: float = 0.0
    drift_ppm: float = 0.0

    def error_at(self, now: float) -> float:
        return self.error_s + (now - self.synced_at) * self.drift_ppm * 1e-6

    def gps(self, now: float) -> float:
        return gps_of_unix(now) + self.error_at(now)

    def unix_of_gps(self, gps_s: float, now: float) -> float:
        """When, in true Unix seconds, this clock will show `gps_s` (drift until then left out)."""
        return now + (gps_s - self.gps(now))

    def correct(self, seconds: float, now: float) -> None:
        self.error_s = self.error_at(now) + seconds
        self.synced_at = now

    def synchronise(self, now: float) -> None:
        """DeviceTimeAns: exact."""
        self.error_s, self.synced_at = 0.0, now
