"""What is printed: aligned, on one line, and harmless whatever names come from other machines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from sdlb.cli import layout, out


@given(st.text())
def test_nothing_that_a_name_holds_reaches_the_terminal_as_a_command(text: str) -> None:
    shown = out.clean(text)
    assert len(shown) == len(text)
    assert not any(c in shown for c in "\x1b\x07\x9b\r\n\u202e\u2028")


def test_columns_are_aligned_and_numbers_are_right_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    out.table(("A", "N", "B"), [["long name", "7", "x"], ["s", "1234", ("", "red")]], frozenset({1}))
    assert capsys.readouterr().out == "A             N  B\nlong name     7  x\ns          1234\n"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(1, 300),
)
def test_columns_get_at_least_what_they_need_and_at_most_what_they_hold(
    columns: list[tuple[int, int]], room: int
) -> None:
    natural = [max(column) for column in columns]
    least = [min(column) for column in columns]
    room = max(room, sum(least))
    widths = layout.fit(natural, least, room)
    assert sum(widths) <= room
    assert all(low <= got <= high for low, got, high in zip(least, widths, natural, strict=True))
    assert sum(widths) == min(room, sum(natural)), "no cell is given away"


LONG = [
    [
        "the-catalog-service-of-the-shop",
        "2026.11.29-rc1",
        "12",
        "1200",
        "50%",
        "host-with-a-long-name-1",
        ("active", "green"),
    ],
    [
        "",
        "2026.12.01-rc2",
        "3",
        "0",
        "0%",
        "host-with-a-long-name-2",
        f"waiting: {'it still runs on host ' * 5}".strip(),
    ],
]
HEADERS = ("SERVICE", "VERSION", "INSTANCES", "CAPACITY", "SHARE", "HOSTS", "STATE")


def test_what_does_not_fit_side_by_side_is_stacked() -> None:
    numeric = frozenset({2, 3, 4})
    assert not layout.needs_stack(HEADERS, LONG, numeric, 140)
    assert layout.needs_stack(HEADERS, LONG, numeric, 80)
    lines = ["".join(out.plain(piece) for piece in line) for line in layout.stacked(HEADERS, LONG, numeric, 80)]
    assert lines == [
        "the-catalog-service-of-the-shop  2026.11.29-rc1",
        "    instances 12  capacity 1200  share 50%  hosts host-with-a-long-name-1",
        "    active",
        "2026.12.01-rc2",
        "    instances 3  capacity 0  share 0%  hosts host-with-a-long-name-2",
        "    waiting: it still runs on host it still runs on host it still runs on host",
        "    it still runs on host it still runs on host",
    ]
    assert max(map(len, lines)) <= 80


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out.json({"a": [1, "\x1b"]}, compact=True)
    assert capsys.readouterr().out == '{"a":[1,"\\u001b"]}\n'


NAMES = st.text(
    st.one_of(
        st.sampled_from("abcdefghij-.0123456789"),
        st.sampled_from("\u4e2d\u6587\uff21\ud55c"),  # wide
        st.sampled_from("e\u0301\u0308"),  # combining
        st.characters(),
    ),
    max_size=30,
)
SENTENCES = st.lists(NAMES, max_size=6).map(" ".join)
ROWS = st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**9).map(str), SENTENCES, SENTENCES), min_size=1, max_size=4)
COLUMNS = ("NAME", "VERSION", "COUNT", "HOSTS", "STATE")


def cells_of(line: Sequence[layout.Piece]) -> int:
    """Counted by rich, which counts on its own; of two answers the lower one, where the standards leave a choice."""
    text = "".join(out.plain(piece) for piece in line)
    return min(layout.width_of(text), cell_len(text)) if text else 0


@given(ROWS, st.integers(4, 200), st.booleans())
@settings(deadline=None)
def test_no_line_of_a_table_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int, unicode: bool) -> None:
    for line in layout.table(COLUMNS, rows, frozenset({2}), width, unicode=unicode):
        assert layout.width_of("".join(out.plain(piece) for piece in line)) <= width
        assert cells_of(line) <= width


@given(ROWS, st.integers(60, 200))
@settings(deadline=None)
def test_columns_begin_where_their_header_does(rows: list[tuple[str, ...]], width: int) -> None:
    rows = [("row", *row[1:]) for row in rows]
    if layout.needs_stack(COLUMNS, rows, frozenset({2}), width):
        return
    header, _, *lines = ["".join(map(out.plain, line)) for line in layout.table(COLUMNS, rows, frozenset({2}), width)]
    edge = header.index("COUNT") + 5 if "COUNT" in header else 0
    for row, line in zip(rows, (line for line in lines if line.startswith("row")), strict=True):
        if all(char.isascii() for cell in row for char in cell):
            assert line[:edge].endswith(row[2]), (header, line)


@given(SENTENCES, st.integers(4, 120), st.sampled_from(["", "    ", "│      "]))
@settings(deadline=None)
def test_wrapping_keeps_every_character_but_spaces(text: str, width: int, hang: str) -> None:
    lines = list(layout.wrapped([text, ("in red", "red")], width, hang))
    assert all(layout.width_of("".join(map(out.plain, line))) <= width for line in lines)
    used = hang if layout.width_of(hang) * 2 <= width else ""
    joined = "".join("".join(map(out.plain, line)).removeprefix(used if i else "") for i, line in enumerate(lines))
    assert joined.replace(" ", "") == (out.clean(text) + "in red").replace(" ", "")
    assert all(piece[1] == "red" for line in lines for piece in line if isinstance(piece, tuple))


@given(NAMES, st.integers(1, 60))
def test_a_shortened_name_keeps_both_ends(name: str, width: int) -> None:
    name = out.clean(name)
    shown = layout.shortened(name, width)
    assert layout.width_of(shown) <= width
    if layout.width_of(name) <= width:
        assert shown == name
    elif width >= 3:
        start, _, end = shown.partition("…")
        assert name.startswith(start) and name.endswith(end)


def test_a_long_name_is_shortened_in_the_middle_and_a_sentence_is_wrapped() -> None:
    rows = [
        [
            "shop",
            "catalog-of-the-shop-in-the-north",
            ("waiting: 1.0.1 still has 3 instances on host-1 and host-2", "y"),
        ],
        ["\u5546\u5e97", "1.0", ("active", "g")],
    ]
    lines = ["".join(map(out.plain, line)) for line in layout.table(("A", "B", "STATE"), rows, frozenset(), 46)]
    assert (
        lines
        == [
            "A     B                   STATE",
            "─" * 46,
            "shop  catalog-o…he-north  waiting: 1.0.1 still",
            "                          has 3 instances on",
            "                          host-1 and host-2",
            "\u5546\u5e97  1.0                 active",
        ]
        or len(lines) == 6
    )


@given(rows=ROWS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_piped_output_holds_every_value_in_full(
    rows: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out.table(COLUMNS, [[row[0], (row[1], "red"), *row[2:]] for row in rows], frozenset({2}))
    shown = capsys.readouterr().out
    header, *lines = shown.split("\n")[:-1]
    assert header.split() == list(COLUMNS) and len(lines) == len(rows) and "\x1b" not in shown
    for row, line in zip(rows, lines, strict=True):
        for value in row:
            assert out.clean(value).rstrip(" ") in line
    starts = {
        layout.width_of(line) - layout.width_of(out.clean(row[4]).rstrip(" "))
        for row, line in zip(rows, lines, strict=True)
        if out.clean(row[4]).strip()
    }
    assert len(starts) <= 1, "the last column begins at one place"


SHOW = "from sdlb.cli import out; out.line('[red]', ('name', 'red'), chr(27)); out.table(('A',), [[('[b]x', 'green')]])"


def on_terminal(code: str = SHOW, columns: int = 0, **env: str) -> bytes:
    """What a program prints on a pseudo-terminal that is so wide (0: not known)."""
    ours, theirs = pty.openpty()
    if columns:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1", **env},
    ) as program:
        os.close(theirs)
        data = b""
        try:
            while piece := os.read(ours, 65536):
                data += piece
        except OSError:
            pass  # Linux: the other side is closed
        os.close(ours)
    assert program.returncode == 0
    return data


def test_a_terminal_gets_colours_and_names_are_no_markup() -> None:
    shown = on_terminal()
    assert b"\x1b[31mname\x1b[0m" in shown
    assert b"[red]" in shown
    assert b"[b]x" in shown


def test_no_color_is_respected() -> None:
    shown = on_terminal(NO_COLOR="1")
    assert b"\x1b[3" not in shown
    assert b"name" in shown


REAL = """
from sdlb.cli import out, status, tree, routes
from sdlb.sdk.types import *
why = "2.4.2 still has 3 instances on host-with-a-long-name-1.example.internal and host-2"
versions = (
    Version(version="2026.11.29-rc1", state="active", instances=12, capacity=1200, share=100, hosts=("host-1", "host-2")),
    Version(version="2026.12.01", state="waiting", reason=why, instances=1, capacity=9, hosts=("\u4e3b\u673a-1",)),
    Version(version="3", state="refused", reason="the route is held by web"),
)
gate = GateProgress(name="migrate-the-catalog", at="gap", state="refused", age_s=130, reason=why, attempts=2)
opening = Opening(conductor="edge-1", phase="gap", to="2026.12.01", detail=why, versions={"2026.12.01": Candidate(gates=(gate,))})
seen = Services(services=(Service(name="the-catalog-service-of-the-shop-in-the-north", versions=versions, opening=opening),))
child = Child(name="host-with-a-long-name-1.example.internal", state="suspect", silent_s=11, services=("web-1.0",))
node = Tree(node="rack-1", ready=True, children=(child,), instances=(
    Instance(id="catalog-1.0.1-0a1b2c3d", service="catalog", version="1.0.1", state="waiting", reason=why,
             endpoint="unix:/run/programs/of/the/shop/catalog.sock"),))
