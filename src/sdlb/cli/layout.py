"""Text laid out for a terminal: display widths, wrapped lines, and tables that fit. No I/O.

A piece of text is a string or a pair (string, style). Widths are counted in terminal cells: a wide (CJK) character takes two,
a combining character none. Names are shortened in the middle, since their ends tell them apart; sentences are wrapped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

Piece = str | tuple[str, str]
Line = list[Piece]

GAP = 2
"""Cells between two columns."""
INDENT = 4
NAME_MIN = 16
"""A column of names is not made narrower than this."""
SENTENCE_MIN = 20
"""The last column holds sentences and is not made narrower than this."""
SENTENCE_GOOD = 40
"""Down to this width, the last column is wrapped before names are shortened."""


def clean(text: str) -> str:
    """The text without control characters: names come from other machines and must not move the cursor or set colours."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def plain(piece: Piece) -> str:
    return clean(piece if isinstance(piece, str) else piece[0])


def width_of(text: str) -> int:
    """The number of terminal cells that cleaned text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    if (
        unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff"
    ):  # the second parts of Hangul syllables
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def padded(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def shortened(text: str, width: int, ellipsis: str = "…") -> str:
    """The text, with its middle replaced by the ellipsis when it is wider than `width`."""
    if width_of(text) <= width:
        return text
    room = width - width_of(ellipsis)
    if room < 2:
        return _start(text, width)
    tail = room // 2
    return _start(text, room - tail) + ellipsis + _end(text, tail)


def _start(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _cells(char)
        if used > width:
            return text[:index]
    return text


def _end(text: str, width: int) -> str:
    used = 0
    for index in range(len(text) - 1, -1, -1):
        used += _cells(text[index])
        if used > width or (used == width and index and not _cells(text[index])):
            return text[index + 1 :]
    return text


def wrapped(pieces: Iterable[Piece], width: int, hang: str = "") -> Iterator[Line]:
    """Lines of at most `width` cells, broken at spaces where possible; all but the first begin with `hang`."""
    chars = [(char, "" if isinstance(piece, str) else piece[1]) for piece in pieces for char in plain(piece)]
    while chars and chars[-1][0] == " ":
        chars.pop()
    width = max(width, 2)
    hang = hang if width_of(hang) * 2 <= width and width - width_of(hang) >= 2 else ""
    start, first = 0, True
    while True:
        room = width if first else width - width_of(hang)
        end, next_start = _break(chars, start, room)
        yield ([] if first or not hang else [hang]) + _pieces(chars[start:end])
        if next_start >= len(chars):
            return
        start, first = next_start, False


def _break(chars: Sequence[tuple[str, str]], start: int, room: int) -> tuple[int, int]:
    """Where the line that begins at `start` ends, and where the next one begins."""
    used, space, seen_word = 0, -1, False
    for index in range(start, len(chars)):
        char = chars[index][0]
        used += _cells(char)
        if used > room:
            if char == " " and seen_word:
                space = index
            end = space if space >= 0 else max(index, start + 1)
            following = end
            while space >= 0 and following < len(chars) and chars[following][0] == " ":
                following += 1
            while end > start + 1 and chars[end - 1][0] == " ":
                end -= 1
            return end, following
        if char != " ":
            seen_word = True
        elif seen_word:
            space = index
    return len(chars), len(chars)


def _pieces(chars: Sequence[tuple[str, str]]) -> Line:
    """Neighbours of one style as one piece."""
    line: Line = []
    for char, style in chars:
        last = line[-1] if line else None
        if isinstance(last, tuple) and style == last[1]:
            line[-1] = (last[0] + char, style)
        elif isinstance(last, str) and not style:
            line[-1] = last + char
        else:
            line.append((char, style) if style else char)
    return line


# ------------------------------------------------------------------ tables


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Piece]],
    right: frozenset[int],
    width: int,
    *,
    unicode: bool = True,
) -> Iterator[Line]:
    """A table in at most `width` cells; the columns numbered in `right` hold numbers, which are never shortened.

    Columns without content are left out. Rows that cannot stand side by side are stacked.
    """
    used = _used(headers, rows)
    natural = _natural(headers, rows, used)
    least = _least(headers, natural, used, right)
    if _total(least) > width:
        yield from stacked(headers, rows, right, width)
        return
    widths = fit(natural, least, width - GAP * (len(used) - 1))
    yield _row([[[(headers[i], "bold")]] for i in used], widths, used, right, 0)
    yield [(("─" if unicode else "-") * _total(widths), "dim")]
    ellipsis = "…" if unicode else ".."
    for row in rows:
        cells = [
            _cell(row[i], size, ellipsis if i != used[-1] and i not in right else None)
            for i, size in zip(used, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            yield _row(cells, widths, used, right, number)


def _used(headers: Sequence[str], rows: Sequence[Sequence[Piece]]) -> list[int]:
    return [i for i in range(len(headers)) if any(plain(row[i]) for row in rows)] or [0]


def _natural(headers: Sequence[str], rows: Sequence[Sequence[Piece]], used: Sequence[int]) -> list[int]:
    return [max(len(headers[i]), *(width_of(plain(row[i])) for row in rows)) for i in used]


def _least(headers: Sequence[str], natural: Sequence[int], used: Sequence[int], right: frozenset[int]) -> list[int]:
    return [
        size if i in right else min(size, max(len(headers[i]), SENTENCE_MIN if i == used[-1] else NAME_MIN))
        for i, size in zip(used, natural, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def needs_stack(headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int], width: int) -> bool:
    """Whether the columns do not fit side by side, even with shortened names and a wrapped last column."""
    used = _used(headers, rows)
    return _total(_least(headers, _natural(headers, rows, used), used, right)) > width


def fit(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of at most `room` together, between `least` and `natural`; `least` must fit.

    The last column gives way first, down to `SENTENCE_GOOD`; then the widest one does.
    """
    widths = list(natural)
    while sum(widths) > room:
        can = [i for i, size in enumerate(widths) if size > least[i]]
        if not can:
            break
        last = len(widths) - 1
        widths[last if last in can and widths[last] > SENTENCE_GOOD else max(can, key=lambda i: widths[i])] -= 1
    return widths


