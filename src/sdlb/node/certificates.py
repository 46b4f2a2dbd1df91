"""The state of each site's certificate, and the events about it, each reported once.

There are two sources: the reader of the files (`on_read`, `on_unreadable`) and the engine (`on_applied`), which keeps
its previous certificate when it refuses a new one. The state follows from the last report of both:

    waiting    the engine has not answered yet
    serving    with what its files have
    kept       its files cannot be used; it serves with an earlier certificate
    refused    its files cannot be used, and there is no earlier one: handshakes for its hosts fail
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdlb.core.effects import Note
from sdlb.model.site import SiteSpec, SiteState

DAY_S: Final = 86_400
EXPIRY_WARNINGS_S: Final = (14 * DAY_S, 3 * DAY_S, 0)
"""A warning is logged when a certificate expires within each of these times."""


@dataclass(slots=True)
class Known:
    hosts: tuple[str, ...]
    unreadable: str = ""  # why its files cannot be used
    refused: str = ""  # the engine's reason
    not_after_s: int = 0  # of the certificate in use; 0: none
    warnings: tuple[str, ...] = ()  # from the engine
    exposed: tuple[str, ...] = ()  # permissions of its key files that are too wide
    answered: bool = False
    changing: bool = False  # new files were sent to the engine
    expiry_warnings: int = 0  # the number of EXPIRY_WARNINGS_S that have been reported

    @property
    def state(self) -> str:
        if not self.answered:
            return "waiting"
        if not self.unreadable and not self.refused:
            return "serving"
        return "kept" if self.not_after_s else "refused"

    @property
    def reason(self) -> tuple[str, str]:
        """(code, sentence)"""
        if self.unreadable:
            return "certificate-unreadable", self.unreadable
        return ("certificate-refused", self.refused) if self.refused else ("", "")


class Sites:
    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def replace(self, specs: Iterable[SiteSpec]) -> None:
        """Sets the sites; the state of all others is dropped."""
        known: dict[str, Known] = {}
        for spec in specs:
            site = known[spec.key] = self._known.get(spec.key) or Known(spec.hosts)
            site.hosts = spec.hosts
        self._known = known

    # ------------------------------------------------------------------ files

    def on_read(self, key: str, exposed: Sequence[str], changed: bool) -> list[Note]:
        """Its files were read. `exposed`: what is wrong with the permissions of its keys; `changed`: they were sent."""
        site = self._known.get(key)
        if site is None:
            return []
        notes: list[Note] = []
        if site.unreadable:
            site.unreadable = ""
            if not changed:
                notes.append(_note(key, "certificate-readable", "its files are readable again and unchanged", "info"))
        for text in exposed:
            if text not in site.exposed:
                notes.append(_note(key, "key-file-exposed", text, "warning"))
        site.exposed = tuple(exposed)
        site.changing = site.changing or changed
        return notes

    def on_unreadable(self, key: str, why: str) -> list[Note]:
        site = self._known.get(key)
        if site is None or site.unreadable == why:
            return []
        site.unreadable = why
        site.exposed = ()  # reported again when the files are readable
        return [_note(key, "certificate-unreadable", f"{why}; it keeps its previous certificate", "error")]

    # ------------------------------------------------------------------ engine

    def on_applied(self, states: Iterable[SiteState], now_s: int) -> list[Note]:
        return [note for state in states for note in self._applied(state, now_s)]

    def _applied(self, state: SiteState, now_s: int) -> list[Note]:
        site = self._known.get(state.key)
        if site is None:
            return []
        notes: list[Note] = []
        site.answered = True
        changed, site.changing = site.changing, False
        if state.error:
            site.not_after_s = state.not_after_s
            if state.error != site.refused:
                then = "it keeps its previous certificate" if site.not_after_s else "TLS handshakes for it fail"
                text = f"its certificate was refused: {state.error}; {then}"
                notes.append(_note(state.key, "certificate-refused", text, "error"))
            site.refused = state.error
            return notes
        if site.not_after_s != state.not_after_s:
            site.expiry_warnings = 0
        for text in state.warnings:
            if text not in site.warnings:
                notes.append(_note(state.key, "certificate-warning", text, "warning"))
        site.refused, site.not_after_s, site.warnings = "", state.not_after_s, state.warnings
        if changed:
            text = f"now serving a new certificate, valid for {_days(state.not_after_s - now_s)}"
            notes.append(_note(state.key, "certificate-changed", text, "info"))
        return notes + self._ending(state.key, site, now_s)

    # ------------------------------------------------------------------ time

    def on_time(self, now_s: int) -> list[Note]:
        return [note for key, site in self._known.items() for note in self._ending(key, site, now_s)]

    def _ending(self, key: str, site: Known, now_s: int) -> list[Note]:
        left_s = site.not_after_s - now_s
        passed = _passed(site.not_after_s, now_s)
        if passed <= site.expiry_warnings:
            return []
        site.expiry_warnings = passed
        if left_s <= 0:
            return [
                _note(key, "certificate-ended", "its certificate has expired: clients refuse it; renew it", "error")
            ]
        return [_note(key, "certificate-ends", f"its certificate expires in {_days(left_s)}; renew it", "warning")]

    # ------------------------------------------------------------------ reads

    def views(self) -> list[dict[str, Any]]:
        """`not_after_s` 0: nothing is served for it."""
        return [
            {
                "site": key,
                "hosts": list(site.hosts),
                "state": site.state,
                "reason_code": site.reason[0],
                "reason": site.reason[1],
                "not_after_s": site.not_after_s,
                "warnings": [*site.warnings, *site.exposed],
            }
            for key, site in self._known.items()
        ]


def ending(
    not_after_s: int, now_s: int, reported: tuple[int, int]
) -> tuple[tuple[int, int], tuple[str, str, str] | None]:
    """The expiry warning for the node's own certificate. `reported`: the expiry time of the certificate that was warned
    about, and the number of EXPIRY_WARNINGS_S that have been reported for it.

    Returns the new value of `reported`, and code, text and level of the warning to report now, if any.
    """
    passed = _passed(not_after_s, now_s)
    if passed <= (reported[1] if reported[0] == not_after_s else 0):
        return (not_after_s, passed), None
    left_s = not_after_s - now_s
    if left_s <= 0:
        text = "this node's certificate has expired: other nodes refuse new links; renew it"
        return (not_after_s, passed), ("identity-ended", text, "error")
    return (not_after_s, passed), (
        "identity-ends",
        f"this node's certificate expires in {_days(left_s)}; renew it",
        "warning",
    )


def _passed(not_after_s: int, now_s: int) -> int:
    return sum(not_after_s - now_s <= limit_s for limit_s in EXPIRY_WARNINGS_S) if not_after_s else 0


def _note(key: str, code: str, text: str, level: str) -> Note:
    return Note(code, f"site {key}: {text}", level, {"site": key})


def _days(seconds: int) -> str:
    if seconds < 2 * DAY_S:
        return f"{max(0, seconds) // 3600} hours"
    return f"{seconds // DAY_S} days"
