"""`sdlb sim`: trees of the real control objects in virtual time, with faults; every promise is checked after every step."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from sdlb.cli import args as options
from sdlb.cli import out

if TYPE_CHECKING:
    from sdlb.cli.args import Commands
    from sdlb.sim.run import Plan, Result

TRACE_LINES = 25
NODES_MAX = 20_000


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "sim",
        description="Runs trees of nodes in virtual time: deployments, traffic, and faults of all kinds, decided by the "
        "seed alone. Checks the promises after every step (docs/promises.md). A seed that breaks one is told with the "
        "command that replays it exactly. Exit code 0: every promise held; 1: not so.",
    )
    parser.add_argument("--nodes", type=_nodes, default=300, metavar="N", help="nodes in each tree (default: 300)")
    parser.add_argument("--seeds", type=options.count, default=20, metavar="N", help="how many seeds (default: 20)")
    parser.add_argument(
        "--from", dest="first", type=options.count, default=1, metavar="SEED", help="the first seed (1)"
    )
    parser.add_argument(
        "--replay", type=options.count, metavar="SEED", help="this seed alone, with what happened in it"
    )
    parser.add_argument("--faults", type=_faults, metavar="KIND,...", help="only these kinds of fault; 'none' for none")
    parser.add_argument(
        "--seconds", type=options.positive, default=60.0, help="virtual seconds of faults (default: 60)"
    )
    parser.add_argument(
        "--jobs", type=options.count, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )
    options.add_json(parser)


def _nodes(text: str) -> int:
    nodes = options.count(text)
    if not 2 <= nodes <= NODES_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is not from 2 to {NODES_MAX}")
    return nodes


def _faults(text: str) -> tuple[str, ...]:
    from sdlb.sim.faults import KINDS

    kinds = () if text == "none" else tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"'{kind}' is no kind of fault; there are {', '.join(KINDS)}, or none")
    return kinds


def run(args: argparse.Namespace) -> int:
    from sdlb.sim.run import Plan, simulate_all

    first, seeds = (args.replay, 1) if args.replay else (args.first, args.seeds)
    plans = [
        Plan(nodes=args.nodes, seed=seed, faults_s=args.seconds, faults=args.faults)
        for seed in range(first, first + seeds)
    ]

    def show(result: Result) -> None:
        if not args.json:
            _show(result, replay=bool(args.replay))

    results = simulate_all(plans, min(args.jobs, seeds), show)
    failed = [result for result in results if not result.ok]
    if args.json:
        print(json.dumps({"ok": not failed, "seeds": [{**r.to_data(), "replay": replay(r.plan)} for r in results]}))
    else:
        steps = sum(result.steps for result in results)
        out.line(
            f"{len(results)} seeds, {steps:,} steps: " + (f"{len(failed)} broke a promise" if failed else "all held")
        )
    return 1 if failed else 0


def replay(plan: Plan) -> str:
    """The command that runs this plan again, to the same end."""
    faults = "" if plan.faults is None else f" --faults {','.join(plan.faults) or 'none'}"
    seconds = f" --seconds {plan.faults_s:g}" if plan.faults_s != 60.0 else ""
    return f"sdlb sim --nodes {plan.nodes}{seconds}{faults} --replay {plan.seed}"


def _show(result: Result, replay: bool) -> None:
    faults = sum(result.faults.values())
    answered = result.requests.get("answered", 0)
    facts = f"{result.shape}; {result.steps:,} steps, {faults} faults, {answered:,} requests answered"
    word = ("held", "green") if result.ok else ("BROKEN", "red")
    out.line(f"seed {result.plan.seed:<5} ", word, f"  {facts}, {result.wall_s:.1f} s")
    if not result.ok:
        _tell(result)
    elif replay:
        for name, number in {**result.faults, **{f"requests: {k}": v for k, v in result.requests.items()}}.items():
            out.line(f"  {number:>6} {name}")
    sys.stdout.flush()


def _tell(result: Result) -> None:
    what = f"promise {result.promise}" if result.promise else "a fault in the program"
    out.line(f"  at {result.virtual_s:.3f} s: {what}: {result.broken}")
    for text in result.trace[-TRACE_LINES:]:
        out.line("    " + text)
    out.line(f"  replay: {replay(result.plan)}")
