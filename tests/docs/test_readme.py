"""The README's five minutes, typed into a shell: what it shows is what comes.

Ports are replaced by free ones. What differs from run to run (ids, times, ports that a program was given) is compared by
shape, runs of blanks as one; a line `...` stands for any lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdlb.cli.demo.launch import Late, Launcher, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PORTS = ("8080", "7700", "7701", "7702")
PORT = re.compile(rf"(?<=127\.0\.0\.1:)({'|'.join(PORTS)})\b")
READS = re.compile(r"^(SDLB_SOCKET=\S+ )?(curl|sdlb (status|tree|routes|explain|events)) ")
WITHIN_S = 30.0


@dataclass
class Step:
    command: str
    shown: list[str] = field(default_factory=list[str])

    @property
    def reads(self) -> bool:
        """Changes nothing: asked again until it is as shown."""
        return READS.match(f"{self.command} ") is not None


def steps() -> Iterator[Step]:
    """The commands of all `console` blocks, each with the lines that are shown below it."""
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        step: Step | None = None
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line[2:])
            else:
                assert step is not None, f"{line!r} is shown below no command"
                step.shown.append(line)
        if step is not None:
            yield step


def shape(line: str) -> str:
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line)
    line = re.sub(r"-[0-9a-f]{8}\b", "-ID", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", line)
    return " ".join(line.split())


def as_shown(shown: list[str], lines: list[str]) -> bool:
    """Whether `lines` are those shown, in their order and no others."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(shape(line)) + r"\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{shape(line)}\n" for line in lines)) is not None


class Shell:
    """One bash for the whole tour. Its own output and that of what runs behind it go to one file, as in a terminal."""

    def __init__(self, launcher: Launcher) -> None:
        self._folder = launcher.folder
        self.terminal = self._folder / "terminal"
        self._done = self._folder / "done"
        self._done.touch()
        self._count = 0
        launcher.environment["PATH"] = f"{Path(sys.executable).parent}:{launcher.environment['PATH']}"
        launcher.environment["TMPDIR"] = str(launcher.folder)
        with self.terminal.open("ab") as out:
            words = ["bash", "--noprofile", "--norc"]
            self.process = launcher.program(words, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=ROOT)

    def do(self, command: str) -> list[str]:
        """What it printed; of what goes on behind: what it printed until now."""
        self._count += 1
        answer = self._folder / f"answer-{self._count}"
        behind = " &" in command
        told = command if behind else f"{{ {command}\n}} >{answer} 2>>{self.terminal}"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{told}\necho {self._count} >>{self._done}\n".encode())
        self.process.stdin.flush()
        until(f"{command} returns", lambda: f"{self._count}\n" in self._done.read_text(), WITHIN_S)
        return [] if behind else answer.read_text().splitlines()

    def told(self, since: int) -> list[str]:
        """What came to the terminal from there on."""
        return self.terminal.read_bytes()[since:].decode().splitlines()


def play(shell: Shell, step: Step) -> None:
    since = shell.terminal.stat().st_size
    lines = shell.do(step.command)
    if step.reads:

        def asked() -> bool:
            nonlocal lines
            matches = as_shown(step.shown, lines)
            lines = lines if matches else shell.do(step.command)
            return matches

        wait, came = asked, lambda: lines
    elif lines:
        wait, came = lambda: as_shown(step.shown, lines), lambda: lines
    else:  # told by what runs behind, perhaps with more between
        expected = Counter(map(shape, step.shown))
        wait, came = lambda: expected <= Counter(map(shape, shell.told(since))), lambda: shell.told(since)
    try:
        until(step.command, wait, WITHIN_S)
    except Late as late:
        shown, got = "\n".join(step.shown), "\n".join([*came(), "(terminal:)", *shell.told(since)])
        raise AssertionError(f"{late}\n-- README.md shows\n{shown}\n-- but it came\n{got}") from None


def test_the_five_minutes_are_as_shown() -> None:
    with Launcher("sdlb-tour-") as launcher:
        ports = {port: str(launcher.ports.take()) for port in PORTS}
        shell = Shell(launcher)
        played = [Step(PORT.sub(lambda found: ports[found[0]], step.command), step.shown) for step in steps()]
        for step in played:
            play(shell, step)
        shell.do("wait")  # all that it has started ends
