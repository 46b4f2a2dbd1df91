"""`make chaos`: exit code 0: all goals held; 1: not; 2: it cannot be run here, or wrong usage."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from sdlb.cli.demo.launch import WaitTimeout
from sdlb.sdk.problem import Problem
from tools.chaos.acts import Acts
from tools.chaos.network import Network, NoNetworkError
from tools.chaos.plan import EDGES, HOSTS, KINDS, RACKS, steps
from tools.chaos.report import Attempt, Done, Received, Report, report, table
from tools.chaos.tree import CLIENTS, Tree

WARM_UP_S = 2.0
MINUTES_MAX = 24 * 60.0


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="A tree of real nodes under load and faults.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the plan (default: the time)")
    parser.add_argument(
        "--minutes", type=_minutes, default=60.0, help="no step begins after it, but the first (default: 60)"
    )
    parser.add_argument("--steps", type=_steps_max, default=0, metavar="N", help="at most N steps (default: no limit)")
    parser.add_argument("--faults", type=_kinds, default=tuple(KINDS), metavar="A,B", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="steps, table and what is broken")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="what clients, instances and nodes have logged")
    args = parser.parse_args(words)
    try:  # before the run: its result must not be lost at the end
        if args.json is not None:
            args.json.open("a").close()
        if args.logs is not None:
            args.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{error.filename}: cannot be written: {error.strerror}; use another path")
    return args


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"{text}: more than 0 and at most {MINUTES_MAX:g}")
    return minutes


def _steps_max(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: 0 (no limit) or more")
    return number


def _kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: not one of {', '.join(KINDS)}")
    return names


class Interrupted(BaseException):
    """SIGINT or SIGTERM. Not KeyboardInterrupt: Python exits by the signal instead of with `main`'s result when one passes
    through code that is executed from a string, as dataclasses are when a module is loaded."""


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if shutil.which("openssl") is None:
        print("make chaos needs the program openssl", file=sys.stderr)
        return 2
    try:
        with Network((*EDGES, *RACKS, *HOSTS, *CLIENTS), args.seed) as network:
            return run(args, network)
    except NoNetworkError as error:
        print(f"make chaos cannot be run here: {error}", file=sys.stderr)
        return 2
    except Interrupted:
        print("make chaos: interrupted; all its processes were stopped", file=sys.stderr)
        return 130


def run(args: argparse.Namespace, network: Network) -> int:
    until = time.monotonic() + args.minutes * 60
    print(f"chaos: seed {args.seed}, {args.minutes:g} minutes", flush=True)
    with Tree(network, args.seed) as tree:
        tree.start()
        print(f"chaos: {len(tree.nodes)} nodes and {len(tree.running)} instances are up", flush=True)
        tree.start_clients()
        time.sleep(WARM_UP_S)
        done = list(_steps(args, tree, until))
        tree.stop_clients()
        result = report(done, attempts(tree.logs), received(tree.logs))
        logs = args.logs or (None if result.held else Path(tempfile.mkdtemp(prefix="chaos-logs-")))
        if logs is not None:
            tree.keep_logs(logs)
    _print(args, result, logs)
    if args.json is not None:
        args.json.write_text(json.dumps(document(args, done, result), indent=1) + "\n")
    return 0 if result.held else 1


def _steps(args: argparse.Namespace, tree: Tree, until: float) -> Iterator[Done]:
    """Runs steps until the time is over or a step does not finish: the state of the tree is unknown then."""
    acts = Acts(tree)
    for step in steps(args.seed, args.faults):
        if (step.number > 1 and time.monotonic() > until) or (args.steps and step.number > args.steps):
            return
        print(f"chaos: {step.number:4} {step}", end="", flush=True)
        done = Done(step, time.monotonic())
        try:
            acts.do(done)
        except (WaitTimeout, Problem, subprocess.TimeoutExpired) as error:
            done.late = f"{error}\n{tree.story()}"
            print(f": {error}", flush=True)
            yield done
            return
        print(f": converged {done.converged - done.over:.1f} s after", flush=True)
        yield done


def attempts(logs: Path) -> Iterator[Attempt]:
    for file in sorted(logs.glob("clients-*.jsonl")):
        for line in file.read_text().splitlines():
            yield Attempt(**json.loads(line))


def received(logs: Path) -> Iterator[Received]:
    for file in sorted(logs.glob("received-*.jsonl")):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            yield Received(entry["method"], entry["id"], entry["instance"])


def document(args: argparse.Namespace, done: Sequence[Done], result: Report) -> dict[str, object]:
    steps = [{**asdict(each), "name": each.step.name, "goal": each.step.goal} for each in done]
    rows = [row.document() for row in result.rows]
    return {"seed": args.seed, "minutes": args.minutes, "steps": steps, "table": rows, "broken": result.broken}


def _print(args: argparse.Namespace, result: Report, logs: Path | None) -> None:
    print(table(result.rows))
    for text in result.broken:
        print(f"BROKEN: {text}")
    if result.held:
        print("chaos: all goals held")
    else:
        faults = "" if args.faults == tuple(KINDS) else f" --faults {','.join(args.faults)}"
        print(f"logs: {logs}")
        print(f"again: make chaos CHAOS_ARGS='--seed {args.seed} --minutes {args.minutes:g}{faults}'")


if __name__ == "__main__":
    sys.exit(main())
