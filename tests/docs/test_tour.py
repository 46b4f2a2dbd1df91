"""The tour of README.md, command by command, on real nodes: what it shows is what is printed."""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.cli.ports import hold_free_port
from tests.docs.tour import Step, Terminal, play, steps, whole

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: the path of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="tour-") as path:
        yield Path(path)


def test_every_command_of_the_tour_prints_what_the_page_says(folder: Path) -> None:
    page = (ROOT / "README.md").read_text()
    held = {port: hold_free_port(random.Random()) for port in ("8080", "7700", "7701", "7702")}
    tour = [
        Step(re.sub(r"\b(8080|770[012])\b", lambda found: str(held[found[0]].port), step.command), step.output)
        for step in steps(page)
    ]
    assert len(tour) >= 20
    (folder / ".curlrc").write_text("silent\n")  # as on a terminal
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "TMPDIR": str(folder), "CURL_HOME": str(folder), "NO_COLOR": "1"}
    try:
        with Terminal(ROOT, env) as terminal:
            for step in tour:
                play(terminal, step)
    finally:
        for each in held.values():
            if each.name is not None:
                each.name.close()


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        (["hello 1  x"], "hello 1    x\n", True),
        (["hello 1  x"], "hello 2    x\n", False),
        (["a", "...", "b"], "a\n1\n2\nb\n", True),
        (["a", "b"], "a\n1\nb\n", False),
        ([], "anything\n", False),
        (["2026-11-24T03:58:52.520Z  up"], "2031-01-02T23:00:00.000Z  up\n", True),
        (["at 127.0.0.1:7700 x-0123abcd"], "at 127.0.0.1:1 x-ffffffff\n", True),
    ],
)
def test_what_is_compared(said: list[str], printed: str, same: bool) -> None:
    assert bool(whole(said).fullmatch(printed)) == same
