"""What commands print: colours and tables on a terminal, plain aligned text in a pipe, or JSON.

A piece of text is a string or a pair (string, style); styles are rich's ("green", "bold", "dim"). rich is only imported
when stdout is a terminal and, as everywhere, NO_COLOR (https://no-color.org) turns the colours off.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Piece = str | tuple[str, str]
STATE_STYLES = {
    "active": "green",
    "connected": "green",
    "waiting": "yellow",
    "draining": "yellow",
    "connecting": "yellow",
    "suspect": "yellow",
    "disconnected": "yellow",
    "drained": "dim",
    "refused": "red",
    "unhealthy": "red",
    "lost": "red",
}


def state(word: str, reason: str = "") -> Piece:
    """A state in its colour, with why: "waiting: 2.4.2 still has 3 instances on host-1"."""
    return (f"{word}: {reason}" if reason else word, STATE_STYLES.get(word, ""))


def clean(text: str) -> str:
    """Names come from other machines: nothing in them may move the cursor or colour the screen."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def plain(piece: Piece) -> str:
    return clean(piece if isinstance(piece, str) else piece[0])


def on_terminal() -> bool:
    return sys.stdout.isatty()


def draws() -> bool:
    """Whether stdout can show line drawing."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def line(*pieces: Piece) -> None:
    """One line. On a terminal it wraps, in a pipe it never does."""
    if on_terminal():
        _console().print(_text(*pieces), soft_wrap=True)
    else:
        print("".join(plain(piece) for piece in pieces).rstrip(), flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int] = frozenset()) -> None:
    """A table; the columns numbered in `right` are figures, set to the right. Nothing is printed without rows."""
    if not rows:
        return
    if on_terminal():
        _rich_table(headers, rows, right)
        return
    cells = [list(headers), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        texts = [
            text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(texts).rstrip())


def json(value: object, *, compact: bool = False) -> None:
    """One JSON document, keys in the order of the reference; `compact`: on one line."""
    import msgspec

    data = msgspec.json.encode(value)
    print((data if compact else msgspec.json.format(data, indent=2)).decode(), flush=compact)


def tell(text: str) -> None:
    """One line for people on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def _text(*pieces: Piece) -> Text:
    from rich.text import Text

    return Text.assemble(*((clean(p), "") if isinstance(p, str) else (clean(p[0]), p[1]) for p in pieces))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int]) -> None:
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD if draws() else box.ASCII, pad_edge=False, show_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        last = index == len(headers) - 1
        shown.add_column(header, justify="right" if index in right else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        shown.add_row(*(_text(cell) for cell in row))
    _console().print(shown)
