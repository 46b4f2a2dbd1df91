"""Local time from the time zones of the system, or of the package `tzdata` where the system has none.

Clocks that change to or from summer time skip an hour or show one twice. A window is compared with what the clock shows: in
spring, the skipped hour is part of no window, and in autumn the repeated one is twice part of it.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from sdlb.core.effects import Note
from sdlb.model.calendar import utc
from sdlb.seams.store import NoteSink

FAILED_MAX = 256
"""How many names of unknown zones are remembered and reported. Policies of other nodes may contain any."""


class Zones:
    """A `Calendar`. A zone that cannot be loaded counts as UTC and is reported once."""

    def __init__(self, report: NoteSink) -> None:
        self._report = report
        self._zones: dict[str, ZoneInfo] = {}
        self._failed = {"UTC"}  # needs no file

    def __call__(self, zone: str, wall_s: float) -> tuple[int, float]:
        found = self._zones.get(zone) or self._load(zone)
        if found is None:
            return utc(zone, wall_s)
        try:
            local = datetime.fromtimestamp(wall_s, found)
        except (OverflowError, OSError, ValueError):  # a year that `datetime` does not have
            return utc(zone, wall_s)
        return local.weekday(), local.hour * 3600.0 + local.minute * 60 + local.second + local.microsecond / 1e6

    def _load(self, zone: str) -> ZoneInfo | None:
        if zone in self._failed:
            return None
        try:
            self._zones[zone] = ZoneInfo(zone)
        except Exception as error:  # an unknown name, or a file with any content
            if len(self._failed) > FAILED_MAX:
                return None
            self._failed.add(zone)
            text = (
                f"the time zone {zone!r} cannot be loaded ({type(error).__name__}) and counts as UTC; correct the policy, or "
                "install time zones (the system's package tzdata) and restart control"
            )
            self._report(Note("zone-unknown", text, "warning", {"zone": zone}))
        return self._zones.get(zone)
