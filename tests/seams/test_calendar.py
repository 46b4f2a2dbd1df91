"""Local time in real time zones, over the changes to and from summer time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sdlb.adapters.calendar import FAILED_MAX, Zones
from sdlb.core.effects import Note
from sdlb.model.calendar import utc
from sdlb.model.gate import Window

BERLIN = "Europe/Berlin"


def wall(text: str) -> float:
    """Of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def zones() -> tuple[Zones, list[Note]]:
    notes: list[Note] = []
    return Zones(notes.append), notes


@pytest.mark.parametrize(
    ("at", "weekday", "clock"),
    [
        ("2026-03-28T23:30:00", 6, (0, 30)),  # Sunday, 29 March: 02:00 becomes 03:00
        ("2026-03-29T00:59:59", 6, (1, 59.9833333)),
        ("2026-03-29T01:00:00", 6, (3, 0)),
        ("2026-03-29T21:59:00", 6, (23, 59)),
        ("2026-03-29T22:00:00", 0, (0, 0)),
        ("2026-10-24T23:59:00", 6, (1, 59)),  # Sunday, 25 October: 03:00 becomes 02:00
        ("2026-10-25T00:30:00", 6, (2, 30)),
        ("2026-10-25T01:30:00", 6, (2, 30)),
        ("2026-10-25T02:00:00", 6, (3, 0)),
        ("2026-10-25T22:59:00", 6, (23, 59)),
        ("2026-10-25T23:00:00", 0, (0, 0)),
    ],
)
def test_berlin_over_the_changes_of_summer_time(at: str, weekday: int, clock: tuple[int, float]) -> None:
    calendar, notes = zones()
    found, second = calendar(BERLIN, wall(at))
    assert found == weekday
    assert second == pytest.approx(clock[0] * 3600 + clock[1] * 60, abs=0.01)
    assert notes == []


def minutes_open(window: Window, day: str) -> int:
    """For how many minutes of 26 hours from the start of that day in UTC - 1 h the window holds."""
    calendar, _ = zones()
    start = wall(f"{day}T00:00:00") - 7200
    return sum(window.holds(*calendar(window.zone, start + 60 * minute)) for minute in range(26 * 60))


def test_a_window_is_what_the_clock_shows() -> None:
    night = Window("w", days=(6,), start_s=2 * 3600, end_s=3 * 3600, zone=BERLIN)
    assert minutes_open(night, "2026-03-22") == 60
    assert minutes_open(night, "2026-03-29") == 0  # the clock skips that hour
    assert minutes_open(night, "2026-10-25") == 120  # the clock shows that hour twice
    day = Window("w", days=(6,), zone=BERLIN)
    assert minutes_open(day, "2026-03-29") == 23 * 60
    assert minutes_open(day, "2026-10-25") == 25 * 60


def test_utc_needs_no_zone() -> None:
    calendar, notes = zones()
    for at in (0.0, -1.5, wall("2026-03-29T01:00:00") + 0.25, 1e15):
        assert calendar("UTC", at) == utc("UTC", at)
    assert notes == []


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../../etc/passwd", "/etc/passwd", "", "Europe", "a\0b", "\ud800"])
def test_a_zone_that_cannot_be_loaded_counts_as_utc_and_is_reported_once(zone: str) -> None:
    calendar, notes = zones()
    at = wall("2026-07-01T12:00:00")
    assert [calendar(zone, at), calendar(zone, at + 1)] == [(2, 43200.0), (2, 43201.0)]
    assert [(note.code, note.level) for note in notes] == [("zone-unknown", "warning")]
    assert repr(zone) in notes[0].text


def test_a_broken_file_of_a_zone_counts_as_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    (tmp_path / "Broken").write_bytes(b"TZif2 and no more")
    (tmp_path / "Other").write_bytes(b"something else")
    zoneinfo.reset_tzpath([str(tmp_path)])
    try:
        calendar, notes = zones()
        assert [calendar(name, 86400.0) for name in ("Broken", "Other")] == [(4, 0.0)] * 2
        assert len(notes) == 2
    finally:
        zoneinfo.reset_tzpath()


def test_a_time_beyond_the_calendar_counts_as_utc() -> None:
    calendar, _ = zones()
    assert calendar(BERLIN, 1e15) == utc(BERLIN, 1e15)


def test_names_from_other_nodes_fill_neither_memory_nor_log() -> None:
    calendar, notes = zones()
    for number in range(3 * FAILED_MAX):
        calendar(f"X/{number}", 0.0)
    assert len(notes) == FAILED_MAX
    assert calendar(BERLIN, 0.0) == (3, 3600.0)
