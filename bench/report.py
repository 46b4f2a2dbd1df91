"""Results as one table a case: on the terminal, as JSON, and as markdown in `bench/out/`."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"
HEAD = ("what", "target", "measured", "")


class CannotRun(Exception):
    """Why a case could not be measured, in one line: a program that is not installed, or one that failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One result. `met` is None where there is no limit."""

    what: str
    target: str
    measured: str
    met: bool | None = None

    @property
    def verdict(self) -> str:
        return "" if self.met is None else "met" if self.met else "MISSED"


@dataclass(frozen=True, slots=True)
class Report:
    """The report of one case. `how`: the method, in a few lines. `measurements`: the raw numbers, units in their names."""

    case: str
    title: str
    how: Sequence[str]
    rows: Sequence[Row]
    measurements: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def met(self) -> bool:
        return all(row.met is not False for row in self.rows)

    def text(self) -> str:
        """A heading, the method and the table, as readable Markdown."""
        lines = [f"## {self.case}: {self.title}", "", *self.how, ""]
        return "\n".join([*lines, *table([(r.what, r.target, r.measured, r.verdict) for r in self.rows])]) + "\n"

    def to_json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
        return {"case": self.case, "met": self.met, "rows": rows, "figures": self.measurements}


def below(what: str, value: float, limit: float, unit: str, digits: int = 1) -> Row:
    return Row(what, f"< {limit:g} {unit}", f"{value:.{digits}f} {unit}", value < limit)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [HEAD, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def machine() -> str:
    """One line: the machine of the measurement and its load before the start."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model}; Linux {platform.release().partition('-')[0]}; Python {platform.python_version()}; "
        f"load average before the start {load:.2f}"
    )


def targets(reports: Sequence[Report]) -> str:
    """All results that have a limit, in one table."""
    rows = [(row.what, row.target, row.measured, row.verdict) for each in reports for row in each.rows if row.verdict]
    return "\n".join(["## all limits", "", *table(rows)]) + "\n"


def write(reports: Sequence[Report], machine_line: str) -> Path:
    """The tables of this run; a file of the same cases is replaced."""
    OUT.mkdir(exist_ok=True)
    path = OUT / ("-".join(report.case for report in reports) + ".md")
    day = time.strftime("%Y-%m-%d")
    texts = [targets(reports), *(report.text() for report in reports)]
    path.write_text("\n".join([f"# Measured on {day}", "", machine_line, "", *texts]))
    return path
