"""The table that `make mutate` prints: one line for each mutation as soon as its checks are done, then a summary."""

from __future__ import annotations

from typing import Any

from tools.mutate.run import Verdict
from tools.mutate.sandbox import Outcome

WIDTHS = (40, 60, 50)


def head() -> str:
    return _row("mutation", "unit test", "simulator or exploration", "")


def line(verdict: Verdict, reason: str = "") -> str:
    return _row(
        verdict.mutation.name,
        _cell(verdict.unit),
        _cell(verdict.proof, verdict.mutation.unit_only),
        word(verdict, reason),
    )


def word(verdict: Verdict, reason: str = "") -> str:
    if verdict.caught:
        return "caught"
    if reason:
        return "explained"
    if verdict.survived:
        return "SURVIVED"
    return "no unit test" if verdict.by_unit is None else "unit test only"


def _cell(outcomes: tuple[Outcome, ...], unit_only: str = "") -> str:
    if unit_only:
        return "can not see it"
    if not outcomes:
        return "not asked"
    if outcomes[-1].found:
        last = outcomes[-1]
        what = last.what.replace("tests/", "").replace("test_", "", 1) if last.check == "unit" else last.what
        name = "" if last.check == "unit" else f"{last.check} "
        return f"{name}{what}, {last.cpu_s:.1f} s"
    return "-, " + ", ".join(f"{each.check} {each.cpu_s:.0f} s" for each in outcomes)


def _row(*cells: str) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, (*WIDTHS, 0), strict=True)).rstrip()


def data(verdict: Verdict) -> dict[str, Any]:
    """For `--json`: everything that is known of one mutation."""
    mutation = verdict.mutation
    return {
        "name": mutation.name,
        "file": mutation.file,
        "scope": mutation.scope,
        "old": mutation.old,
        "new": mutation.new,
        "generated": mutation.generated,
        "caught": verdict.caught,
        "checks": [
            {"check": o.check, "found": o.found, "cpu_s": round(o.cpu_s, 2), "what": o.what, "how": o.how}
            for o in verdict.outcomes
        ],
    }
