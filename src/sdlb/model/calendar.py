"""Local time, as a function of the wall clock. The core gets it as an argument; `adapters/calendar.py` knows time zones."""

from __future__ import annotations

from collections.abc import Callable

Calendar = Callable[[str, float], tuple[int, float]]
"""(name of a time zone, seconds since 1970) -> (weekday, 0 is Monday; seconds since local midnight)."""


def utc(zone: str, wall_s: float) -> tuple[int, float]:
    """Ignores the zone. The first of January 1970 was a Thursday."""
    days, second = divmod(wall_s, 86400.0)
    return (int(days) + 3) % 7, second
