"""A copy of the sources with one change, and one check run in it under a limit of CPU time."""

from __future__ import annotations

import compileall
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools.mutate.checks import Check

COPIED = ("src", "tests", "tools", "pyproject.toml")
STUCK_S = 300.0
"""A check that uses no CPU time for this long is stuck: an error of the check itself."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`found`: whether the check found the mutation; `what` (a test, a seed) and `how`: from its output."""

    check: str
    found: bool
    cpu_s: float
    what: str = ""
    how: str = ""


class CheckError(Exception):
    """The check could not be run to an end."""


def prepare(root: Path, base: Path) -> None:
    """Copies what the checks need, compiled, so that each process need not compile it again."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, base / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(source, base / name)
    compileall.compile_dir(base / "src", quiet=2)


def change(base: Path, copy: Path, file: str, text: str) -> None:
    """Another copy of `base` (hard links: no check writes to the sources), with the text of one file replaced."""
    shutil.copytree(base, copy, copy_function=os.link)
    path = copy / file
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()
    path.unlink()
    path.write_text(text)


def run(check: Check, copy: Path) -> Outcome:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SDLB_"))},
        "PYTHONPATH": f"{copy}/src",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "CI": "true",  # hypothesis takes the same examples every time
        "COLUMNS": "200",
    }
    process = subprocess.Popen(
        [sys.executable, *check.command],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    limit = int(check.cpu_s) + 30  # of each process, in case this one is killed; the exact limit is kept below
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit + 5))
    try:
        return _watch(check, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _watch(check: Check, process: subprocess.Popen[bytes]) -> Outcome:
    assert process.stdout is not None
    stream = process.stdout.fileno()
    os.set_blocking(stream, False)
    output = ""
    used = printed_at = progress_at = 0.0
    moved = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            ready = selector.select(0.1)
            used = max(used, _cpu_s(process.pid))
            if ready:
                data = os.read(stream, 1 << 16)
                if not data:
                    break
                output += data.decode(errors="replace")
                printed_at = used
                if match := check.found.search(output):
                    return Outcome(check.name, True, used, match["what"], match["how"] or "")
            if used >= check.cpu_s:
                return Outcome(check.name, False, used)
            if used - printed_at > check.quiet_cpu_s:
                return Outcome(check.name, True, used, "no end", f"nothing printed for {check.quiet_cpu_s:g} CPU s")
            if used > progress_at:
                progress_at, moved = used, time.monotonic()
            elif time.monotonic() - moved > STUCK_S:
                raise CheckError(f"{check.name} uses no CPU time and does not end")
    code = process.wait()
    if code == 0:
        return Outcome(check.name, False, used)
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return Outcome(check.name, True, used, f"exit code {code}", last)


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its exited children; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS
