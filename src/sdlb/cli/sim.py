"""`sdlb sim`: trees of the real control objects in virtual time, with faults; every promise is checked after every
step."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from sdlb.cli import args as options
from sdlb.cli import out, sim_explore

if TYPE_CHECKING:
    from sdlb.cli.args import Commands
    from sdlb.sim.coverage import Counts
    from sdlb.sim.run import Plan, Result

TRACE_LINES = 25
TAKES_INTERRUPTS = True
NODES_MAX = 20_000


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "sim",
        description="Runs trees of nodes in virtual time: deployments, traffic, and faults of all kinds, chosen by the "
        "seed alone. Checks the promises after every step (docs/promises.md). Prints each seed that breaks a "
        "promise with the command that replays it exactly, and a summary of what the runs covered. Exit code "
        "0: every promise held; 1: a promise was broken.",
    )
    parser.add_argument("--nodes", type=_nodes, default=300, metavar="N", help="nodes in each tree (default: 300)")
    parser.add_argument("--seeds", type=options.count, default=20, metavar="N", help="number of seeds (default: 20)")
    parser.add_argument(
        "--from", dest="first", type=options.count, default=1, metavar="SEED", help="the first seed (1)"
    )
    parser.add_argument(
        "--replay", type=options.count, metavar="SEED", help="run this seed alone and print what happens"
    )
    parser.add_argument(
        "--scenario",
        type=_scripted,
        metavar="NAME",
        help="run a scripted scenario instead of random faults; 'all', or 'list'",
    )
    parser.add_argument(
        "--faults", type=_faults, metavar="KIND,...", help="inject only these kinds of fault, or 'none'"
    )
    parser.add_argument(
        "--seconds", type=options.seconds, default=60.0, help="duration of the faults in virtual time (default: 60)"
    )
    parser.add_argument(
        "--jobs",
        type=options.count,
        default=os.cpu_count() or 1,
        help="number of processes (default: the number of cores)",
    )
    parser.add_argument(
        "--explore",
        type=_scenarios,
        metavar="SCENARIO,...",
        nargs="?",
        const="all",
        help="explore every order of events in small trees instead of seeds; 'all' (the default), names, or name "
        "prefixes ending in '*'",
    )
    parser.add_argument(
        "--states",
        type=options.count,
        default=100_000,
        metavar="N",
        help="with --explore: stop each scenario after this many distinct states (default: 100000)",
    )
    parser.add_argument("--list", action="store_true", help="only list the scenarios of --explore")
    options.add_json(parser)


def _nodes(text: str) -> int:
    nodes = options.count(text)
    if not 2 <= nodes <= NODES_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 2 to {NODES_MAX}")
    return nodes


def _scenarios(text: str) -> str:
    from sdlb.sim.explore.scenarios import named

    try:
        named(text)
    except KeyError as problem:
        message = f"'{problem.args[0]}' is not a scenario; 'sdlb sim --explore --list' lists them"
        raise argparse.ArgumentTypeError(message) from None
    return text


def _faults(text: str) -> tuple[str, ...]:
    from sdlb.sim.faults import KINDS

    kinds = () if text == "none" else tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"'{kind}' is not a kind of fault; use {', '.join(KINDS)}, or none")
    return kinds


def _scripted(text: str) -> str:
    from sdlb.sim.scenarios import SCENARIOS

    if text not in (*SCENARIOS, "all", "list"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a scenario; 'sdlb sim --scenario list' lists them")
    return text


def run(args: argparse.Namespace) -> int:
    if args.explore is not None or args.list:
        return sim_explore.run(args)
    if args.scenario == "list":
        return _list(args.json)
    from sdlb.sim.coverage import add_up
    from sdlb.sim.run import simulate_all

    plans = _plans(args)

    def show(result: Result) -> None:
        if not args.json:
            _show(result, replay=bool(args.replay))

    results = simulate_all(plans, min(args.jobs, len(plans)), show)
    failed = [result for result in results if not result.ok]
    coverage = add_up(result.coverage for result in results)
    if args.json:
        seeds = [{**r.to_data(), "faults": r.faults, "replay": replay(r.plan)} for r in results]
        print(json.dumps({"ok": not failed, "seeds": seeds, "coverage": coverage}))
    else:
        _show_coverage(coverage)
        steps = sum(result.steps for result in results)
        out.line(
            f"{len(results)} seeds, {steps:,} steps: " + (f"{len(failed)} broke a promise" if failed else "all held")
        )
    return 1 if failed else 0


def _plans(args: argparse.Namespace) -> list[Plan]:
    from sdlb.sim.run import Plan
    from sdlb.sim.scenarios import SCENARIOS

    if args.scenario:
        names = tuple(SCENARIOS) if args.scenario == "all" else (args.scenario,)
        return [Plan(scenario=name, seed=args.replay or args.first) for name in names]
    first, seeds = (args.replay, 1) if args.replay else (args.first, args.seeds)
    return [
        Plan(nodes=args.nodes, seed=seed, faults_s=args.seconds, faults=args.faults)
        for seed in range(first, first + seeds)
    ]


def _list(as_json: bool) -> int:
    from sdlb.sim.scenarios import SCENARIOS

    if as_json:
        rows = {
            s.name: {"situation": s.situation, "promises": s.promises, "title": s.title} for s in SCENARIOS.values()
        }
        print(json.dumps(rows))
        return 0
    for each in sorted(SCENARIOS.values(), key=lambda each: (each.situation, each.name)):
        out.line(f"{each.situation}  {each.name:<48} {each.title}")
    return 0


def replay(plan: Plan) -> str:
    """The command that repeats this plan with the same result."""
    if plan.scenario:
        return f"sdlb sim --scenario {plan.scenario}" + (f" --replay {plan.seed}" if plan.seed != 1 else "")
    faults = "" if plan.faults is None else f" --faults {','.join(plan.faults) or 'none'}"
    seconds = f" --seconds {plan.faults_s:g}" if plan.faults_s != 60.0 else ""
    return f"sdlb sim --nodes {plan.nodes}{seconds}{faults} --replay {plan.seed}"


def _show(result: Result, replay: bool) -> None:
    faults = sum(result.faults.values())
    answered = result.requests.get("answered", 0)
    summary = f"{result.shape}; {result.steps:,} steps, {faults} faults, {answered:,} requests answered"
    word = ("held", "green") if result.ok else ("BROKEN", "red")
    name = result.plan.scenario or f"seed {result.plan.seed}"
    out.line(f"{name:<{48 if result.plan.scenario else 10}} ", word, f"  {summary}, {result.wall_s:.1f} s")
    if not result.ok:
        _show_failure(result)
    elif replay:
        for name, number in result.requests.items():
            out.line(f"  {number:>6} requests: {name}")
    sys.stdout.flush()


TITLES = {
    "faults": "faults",
    "changes": "changes by operators and programs",
    "instances": "states of instances",
    "permits": "verdicts, as children hear them",
    "happened": "what followed",
    "compared": "checks that had something to compare, by promise",
}


def _show_coverage(coverage: dict[str, Counts]) -> None:
    """Prints what the runs covered. What never happened is missing from the list."""
    for table, title in TITLES.items():
        counts = coverage[table]
        out.line(f"{title}:" + ("" if counts else " none"))
        width = max((len(name) for name in counts), default=0)
        for name, number in counts.items():
            out.line(f"  {name:<{width}} {number:>12,}")


def _show_failure(result: Result) -> None:
    what = f"promise {result.promise}" if result.promise else "a fault in the program"
    out.line(f"  at {result.virtual_s:.3f} s: {what}: {result.broken}")
    for text in result.trace[-TRACE_LINES:]:
        out.line("    " + text)
    out.line(f"  replay: {replay(result.plan)}")
