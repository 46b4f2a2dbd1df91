"""Passive health: a server with failures alone is ejected for a while (control's answer to `econ` and `eresp`).

As in the native engine, three failures in a row eject a server, and so do five responses 5xx in a row. HAProxy counts, and
control sees the counts each second: a second with more failures than successes counts as one of failures alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdlb.adapters.haproxy.figures import Sample

FAILURES, ERRORS = 3, 5
EJECTED_S = 10.0


class Health:
    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def check(self, samples: Mapping[str, Sample], now: float) -> list[tuple[str, bool, str]]:
        """Servers to eject or to take back (name, ejected, why). `now`: seconds on the monotonic clock."""
        found: list[tuple[str, bool, str]] = []
        for name, sample in samples.items():
            failures = _row(self._failures, name, sample.failures, sample.successes + sample.errors)
            errors = _row(self._errors, name, sample.errors, sample.successes)
            if name in self._until:
                continue
            if failures >= FAILURES or errors >= ERRORS:
                self._until[name] = now + EJECTED_S
                why = f"{failures} failures in a row" if failures >= FAILURES else f"{errors} responses 5xx in a row"
                found.append((name, True, why))
        for name in [name for name, until in self._until.items() if until <= now]:
            del self._until[name]
            self._failures.pop(name, None)
            self._errors.pop(name, None)
            found.append((name, False, ""))
        for rows in (self._failures, self._errors):
            for name in rows.keys() - samples.keys():
                del rows[name]
        return found


def _row(rows: dict[str, int], name: str, bad: int, good: int) -> int:
    """Bad results in a row, until now."""
    if good and good >= bad:
        rows.pop(name, None)
        return 0
    if bad:
        rows[name] = rows.get(name, 0) + bad
    return rows.get(name, 0)