def _cell(piece: Piece, width: int, ellipsis: str | None) -> list[Line]:
    """The lines of a cell. With an `ellipsis` its words are names: each stays on one line."""
    text, style = plain(piece), "" if isinstance(piece, str) else piece[1]
    if ellipsis is not None:
        text = " ".join(shortened(word, width, ellipsis) for word in text.split(" "))
    return list(wrapped([(text, style)], width))


def _row(
    cells: Sequence[list[Line]], widths: Sequence[int], used: Sequence[int], right: frozenset[int], number: int
) -> Line:
    line: Line = []
    for place, (cell, size) in enumerate(zip(cells, widths, strict=True)):
        pieces = cell[number] if number < len(cell) else []
        space = " " * (size - sum(width_of(plain(piece)) for piece in pieces))
        last = place == len(cells) - 1
        line += [space, *pieces] if used[place] in right else [*pieces, "" if last else space]
        line.append("" if last else " " * GAP)
    return _trimmed(line)


def _trimmed(line: Line) -> Line:
    while line and isinstance(line[-1], str) and not line[-1].strip(" "):
        line.pop()
    return line


def stacked(
    headers: Sequence[str], rows: Sequence[Sequence[Piece]], right: frozenset[int], width: int
) -> Iterator[Line]:
    """Rows that do not fit side by side: the names, then the other columns by their headers, then the last column."""
    indent = " " * min(INDENT, width // 4)
    for row in rows:
        names = [cell for i, cell in enumerate(row[:2]) if i not in right and plain(cell)]
        if names:
            yield from wrapped([piece for cell in names for piece in (cell, " " * GAP)][:-1], width)
        line: Line = []
        taken = 0
        for i, cell in enumerate(row[:-1]):
            text = plain(cell)
            if not text or (i < 2 and i not in right):
                continue
            size = len(headers[i]) + 1 + width_of(text)
            if line and taken + GAP + size > width:
                yield from wrapped(line, width, indent)
                line, taken = [], 0
            line += [" " * GAP if line else indent, (headers[i].lower() + " ", "dim"), cell]
            taken += size + (GAP if taken else len(indent))
        if line:
            yield from wrapped(line, width, indent)
        if plain(row[-1]):
            yield from wrapped([indent, row[-1]], width, indent)
