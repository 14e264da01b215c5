"""Hours of the site's day in which updates take less of the air, whichever the radio. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Minutes of the site's day, [start, end), over midnight when end <= start, in which OTA takes `air_share` at most."""

    start_minute: int
    end_minute: int
    air_share: float

    def cover(self, minute: int) -> bool:
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute
