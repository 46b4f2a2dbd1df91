"""What commands print: colours and tables on a terminal, plain aligned text in a pipe, or JSON.

A piece of text is a string or a pair (string, style); styles are rich's ("green", "bold", "dim"). rich is only imported
when stdout is a terminal and, as everywhere, NO_COLOR (https://no-color.org) turns the colours off.
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
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
    if needs_stack(headers, rows, right, console.width):
        for line_of in stacked(headers, rows, right, console.width):
            console.print(_text(*line_of), soft_wrap=True)
        return
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


def needs_stack(headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int], width: int) -> bool:
    """Whether columns side by side would break names apart: all but the last one, which may go over lines, in full."""
    used = [i for i in range(len(headers)) if any(plain(row[i]) for row in rows)]
    natural = [max(len(headers[i]), *(len(plain(row[i])) for row in rows)) for i in used]
    last = min(natural[-1], LAST_MIN) if used else 0
    return sum(natural[:-1]) + last + GAP * (len(used) - 1) > width


def stacked(
    headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int], width: int
) -> Iterator[list[Piece]]:
    """For rows that do not fit side by side: the names, then figures and what else there is by its header, then the last
    column, which says the most."""
    for row in rows:
        names = [cell for i, cell in enumerate(row[:2]) if i not in right and plain(cell)]
        if names:
            yield [piece for cell in names for piece in (cell, "  ")][:-1]
        line_of: list[Piece] = []
        used = 0
        for i, cell in enumerate(row[:-1]):
            text = plain(cell)
            if not text or (i < 2 and i not in right):
                continue
            size = len(headers[i]) + 1 + len(text)
            if line_of and used + size + GAP > width:
                yield line_of
                line_of, used = [], 0
            line_of += [" " * (GAP if line_of else INDENT), (headers[i].lower() + " ", "dim"), cell]
            used += size + (GAP if used else INDENT)
        if line_of:
            yield line_of
        if plain(row[-1]):
            for piece in _folded(row[-1], width - INDENT):
                yield [" " * INDENT, piece]


def _folded(piece: Piece, width: int) -> list[Piece]:
    lines = textwrap.wrap(plain(piece), max(width, LAST_MIN), break_long_words=False, break_on_hyphens=False)
    return [line_of if isinstance(piece, str) else (line_of, piece[1]) for line_of in lines]


INDENT = 4
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
