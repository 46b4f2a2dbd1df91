"""python -m bench.flame FOLDER: where the engine's time goes in each case of `edge`, as flame graphs (`make flame`).

perf samples by CPU time, because most virtual machines have no hardware counters; inferno draws the graphs. A stack that
perf cannot unwind completely begins where the unwinding stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import edge, load, processes
from bench.report import CannotRun, machine
from bench.stand import Stand

SECONDS = 6
PER_S = 499
STACK_BYTES = 16384
NARROWEST_PERCENT = "1"
FIELDS = "comm,pid,tid,time,event,ip,sym,dso"


def main() -> int:
    """Returns 1 if a graph could not be drawn."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    try:
        processes.tool("perf", "linux-perf")
        load.need("h2load", "openssl", "nginx")
        with Stand(edge.ROUTES, ()) as stand:
            for case in edge.CASES:
                path = folder / f"{case.name}.svg"
                stacks = _stacks(stand, case)
                path.write_bytes(_run(_inferno("flamegraph", case.title), stacks))
                print(f"{path}: {_kernel_percent(stacks):.0f} % in system calls and the kernel: {case.title}")
    except CannotRun as error:
        print(f"bench: flame: {error}", file=sys.stderr)
        return 1
    return 0


def _stacks(stand: Stand, case: edge.Case) -> bytes:
    """One line for each sampled stack, with its count."""
    data = stand.folder / "perf.data"
    words = case.words(stand, stand.addresses["sdlb"], SECONDS)
    client = processes.start(["taskset", "-c", str(stand.there), *words])
    try:
        time.sleep(1.0)
        graph = ("--call-graph", f"dwarf,{STACK_BYTES}", "-p", str(stand.pid("sdlb")))
        record = ["perf", "record", "-q", "-F", str(PER_S), "-e", "cpu-clock", *graph, "-o", str(data)]
        _run([*record, "--", "sleep", str(SECONDS - 2)])
    finally:
        processes.end([client])
    stacks = _run(["perf", "script", "-i", str(data), "--no-inline", "-F", FIELDS])
    return _run(_inferno("collapse"), stacks).replace(b"[unknown];", b"")


def _kernel_percent(stacks: bytes) -> float:
    counts = [(b"do_syscall_64" in line, int(line.rsplit(b" ", 1)[1])) for line in stacks.splitlines()]
    return 100 * sum(count for kernel, count in counts if kernel) / sum(count for _, count in counts)


def _inferno(what: str, title: str = "") -> list[str]:
    if what == "collapse":
        return [processes.installed("bin/inferno-collapse-perf"), "-q"]
    look = ("--minwidth", NARROWEST_PERCENT, "--deterministic", "--title", f"sdlb-engine: {title}")
    return [processes.installed("bin/inferno-flamegraph"), "-q", *look]


def _run(words: list[str], given: bytes = b"") -> bytes:
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    if done.returncode:
        raise CannotRun(f"{Path(words[0]).name} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
