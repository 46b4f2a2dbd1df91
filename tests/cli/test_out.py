"""What is printed: aligned, on one line, and harmless whatever names come from other machines."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.cli import out


@given(st.text())
def test_nothing_that_a_name_holds_reaches_the_terminal_as_a_command(text: str) -> None:
    shown = out.clean(text)
    assert len(shown) == len(text)
    assert not any(c in shown for c in "\x1b\x07\x9b\r\n\u202e\u2028")


def test_columns_are_aligned_and_figures_are_set_right(capsys: pytest.CaptureFixture[str]) -> None:
    out.table(("A", "N", "B"), [["long name", "7", "x"], ["s", "1234", ("", "red")]], frozenset({1}))
    assert capsys.readouterr().out == "A             N  B\nlong name     7  x\ns          1234\n"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12), st.booleans()), min_size=1, max_size=8),
    st.integers(10, 200),
)
def test_a_table_fits_the_terminal(columns: list[tuple[int, int, bool]], room: int) -> None:
    natural = [max(text, header) for text, header, _ in columns]
    headers = [header for _, header, _ in columns]
    fixed = frozenset(i for i, column in enumerate(columns) if column[2])
    widths = out.fit(natural, headers, fixed, room)
    assert sum(widths) <= room
    assert all(1 <= got <= wished for got, wished in zip(widths, natural, strict=True))
    if sum(natural) <= room:
        assert widths == natural
    if sum(width if i in fixed else header for i, (width, header) in enumerate(zip(natural, headers, strict=True))) <= (
        room - out.LAST_MIN
    ):
        assert all(widths[i] == natural[i] for i in fixed if i != len(columns) - 1)
        assert all(got >= header for got, header in zip(widths, headers, strict=True))


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
    figures = frozenset({2, 3, 4})
    assert not out.needs_stack(HEADERS, LONG, figures, 140)
    assert out.needs_stack(HEADERS, LONG, figures, 80)
    lines = ["".join(out.plain(piece) for piece in line) for line in out.stacked(HEADERS, LONG, figures, 80)]
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


SHOW = "from sdlb.cli import out; out.line('[red]', ('name', 'red'), chr(27)); out.table(('A',), [[('[b]x', 'green')]])"


def on_terminal(**env: str) -> bytes:
    """What SHOW prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], stdout=theirs, env={**environment, "TERM": "xterm-256color", **env}, check=True
    )
    assert done.returncode == 0
    os.close(theirs)
    data = b""
    try:
        while piece := os.read(ours, 65536):
            data += piece
    except OSError:
        pass  # Linux: the other side is closed
    os.close(ours)
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