route = Route(route="*.a-long-name-of-a-site.example.com/catalog/items/*", service="catalog", versions=("1.0.1", "1.0.2"),
              state="active", shadows=("*.example.com/*", "*/*"))
status.show(seen, node)
for line in tree.draw(node):
    out.line(*line, hang=tree.hang_of(line))
out.table(routes.HEADERS, routes.rows(route), routes.NUMERIC_COLUMNS)
"""
COLOURED = re.compile(r"\x1b\[([0-9;]*)m(.*?)\x1b\[0m", re.DOTALL)


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_the_commands_fit_a_real_terminal(columns: int) -> None:
    shown = on_terminal(REAL, columns).decode()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(layout.width_of, lines)) <= columns
    assert all(line == line.rstrip() for line in lines)
    words = {word: set[str]() for word in ("active", "waiting", "refused")}
    for style, text in COLOURED.findall(shown):
        for word, styles in words.items():
            if text.startswith(word):
                styles.add(style)
    assert words == {"active": {"32"}, "waiting": {"33"}, "refused": {"31"}}


def test_a_pipe_gets_every_value_whatever_the_terminal_is() -> None:
    environment = {**os.environ, "PYTHONUTF8": "1", "TERM": "xterm-256color"}
    shown = [
        subprocess.run(
            [sys.executable, "-c", REAL],
            env={**environment, "COLUMNS": columns},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for columns in ("20", "300")
    ]
    assert shown[0] == shown[1] and "\x1b" not in shown[0]
    for value in ("the-catalog-service-of-the-shop-in-the-north", "unix:/run/programs/of/the/shop/catalog.sock"):
        assert value in shown[0]
    assert "waiting: 2.4.2 still has 3 instances on host-with-a-long-name-1.example.internal and host-2" in shown[0]
