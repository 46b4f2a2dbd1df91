"""The output of the demo: a live table and messages on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from sdlb.cli.demo.traffic import TrafficStats

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("phase", "requests", "answered", "lost", "wrong", "longest wait", "answered by")


def cells(name: str, phase: dict[str, Any], between: str) -> tuple[str, ...]:
    """One row of the table; `between` stands between versions."""
    versions = between.join(f"{version} {count:,}" for version, count in phase["by_version"].items())
    return (
        name,
        f"{phase['requests']:,}",
        f"{phase['answered']:,}",
        f"{phase['lost']:,}",
        f"{phase['wrong_version']:,}",
        f"{phase['longest_wait_ms']:,.0f} ms",
        versions,
    )


def rows(stats: TrafficStats, between: str = ", ") -> list[tuple[str, ...]]:
    """A row for each phase, and the sum."""
    total: dict[str, Any] = {key: stats.total(key) for key in ("requests", "answered", "lost", "wrong_version")}
    total |= {"longest_wait_ms": stats.longest_wait_ms, "by_version": {}}
    return [*(cells(name, phase, between) for name, phase in stats.phases.items()), cells("total", total, "")]


class Screen:
    """Plain lines. `out` is stderr when stdout is kept for the JSON object."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begin = time.monotonic()

    def phase(self, number: int, title: str) -> None:
        self._line(f"({number}) {title}")

    def note(self, text: str) -> None:
        self._line(f"    {text}")

    def failure(self, text: str) -> None:
        self._line(f"    !! {text}")

    def stats(self, stats: TrafficStats) -> None:
        """Called five times a second; plain lines don't show it."""

    def end(self, stats: TrafficStats) -> None:
        self._print("")
        self._print_table(HEADERS, rows(stats))

    def say(self, text: str) -> None:
        self._print(text)

    def _stamp(self) -> str:
        return f"{time.monotonic() - self._begin:5.1f} s"

    def _line(self, text: str) -> None:
        self._print(f"{self._stamp()}  {text}")

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _print_table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[column]) for row in [headers, *rows]) for column in range(len(headers))]
        for row in [headers, *rows]:
            texts = [
                text.ljust(width) if column in (0, len(headers) - 1) else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._print("  ".join(texts).rstrip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class LiveScreen(Screen):
    """rich: the messages scroll by above a table that is redrawn with each report."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=out, highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, refresh_per_second=5, transient=True)

    def phase(self, number: int, title: str) -> None:
        self._console.print(f"{self._stamp()}  ({number}) {title}", style="bold")

    def failure(self, text: str) -> None:
        self._console.print(f"{self._stamp()}      !! {text}", style="red")

    def stats(self, stats: TrafficStats) -> None:
        self._live.update(self._table(stats))

    def end(self, stats: TrafficStats) -> None:
        self._live.stop()
        self._console.print()
        self._console.print(self._table(stats))

    def _print(self, text: str) -> None:
        self._console.print(text)

    def _table(self, stats: TrafficStats) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0, header_style="bold")
        for column, header in enumerate(HEADERS):
            edge = column in (0, len(HEADERS) - 1)
            table.add_column(header, justify="left" if edge else "right", no_wrap=True)
        shown = rows(stats, "\n")
        for row in shown:
            bad = row[3] != "0" or row[4] != "0"
            table.add_row(*row, style="red" if bad else "bold" if row is shown[-1] else "")
        return table

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()


def screen(*, json: bool) -> Screen:
    """The right one for where the output goes."""
    out = sys.stderr if json else sys.stdout
    return LiveScreen(out) if out.isatty() else Screen(out)
