"""Reads and runs the tour of a page: `console` blocks, `$ ` before a command, its output below.

In the output `...` alone stands for any lines; times, made-up ids and ports are compared by their form. What a program in
the background says may come at any moment and in any order; all else must come as written.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
BACKGROUND = "sdlb run: "
ASKS_ONLY = re.compile(r"(SDLB_SOCKET=\S+ )?(curl|sdlb (tree|status|explain|events))\b")
"""May be asked again until the answer is there: a reader is slower than a script."""
LIKE = (
    (re.compile(r"\d{4}\\-\d\d\\-\d\dT[\d:.\\]+Z"), r"\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z"),
    (re.compile(r"127\\\.0\\\.0\\\.1:\d+"), r"127\\.0\\.0\\.1:\\d+"),
    (re.compile(r"\\-[0-9a-f]{8}\b"), r"-[0-9a-f]{8}"),
    (re.compile(r"(\\ )+"), r"\\s+"),
)


@dataclass(frozen=True, slots=True)
class Step:
    command: str
    output: tuple[str, ...]


def steps(page: str) -> list[Step]:
    found: list[Step] = []
    for block in BLOCK.findall(page):
        command: list[str] = []
        output: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    found.append(Step("\n".join(command), tuple(output)))
                command, output = [line[2:]], []
            elif command[-1].endswith("\\"):
                command.append(line)
            else:
                output.append(line)
        found.append(Step("\n".join(command), tuple(output)))
    return found


def pattern(line: str) -> str:
    text = re.escape(line.rstrip())
    for these, like in LIKE:
        text = these.sub(like, text)
    return text + r"[ ]*\n"


def whole(lines: list[str]) -> re.Pattern[str]:
    return re.compile("".join(r"(?:.*\n)*?" if line.strip() == "..." else pattern(line) for line in lines))


class Terminal:
    """A shell with all that it and its background jobs print."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
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

    def run(self, command: str, timeout_s: float = 60.0) -> int:
        """Returns the place in what is printed where this command's output begins, once the command is through."""
        assert self._shell.stdin is not None
        self._commands += 1
        start, end = len(self._printed), f"end of {self._commands}\n"
        self._shell.stdin.write(f"{command}\necho 'end of {self._commands}'\n")
        until = time.monotonic() + timeout_s
        while end not in self._printed[start:]:
            assert time.monotonic() < until, f"{command} does not end:\n{''.join(self._printed[start:])}"
            time.sleep(0.01)
        return start

    def since(self, start: int) -> list[str]:
        return [line for line in self._printed[start:] if not re.fullmatch(r"end of \d+\n", line)]


def play(terminal: Terminal, step: Step, timeout_s: float = 30.0) -> None:
    """Raises AssertionError with both texts when the step does not print, within the time, what the page says."""
    spoken = [line for line in step.output if line.startswith(BACKGROUND)]
    shown = whole([line for line in step.output if not line.startswith(BACKGROUND)])
    until = time.monotonic() + timeout_s
    start = at = terminal.run(step.command)
    while True:
        own = "".join(line for line in terminal.since(at) if not line.startswith(BACKGROUND))
        other = "".join(terminal.since(start))
        if shown.fullmatch(own) and all(re.search("^" + pattern(line), other, re.MULTILINE) for line in spoken):
            return
        said = "\n".join(step.output)
        printed = other if spoken else own
        assert time.monotonic() < until, f"$ {step.command}\nthe page says:\n{said}\nprinted was:\n{printed}"
        time.sleep(0.2)
        if ASKS_ONLY.match(step.command):
            at = terminal.run(step.command)
