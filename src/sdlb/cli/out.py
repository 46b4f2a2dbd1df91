"""What commands print: colours and tables on a terminal, plain aligned text in a pipe, or JSON.

On a terminal nothing is wider than it (`sdlb.cli.layout`). Piped output holds every value in full, one row a line, and does
not depend on the terminal. Styles are rich's ("green", "bold", "dim"). rich is imported only when stdout is a terminal; it
turns colours off when NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdlb.cli import layout
from sdlb.cli.layout import Piece, clean, plain

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ("Piece", "clean", "draws", "json", "line", "message", "on_terminal", "plain", "state", "table")

STATE_STYLES = {
    "active": "green",
    "connected": "green",
    "waiting": "yellow",
    "draining": "yellow",
    "connecting": "yellow",
    "suspect": "yellow",
    "disconnected": "yellow",
    "lapsed": "yellow",
    "drained": "dim",
    "refused": "red",
    "unhealthy": "red",
    "unreachable": "red",
    "lost": "red",
}


def state(word: str, reason: str = "") -> Piece:
    """A state in its colour, with the reason: "waiting: 2.4.2 still has 3 instances on host-1"."""
    return (f"{word}: {reason}" if reason else word, STATE_STYLES.get(word, ""))


def on_terminal() -> bool:
    return sys.stdout.isatty()


def draws() -> bool:
    """Whether stdout can show line drawing."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def line(*pieces: Piece, hang: str = " " * layout.INDENT) -> None:
    """One line. On a terminal it is wrapped, and what follows begins with `hang`; in a pipe it never is."""
    if not on_terminal():
        print("".join(plain(piece) for piece in pieces).rstrip(" "), flush=True)
        return
    console = _console()
    for each in layout.wrapped(pieces, console.width, hang):
        _put(console, each)


def table(headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int] = frozenset()) -> None:
    """A table; the columns numbered in `right` hold numbers. Nothing is printed without rows."""
    if not rows:
        return
    if on_terminal():
        console = _console()
        for each in layout.table(headers, rows, right, console.width, unicode=draws()):
            _put(console, each)
        return
    cells = [list(headers), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(layout.width_of(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        texts = [layout.padded(text, w, right=i in right) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(texts).rstrip(" "))


def json(value: object, *, compact: bool = False) -> None:
    """One JSON document, keys in the order of the reference; `compact`: on one line."""
    import msgspec

    data = msgspec.json.encode(value)
    print((data if compact else msgspec.json.format(data, indent=2)).decode(), flush=compact)


def message(text: str) -> None:
    """Prints one line for people on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def _put(console: Console, pieces: Sequence[Piece]) -> None:
    from rich.text import Text

    text = Text.assemble(*((plain(piece), "" if isinstance(piece, str) else piece[1]) for piece in pieces))
    console.print(text, soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)
