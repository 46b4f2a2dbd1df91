"""`sdlb rollout plan`, `start`, `pause`, `resume`, `promote`, `abort`, `undo` and `adopt`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from sdlb.cli import args as options
from sdlb.cli import out, rollout_forecast
from sdlb.cli.rollout_status import first_line, progress, some
from sdlb.cli.status import age
from sdlb.model.canary import NODES
from sdlb.model.rollout_reader import COUNTS, SECONDS, SPEC_KEYS, RolloutFile
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import Rollout, RolloutOrdered, RolloutPlan

PROG = "sdlb rollout"
NO_ZONE = "none"
POLL_S = 0.5
DONE, UNDONE = "done", "undone"
BACK = ("undoing", UNDONE)
HALTED = "halted"
FAILED = (HALTED, UNDONE, "superseded")
DID = {"pause": "paused", "resume": "resumed", "promote": "promoted", "abort": "aborted", "adopt": "adopted"}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Each value is None if it is not given."""
    parser.add_argument(
        "--side-by-side",
        choices=("incompatible", "always", "never"),
        help="when both versions may run on a node at once (default: incompatible)",
    )
    parser.add_argument(
        "--first", type=_count("first"), metavar="N", help="nodes that are updated alone before any other (1)"
    )
    parser.add_argument(
        "--soak",
        dest="soak_s",
        type=_seconds("soak_s"),
        metavar="S",
        help="how long a new instance has to be healthy (30)",
    )
    parser.add_argument(
        "--failures-max",
        type=_count("failures_max"),
        metavar="N",
        help="failed nodes beyond which the rollout halts (0)",
    )
    parser.add_argument(
        "--progress",
        dest="progress_s",
        type=_seconds("progress_s"),
        metavar="S",
        help="how long a node may take to become healthy (600)",
    )
    parser.add_argument(
        "--nodes-out-max",
        type=_nodes_out,
        metavar="N",
        help='nodes of the tree that may be out at once, as a number or "10%%" (10%%)',
    )
    parser.add_argument(
        "--drain",
        dest="drain_s",
        type=_seconds("drain_s"),
        metavar="S",
        help="how long an instance may drain, then its requests are cut off (otherwise: drain of the policy)",
    )
    parser.add_argument(
        "--accept-gap", action="store_true", default=None, help="the capacity of the service may fall below its floor"
    )


def _count(key: str) -> Any:
    least, most = COUNTS[key]

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} to {most}")
        return int(text)

    return read


def _seconds(key: str) -> Any:
    least, most = SECONDS[key]

    def read(text: str) -> float:
        value = options.seconds_or_zero(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from {least} to {most}")
        return value

    return read


def _nodes_out(text: str) -> str:
    if not NODES.match(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage like 10%, or a number of nodes")
    return text


# ---------------------------------------------------------------------- start


def start(args: argparse.Namespace) -> int:
    """Also `plan`, which only asks what would happen."""
    what, plan = _what(args), args.verb == "plan"
    lose = plan and bool(args.lose)
    if lose and what.also:
        raise options.Usage(f"{PROG} plan", "--lose plays the rollout of one service; name only one")
    with Client(args.socket) as client:
        done = client.start_rollout(
            what.service,
            what.version,
            what.spec,
            supersede=args.supersede,
            dry_run=plan,
            also=what.also,
            by=args.as_,
        )
        if lose and done.plan is not None and not done.objection:
            return _foretold(client, done, args)
        if plan:
            return _planned(done, args.json)
        return _started(client, done, args)


def _what(args: argparse.Namespace) -> RolloutFile:
    """The services, their versions and the settings: those of the file, under those of the options."""
    given = {key: getattr(args, key) for key in SPEC_KEYS if getattr(args, key) is not None}
    if args.version is not None:
        return RolloutFile(args.service, args.version, given, _also(args))
    from sdlb.node.release_file import read_rollout_file

    if "." not in args.service and "/" not in args.service:
        raise options.Usage(f"{PROG} {args.verb}", "give SERVICE VERSION, or the path of a rollout file")
    found = read_rollout_file(args.service)
    return replace(found, spec={**found.spec, **given})


def _also(args: argparse.Namespace) -> dict[str, str]:
    services, versions = args.more[::2], args.more[1::2]
    if len(versions) < len(services):
        raise options.Usage(f"{PROG} {args.verb}", f"give a VERSION after {services[-1]}")
    for service in services:
        if [args.service, *services].count(service) > 1:
            raise options.Usage(f"{PROG} {args.verb}", f"{service} is named twice; give each service once")
    return dict(zip(services, versions, strict=True))


def _planned(done: RolloutOrdered, json: bool) -> int:
    if json:
        out.json(done)
    else:
        for line in _plans(done):
            out.line(line)
        out.line((f"it would be refused: {done.objection}", "red") if done.objection else "nothing was changed")
    return 1 if done.objection else 0


def _foretold(client: Client, done: RolloutOrdered, args: argparse.Namespace) -> int:
    """A plan with what would happen if nodes were lost."""
    plan = done.plan or RolloutPlan()
    found = rollout_forecast.forecasts(client, plan, args.lose)
    if args.json:
        out.json({**done.to_dict(), "forecasts": rollout_forecast.data(found)})
        return 0
    for line in (*plan_lines(plan), *rollout_forecast.lines(found, plan.nodes), "nothing was changed"):
        out.line(line)
    return 0


def _started(client: Client, done: RolloutOrdered, args: argparse.Namespace) -> int:
    rollout = done.rollout or Rollout()
    if not args.json:
        for line in _plans(done):
            out.line(line)
        undoes = f", which undoes {rollout.undoes}" if rollout.undoes else ""
        what = f"{rollout.id}{undoes}"
        if rollout.joint:
            what = ", then ".join(f"{part.id} of {part.service}" for part in rollout.joint)
        out.line(f"{done.by} started {what} (owned by {done.owner})")
    if args.wait:
        return wait(client, rollout, json=args.json)
    if args.json:
        out.json(done)
    return 0


def _plans(done: RolloutOrdered) -> Iterator[str]:
    for number, plan in enumerate(done.joint, 1):
        first, *rest = plan_lines(plan)
        yield f"{number}. {first}"
        yield from (f"   {line}" for line in rest)
    if not done.joint:
        yield from plan_lines(done.plan)


def plan_lines(plan: RolloutPlan | None) -> Iterator[str]:
    if plan is None:
        return
    how = (
        "side by side, then a cut-over"
        if plan.incompatible and plan.side_by_side
        else "side by side"
        if plan.side_by_side
        else ""
    )
    batches = how or f"in {some(plan.batches, 'batch', 'batches')}"
    yield f"{plan.service} {plan.before or 'nothing'} -> {plan.to} on {some(plan.nodes, 'node')}, {batches}"
    if plan.zones:
        order = (f"{each.zone or NO_ZONE} ({some(each.nodes, 'node')})" for each in plan.zones)
        yield f"zone by zone: {', then '.join(order)}"
    if not plan.baseline:
        return
    most = f", at most {age(plan.gap_max_s)}" if plan.gap_max_s > plan.gap_s else ""
    gap = f"; no version serves for about {age(plan.gap_s)}{most}" if plan.gap_s else ""
    yield f"the lowest capacity is {plan.lowest:,} of {plan.baseline:,}, the floor {plan.floor:,}{gap}"


# ---------------------------------------------------------------------- other orders


def order(args: argparse.Namespace) -> int:
    dry_run = getattr(args, "dry_run", False)
    with Client(args.socket) as client:
        done = client.order_rollout(args.rollout, args.verb, dry_run=dry_run, by=args.as_)
        if dry_run:
            return _planned(done, args.json)
        rollout = done.rollout or Rollout()
        waits = args.verb == "undo" and args.wait
        aborted = any(part.state in BACK for part in rollout.joint)
        if args.verb == "undo" and rollout.undoes and rollout.state not in BACK and not aborted:
            return _started(client, done, args)
        if args.verb == "undo":  # of the rollout in progress
            done = RolloutOrdered(owner=done.owner, verb=done.verb, by=done.by, rollout=rollout)
        if args.json and waits:
            return wait(client, rollout, json=True, goal=UNDONE)
        if args.json:
            out.json(done)
        else:
            did = DID.get(args.verb, "aborted")
            others = [part.service for part in rollout.joint if part.service != rollout.service]
            joint = f", together with {', '.join(others)}" if others else ""
            out.line(f"{done.by} {did} {rollout.id} of {rollout.service}{joint} (owned by {done.owner})")
        return wait(client, rollout, json=False, goal=UNDONE) if waits else 0


# ---------------------------------------------------------------------- waiting


def wait(client: Client, rollout: Rollout, *, json: bool, goal: str = DONE) -> int:
    """Until the rollout, and all that belong to it, have ended or are halted. Exit code 0 only if all have reached the goal."""
    id = (
        rollout.joint[-1].id if rollout.joint else rollout.id
    )  # it is the last to be done, and is never undone by another one
    last: list[str] = []
    lost = ""
    while True:
        try:
            parts = _parts(client, id)
            lost = ""
        except Problem as problem:
            if problem.status not in (0, 503):
                raise
            if problem.detail != lost and not json:
                out.message(f"{PROG}: {problem.detail}; still waiting")
            lost = problem.detail
            time.sleep(POLL_S)
            continue
        now = [progress(each) for each in parts]
        for line in now if not json else ():
            if line not in last:
                out.line(line)
        last = now
        if _is_over(parts):
            break
        time.sleep(POLL_S)
    if json:
        out.json(next(each for each in parts if each.id == id))
    failed = [each for each in parts if not _is_good(each, goal)]
    if not failed:
        return 0
    raise Problem(BASE + "rollout-failed", 409, "; ".join(map(_failure, failed)))


def _parts(client: Client, id: str) -> list[Rollout]:
    """The rollout and those that belong to it, in order."""
    rollout = client.rollout(id)
    if len(rollout.joint) < 2:
        return [rollout]
    there = {each.id: each for each in client.rollouts().rollouts}
    return [rollout if part.id == id else there[part.id] for part in rollout.joint if part.id in (*there, id)]


def _is_over(parts: list[Rollout]) -> bool:
    """A joint rollout of which one is halted goes back automatically, unless it undoes another one."""
    if any(each.state == HALTED and (each.undoes or len(parts) == 1) for each in parts):
        return True
    return all(each.state == DONE or each.state in FAILED for each in parts)


def _is_good(rollout: Rollout, goal: str) -> bool:
    return rollout.state == goal or (goal == UNDONE and rollout.state == DONE and bool(rollout.undoes))


def _failure(rollout: Rollout) -> str:
    why = f": {first_line(rollout.detail)}" if rollout.detail else ""
    failed = "; ".join(f"{node}: {first_line(text)}" for node, text in sorted(rollout.failed.items()))
    more = f" ({failed})" if failed and failed not in why else ""
    return f"{rollout.id} of {rollout.service} is {rollout.state}{why}{more}"
