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
    """Fits the terminal: columns without content are left out, long texts go over several lines, figures never."""
    from rich import box
    from rich.table import Table

    console = _console()
    shown = Table(
        box=box.SIMPLE_HEAD if draws() else box.ASCII,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    texts = [[_text(cell) for cell in row] for row in rows]
    used = [i for i in range(len(headers)) if any(row[i] for row in texts)]
    natural = [max(len(headers[i]), *(row[i].cell_len for row in texts)) for i in used]
    fixed = frozenset(place for place, i in enumerate(used) if i in right)
    room = console.width - GAP * (len(used) - 1)
    for i, width in zip(used, fit(natural, [len(headers[i]) for i in used], fixed, room), strict=True):
        shown.add_column(headers[i], justify="right" if i in right else "left", width=width, overflow="fold")
    for row in texts:
        shown.add_row(*(row[i] for i in used))
    console.print(shown)


GAP = 2
"""Between two columns."""
LAST_MIN = 20
"""The last column has the sentences: it is left so much as long as others can give way."""


def fit(natural: Sequence[int], headers: Sequence[int], fixed: frozenset[int], room: int) -> list[int]:
    """Widths of columns, at most `room` together if it can be: the widest gives way first, none below its header, those in
    `fixed` not at all. Where that is not enough the widest gives way whatever it is."""
    widths = list(natural)
    least = [width if i in fixed else header for i, (width, header) in enumerate(zip(natural, headers, strict=True))]
    least[-1] = min(natural[-1], max(least[-1], LAST_MIN))
    while sum(widths) > room:
        can = [i for i, width in enumerate(widths) if width > least[i]] or [i for i, w in enumerate(widths) if w > 1]
        if not can:
            break
        widths[max(can, key=lambda i: widths[i])] -= 1
    return widths
