"""Reads the `console` blocks of a page and runs them as one shell session.

A `console` block holds commands, as a reader pastes them. What they print stands in an `output` block directly below; without
one any output is accepted. Each command must succeed unless its line ends in `|| true`. A block that cannot be run has
`<!-- not run: REASON -->` directly above it. `<!-- needs: go curl -->` anywhere in a page names programs without which the
test of the page is skipped (`python:fastapi` is a module).

In an output block `...` alone stands for any lines; times, made-up ids and ports are compared by their form. A program in
the background prints at any moment: its lines are looked for in everything that is printed. The other lines must come as
written. The commands at the end of a block that only read are repeated until their output is there.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<kind>[\w-]*) *$")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
NEEDS = re.compile(r"<!-- needs: (\S.*) -->")
HERE = re.compile(r"<<-?\s*(?P<quote>['\"]?)(?P<end>\w+)(?P=quote)")
BACKGROUND = "sdlb run: "
READ_ONLY = re.compile(
    r"(\w+=\S+ )*(?:"
    r"curl (?!.*\s(-X|--request|-d|--data\S*|-T|-F|--json)\b)"
    r"|sdlb (tree|status|explain|events|routes)\b"
    r"|sdlb policy get\b"
    r"|(cat|grep|head|ls|tail|test) (?!.*<<)"
    r")"
)
KILLED = re.compile(r"\S+: line \d+: +\d+ (Killed|Terminated|Aborted)\b.*\n")
PORT = re.compile(r"(?:[\w.\]]:|--port[ =]|\bPORT=|(?<=[\s'\"]):)(\d{4,5})\b")
LIKE = (
    (re.compile(r"\d{4}\\-\d\d\\-\d\dT[\d:.\\]+Z"), r"\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z"),
    (re.compile(r"127\\\.0\\\.0\\\.1:\d+"), r"127\\.0\\.0\\.1:\\d+"),
    (re.compile(r"\\-[0-9a-f]{8}\b"), r"-[0-9a-f]{8}"),
    (re.compile(r"(?<=\\ )\d+\\ (s|min)(?=\b)"), r"\\d+ (s|min)"),
    (re.compile(r"(\\ )+"), r"\\s+"),
)


class Malformed(Exception):
    """A page that breaks the rules of its blocks. The text names the line."""


@dataclass(frozen=True, slots=True)
class Block:
    line: int
    commands: tuple[str, ...]
    output: tuple[str, ...] | None
    """None: any."""
    not_run: str | None


@dataclass(frozen=True, slots=True)
class Fenced:
    line: int
    kind: str
    above: str
    gap: bool
    """Whether anything but blank lines stands between the fence above and this one."""
    body: tuple[str, ...]


def fences(page: str) -> list[Fenced]:
    found: list[Fenced] = []
    lines = page.splitlines()
    at, gap, above = 0, True, ""
    while at < len(lines):
        opening = FENCE.match(lines[at].strip())
        if opening is None:
            gap, above = gap or bool(lines[at].strip()), lines[at].strip() or above
            at += 1
            continue
        indent = len(lines[at]) - len(lines[at].lstrip())
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == opening["fence"]), None)
        if end is None:
            raise Malformed(f"line {at + 1}: the fence is not closed")
        body = tuple(line[min(indent, len(line) - len(line.lstrip())) :] for line in lines[at + 1 : end])
        found.append(Fenced(at + 1, opening["kind"], above, gap, body))
        at, gap, above = end + 1, False, ""
    return found


def blocks(page: str) -> list[Block]:
    found: list[Block] = []
    before: Fenced | None = None
    for fence in fences(page):
        if fence.kind == "console":
            reason = NOT_RUN.fullmatch(fence.above)
            found.append(Block(fence.line, _commands(fence), None, reason[1] if reason else None))
        elif fence.kind == "output":
            if before is None or before.kind != "console" or fence.gap:
                raise Malformed(f"line {fence.line}: an output block stands directly below a console block")
            last = found[-1]
            found[-1] = Block(last.line, last.commands, fence.body, last.not_run)
        before = fence
    return found


def _commands(fence: Fenced) -> tuple[str, ...]:
    found: list[str] = []
    command: list[str] = []
    for line in fence.body:
        if not command and not line.strip():
            continue
        if not command and line.startswith("$ "):
            raise Malformed(f"line {fence.line}: a console block holds commands without `$ `: {line}")
        command.append(line)
        if _complete(command):
            found.append("\n".join(command))
            command = []
    if command:
        raise Malformed(f"line {fence.line}: incomplete command: {command[0]}")
    return tuple(found)


def _complete(command: list[str]) -> bool:
    ends: list[str] = []
    for line in command:
        if ends:
            if line.strip() == ends[0]:
                ends.pop(0)
        else:
            ends += [found["end"] for found in HERE.finditer(line)]
    if ends or command[-1].endswith("\\"):
        return False
    text = "\n".join(command)
    return subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).returncode == 0


def ports(of: list[Block]) -> set[str]:
    return {port for block in of for command in block.commands for port in PORT.findall(command)}


def pattern(line: str) -> str:
    text = re.escape(line.rstrip())
    for these, like in LIKE:
        text = these.sub(like, text)
    return text + r"[ ]*\n"


def whole(lines: list[str]) -> re.Pattern[str]:
    return re.compile("".join(r"(?:.*\n)*?" if line.strip() == "..." else pattern(line) for line in lines))


@dataclass(frozen=True, slots=True)
class Ran:
    command: str
    status: int


class Terminal:
    """A shell with everything that it and its background jobs print."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="sdlb-console-")
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self._printed: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._commands = 0

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._printed.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write("kill $(jobs -p) 2>/dev/null\nwait\n")
        self._shell.stdin.close()
        try:
            self._shell.wait(60)
        finally:
            self._shell.kill()
            self._shell.wait()
            self._reader.join()
            self._shell.stdout.close()
            self._files.cleanup()

    def run(self, command: str, timeout_s: float = 240.0) -> Ran:
        """Returns once the command is through."""
        assert self._shell.stdin is not None
        self._commands += 1
        start = len(self._printed)
        # From a file: the command cannot read what follows it in the shell's own input.
        file = Path(self._files.name) / f"{self._commands}.sh"
        file.write_text(command + "\n")
        self._shell.stdin.write(f'. {file} </dev/null\necho "end of {self._commands} with $?"\n')
        end = re.compile(rf"end of {self._commands} with (\d+)\n")
        until = time.monotonic() + timeout_s
        while True:
            # What is printed without a newline at its end stands before the mark, in the same line.
            for at, line in enumerate(self._printed[start:], start):
                if mark := end.search(line):
                    self._printed[at : at + 1] = [line[: mark.start()] + "\n"] if mark.start() else []
                    return Ran(command, int(mark[1]))
            shown = "".join(self._printed[start:])
            assert time.monotonic() < until, f"{command} does not end:\n{shown}"
            time.sleep(0.01)

    def position(self) -> int:
        return len(self._printed)

    def printed(self, start: int, end: int | None = None) -> list[str]:
        return [line for line in self._printed[start:end] if not KILLED.fullmatch(line)]


