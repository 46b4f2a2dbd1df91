"""The state of each site's certificate, and the events about it, each reported once.

There are two sources: the reader of the files (`on_read`, `on_unreadable`) and the engine (`on_applied`), which keeps
its previous certificate when it refuses a new one. The state follows from the last report of both:

    waiting    the engine has not answered yet
    serving    with what its files have
    kept       its files cannot be used; it serves with an earlier certificate
    refused    its files cannot be used, and there is no earlier one: handshakes for its hosts fail
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct, field

from sdlb.core.effects import Note
from sdlb.model.site import SiteSpec, SiteState

DAY_S: Final = 86_400
EXPIRY_WARNINGS: Final = (3, 10)
"""A warning is logged when a third and when a tenth of a certificate's lifetime is left. Certificates live from six days
to years, so no fixed number of days fits them all."""


class Known(Struct):
    hosts: tuple[str, ...]
    unreadable: str = ""  # why its files cannot be used
    refused: str = ""  # the engine's reason
    invalid: str = ""  # control's reason: the engine was not given these certificates
    not_after_s: int = 0  # of the certificate in use; 0: none
    spans: dict[int, int] = field(default_factory=dict[int, int])  # expiry -> begin of the certificates that were read
    warnings: tuple[str, ...] = ()  # about its certificates
    exposed: tuple[str, ...] = ()  # permissions of its key files that are too wide
    answered: bool = False
    changing: bool = False  # new files were sent to the engine
    expiry_warnings: int = 0  # how many of its expiry warnings have been reported

    @property
    def state(self) -> str:
        if not self.answered:
            return "waiting"
        if not self.unreadable and not self.refused:
            return "serving"
        return "kept" if self.not_after_s else "refused"

    @property
    def not_before_s(self) -> int:
        """0: not known."""
        return self.spans.get(self.not_after_s, 0)

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

    def on_read(
        self, key: str, exposed: Sequence[str], changed: bool, spans: Iterable[tuple[int, int]] = ()
    ) -> list[Note]:
        """Its files were read. `exposed`: what is wrong with the permissions of its keys; `changed`: they were sent;
        `spans`: when its certificates begin and expire."""
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
        in_use = {site.not_after_s: site.not_before_s} if site.not_before_s else {}
        site.spans = in_use | {not_after_s: not_before_s for not_before_s, not_after_s in spans}
        return notes

    def on_checked(self, key: str, invalid: str, warnings: Sequence[str]) -> list[Note]:
        """`invalid`: why control does not use its certificates, so that the engine is given none; `warnings`: what is
        wrong with the certificates that the engine is given."""
        site = self._known.get(key)
        if site is None:
            return []
        site.invalid = invalid
        notes = [_note(key, "certificate-warning", text, "warning") for text in warnings if text not in site.warnings]
        site.warnings = tuple(warnings)
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
            error = site.invalid or state.error
            site.not_after_s = state.not_after_s
            if error != site.refused:
                then = "it keeps its previous certificate" if site.not_after_s else "TLS handshakes for it fail"
                text = f"its certificate was refused: {error}; {then}"
                notes.append(_note(state.key, "certificate-refused", text, "error"))
            site.refused = error
            return notes
        if site.not_after_s != state.not_after_s:
            site.expiry_warnings = 0
        site.refused, site.not_after_s = "", state.not_after_s
        if changed:
            text = f"now serving a new certificate, valid for {_days(state.not_after_s - now_s)}"
            notes.append(_note(state.key, "certificate-changed", text, "info"))
        return notes + self._ending(state.key, site, now_s)

    # ------------------------------------------------------------------ time

    def on_time(self, now_s: int) -> list[Note]:
        return [note for key, site in self._known.items() for note in self._ending(key, site, now_s)]

    def _ending(self, key: str, site: Known, now_s: int) -> list[Note]:
        left_s = site.not_after_s - now_s
        passed = _passed(site.not_before_s, site.not_after_s, now_s)
        if passed <= site.expiry_warnings:
            return []
        site.expiry_warnings = passed
        if left_s <= 0:
            return [
                _note(key, "certificate-ended", "its certificate has expired: clients refuse it; renew it", "error")
            ]
        return [_note(key, "certificate-ends", f"its certificate expires in {_days(left_s)}; renew it", "warning")]

    # ------------------------------------------------------------------ reads

    def views(self, now_s: int) -> list[dict[str, Any]]:
        """`not_after_s` 0: nothing is served for it. `not_before_s` 0: not known."""
        return [
            {
                "site": key,
                "hosts": list(site.hosts),
                "state": site.state,
                "reason_code": site.reason[0],
                "reason": site.reason[1],
                "not_before_s": site.not_before_s,
                "not_after_s": site.not_after_s,
                "warnings": [*site.warnings, *site.exposed, *_expiring(site, now_s)],
                "acme": None,
            }
            for key, site in self._known.items()
        ]


def _expiring(site: Known, now_s: int) -> Iterator[str]:
    if _passed(site.not_before_s, site.not_after_s, now_s):
        left_s = site.not_after_s - now_s
        yield f"its certificate expires in {_days(left_s)}; renew it" if left_s > 0 else "its certificate has expired"


def ending(
    not_before_s: int, not_after_s: int, now_s: int, reported: tuple[int, int]
) -> tuple[tuple[int, int], tuple[str, str, str] | None]:
    """The expiry warning for the node's own certificate. `reported`: the expiry time of the certificate that was warned
    about, and the number of warnings that have been reported for it. `not_before_s` 0: not known.

    Returns the new value of `reported`, and code, text and level of the warning to report now, if any.
    """
    passed = _passed(not_before_s, not_after_s, now_s)
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


def _passed(not_before_s: int, not_after_s: int, now_s: int) -> int:
    """How many expiry warnings are due. When the certificate was read by an earlier control, its begin is not known; then
    only its end is reported."""
    if not not_after_s:
        return 0
    left_s = not_after_s - now_s
    if left_s <= 0:
        return len(EXPIRY_WARNINGS) + 1
    return sum(left_s * part <= not_after_s - not_before_s for part in EXPIRY_WARNINGS) if not_before_s else 0


def _note(key: str, code: str, text: str, level: str) -> Note:
    return Note(code, f"site {key}: {text}", level, {"site": key})


def _days(seconds: int) -> str:
    if seconds < 2 * DAY_S:
        return f"{max(0, seconds) // 3600} hours"
    return f"{seconds // DAY_S} days"
