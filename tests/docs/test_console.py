"""Every console block of the pages, run on real nodes: what a page shows is what is printed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdlb.node.ports import hold_free_port
from tests.docs.console import NEEDS, Block, Malformed, Terminal, blocks, play, ports, whole

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md", *ROOT.glob("docs/**/*.md"))
    if "```console" in path.read_text()
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: the path of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="page-") as path:
        yield Path(path)
        stop_all_of(Path(path))


def stop_all_of(folder: Path) -> None:
    """Programs of roles run on when their node stops, each with a supervisor that names the folder of its slot."""
    until = time.monotonic() + 20
    while time.monotonic() < until and signalled(folder):
        time.sleep(0.1)


def signalled(folder: Path) -> int:
    """Asks the processes of the folder to stop; their number."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            mine = any(word.startswith(bytes(folder) + b"/") for word in words)
            if mine or (entry / "cwd").readlink().is_relative_to(folder):
                os.kill(int(entry.name), signal.SIGTERM)
                count += 1
        except (OSError, ValueError):
            continue  # it has exited, or belongs to another user
    return count


def run(page: str, folder: Path) -> None:
    """All blocks of a page as one session. Each port that the page names becomes a free one."""
    todo = [block for block in blocks(page) if block.not_run is None]
    home = folder / "home"
    home.mkdir()
    (home / ".curlrc").write_text("silent\n")  # as on a terminal
    work = folder / "work"
    work.mkdir()
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REPO": str(ROOT),
        "HOME": str(home),
        # Without its cache Go compiles its standard library again.
        "GOCACHE": os.environ.get("GOCACHE", str(Path.home() / ".cache/go-build")),
        "CURL_HOME": str(home),
        "TMPDIR": str(folder),
        "NO_COLOR": "1",
    }
    with ExitStack() as stack:
        free: dict[str, str] = {}
        for port in sorted(ports(todo)):
            held = hold_free_port(random.Random())
            free[port] = str(held.port)
            if held.name is not None:
                stack.callback(held.name.close)

        def moved(text: str) -> str:
            return re.sub(r"(?<![\d.])\d{4,5}(?![\d.])", lambda found: free.get(found[0], found[0]), text)

        terminal = stack.enter_context(Terminal(work, env))
        for block in todo:
            output = None if block.output is None else tuple(map(moved, block.output))
            play(terminal, Block(block.line, tuple(map(moved, block.commands)), output, None))


def is_there(needed: str) -> bool:
    kind, _, module = needed.partition(":")
    return find_spec(module) is not None if kind == "python" else shutil.which(needed) is not None


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_the_page_prints_what_the_page_shows(name: str, folder: Path) -> None:
    page = (ROOT / name).read_text()
    missing = [each for needs in NEEDS.findall(page) for each in needs.split() if not is_there(each)]
    if missing:
        pytest.skip(f"the page needs {', '.join(missing)}")
    run(page, folder)


def test_the_tour_is_found() -> None:
    assert len(blocks((ROOT / "README.md").read_text())) >= 10


def page(*parts: str) -> str:
    return "\n".join(parts) + "\n"


def test_commands_of_a_block_are_told_apart() -> None:
    text = page(
        "```console",
        "echo a \\",
        "  b",
        "cat > file <<'END'",
        "$ text",
        "END",
        "for n in 1 2; do",
        "  echo $n",
        "done",
        "",
        "echo 'two",
        "lines'",
        "```",
        "",
        "```output",
        "...",
        "```",
        "<!-- not run: it needs a machine of its own -->",
        "```console",
        "reboot",
        "```",
    )
    first, second = blocks(text)
    assert first == Block(
        1,
        (
            "echo a \\\n  b",
            "cat > file <<'END'\n$ text\nEND",
            "for n in 1 2; do\n  echo $n\ndone",
            "echo 'two\nlines'",
        ),
        ("...",),
        None,
    )
    assert (second.not_run, second.output) == ("it needs a machine of its own", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (page("```console", "$ echo a", "```"), "without `\\$ `: \\$ echo a"),
        (page("```console", "echo 'a", "```"), "incomplete command: echo 'a"),
        (page("```console", "echo a", "```", "Prints:", "```output", "a", "```"), "directly below"),
        (page("```output", "a", "```"), "directly below"),
        (page("```console", "echo a"), "not closed"),
    ],
)
def test_a_page_that_breaks_the_rules_fails(text: str, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        blocks(text)


def test_a_reason_is_required_for_a_block_that_is_not_run() -> None:
    assert blocks(page("<!-- not run: -->", "```console", "reboot", "```"))[0].not_run is None


def test_what_a_block_prints_is_compared(folder: Path) -> None:
    run(
        page(
            "```console",
            "echo one; export NAME=two",
            "echo $NAME",
            "cat  # reads nothing of the session",
            "false || true",
            "printf three",
            "```",
            "```output",
            "one",
            "two",
            "three",
            "```",
            "```console",
            "(sleep 0.5; echo late > file; echo 'sdlb run: started') &",
            "```",
            "```output",
            "sdlb run: started",
            "```",
            "```console",
            "(sleep 0.5; echo later > file) &",
            "cat file",
            "```",
            "```output",
            "later",
            "```",
            "```console",
            "echo anything",
            "```",
        ),
        folder,
    )


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo one", ["two"]),
        ("echo one", []),
        ("false", None),
        ("false; echo one; (exit 3)", ["one"]),
        ("true", ["sdlb run: started"]),
        ("cat none", None),
    ],
)
def test_what_a_page_shows_must_be_printed(folder: Path, command: str, output: list[str] | None) -> None:
    block = Block(1, (command,), None if output is None else tuple(output), None)
    with Terminal(folder, {}) as terminal, pytest.raises(AssertionError, match="line 1:"):
        play(terminal, block, timeout_s=0.5)


def test_each_port_of_a_page_becomes_a_free_one(folder: Path) -> None:
    text = page(
        "```console",
        "echo at 127.0.0.1:8080 and 8080, not 80801 or 8.8080",
        "echo --port 8000 :8001 localhost:8002 PORT=8003",
        "```",
    )
    assert ports(blocks(text)) == {"8080", "8000", "8001", "8002", "8003"}
    with pytest.raises(AssertionError, match=r"at 127.0.0.1:(?!8080)\d+ and (?!8080)\d+, not 80801 or 8.8080"):
        run(text + page("```console", "echo at 127.0.0.1:8080 and 8080, not 80801 or 8.8080; false", "```"), folder)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
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
def test_what_is_compared(shown: list[str], printed: str, same: bool) -> None:
    assert bool(whole(shown).fullmatch(printed)) == same