def play(terminal: Terminal, block: Block, timeout_s: float = 30.0) -> None:
    """Raises AssertionError with both texts when the block does not print, within the time, what the page shows."""
    expected = block.output or ()
    background = [line for line in expected if line.startswith(BACKGROUND)]
    shown = whole([line for line in expected if not line.startswith(BACKGROUND)])
    until = time.monotonic() + timeout_s
    once, repeated = _split(block.commands)
    begin = terminal.position()
    ran = [terminal.run(command) for command in once]
    middle = terminal.position()
    while True:
        again = terminal.position()
        latest = [*ran, *(terminal.run(command) for command in repeated)]
        everything = terminal.printed(begin)
        own = terminal.printed(begin, middle) + terminal.printed(again) if repeated else everything
        text = "".join(line for line in own if not line.startswith(BACKGROUND))
        printed_by_background = all(
            re.search("^" + pattern(line), "".join(everything), re.MULTILINE) for line in background
        )
        failed = [each for each in latest if each.status != 0]
        if not failed and printed_by_background and (block.output is None or shown.fullmatch(text)):
            return
        if time.monotonic() > until or any(each.status != 0 for each in ran):
            raise AssertionError(
                "\n".join(
                    [
                        f"line {block.line}:",
                        *block.commands,
                        *(f"exit status {each.status}: {each.command}" for each in failed),
                        *(["the page shows:", *expected] if block.output is not None else []),
                        "printed was:",
                        "".join(everything if background else own),
                    ]
                )
            )
        time.sleep(0.2)


def _split(commands: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that are run once, and the read-only ones at the end, which may be repeated."""
    at = len(commands)
    while at and READ_ONLY.match(commands[at - 1]):
        at -= 1
    return commands[:at], commands[at:]
