"""`sdlb rollout plan`, `start`, `pause`, `resume`, `promote`, `abort`, `undo` and `adopt`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.cli.rollout_status import first_line, progress, some
from sdlb.cli.status import age
from sdlb.model.rollout_reader import COUNTS, NODES_OUT, SECONDS, SPEC_KEYS
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import Rollout, RolloutOrdered, RolloutPlan

PROG = "sdlb rollout"
POLL_S = 0.5
FAILED = ("halted", "undone", "superseded")
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
        "--drain", dest="drain_s", type=_seconds("drain_s"), metavar="S", help="how long an instance may drain (30)"
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
    if not NODES_OUT.match(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage like 10%, or a number of nodes")
    return text


# ---------------------------------------------------------------------- start


def start(args: argparse.Namespace) -> int:
    """Also `plan`, which only asks what would happen."""
    service, version, settings = _what(args)
    plan = args.verb == "plan"
    with Client(args.socket) as client:
        done = client.start_rollout(service, version, settings, supersede=args.supersede, dry_run=plan, by=args.as_)
        if plan:
            return _planned(done, args.json)
        return _started(client, done, args)


def _what(args: argparse.Namespace) -> tuple[str, str, dict[str, object]]:
    """The service, the version and the settings: those of the file, under those of the options."""
    given = {key: getattr(args, key) for key in SPEC_KEYS if getattr(args, key) is not None}
    if args.version is not None:
        return args.service, args.version, given
    from sdlb.node.release_file import read_rollout_file

    if "." not in args.service and "/" not in args.service:
        raise options.Usage(f"{PROG} {args.verb}", "give SERVICE VERSION, or the path of a rollout file")
    found = read_rollout_file(args.service)
    return found.service, found.version, {**found.spec, **given}


def _planned(done: RolloutOrdered, json: bool) -> int:
    if json:
        out.json(done)
    else:
        for line in plan_lines(done.plan):
            out.line(line)
        out.line((f"it would be refused: {done.objection}", "red") if done.objection else "nothing was changed")
    return 1 if done.objection else 0


def _started(client: Client, done: RolloutOrdered, args: argparse.Namespace) -> int:
    rollout = done.rollout or Rollout()
    if not args.json:
        for line in plan_lines(done.plan):
            out.line(line)
        undoes = f", which undoes {rollout.undoes}" if rollout.undoes else ""
        out.line(f"{done.by} started {rollout.id}{undoes} (owned by {done.owner})")
    if args.wait:
        return wait(client, rollout.id, json=args.json)
    if args.json:
        out.json(done)
    return 0


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
    if not plan.baseline:
        return
    gap = f"; no version serves for about {age(plan.gap_s)}" if plan.gap_s else ""
    yield f"the lowest capacity is {plan.lowest:,} of {plan.baseline:,}, the floor {plan.floor:,}{gap}"


# ---------------------------------------------------------------------- other orders


def order(args: argparse.Namespace) -> int:
    dry_run = getattr(args, "dry_run", False)
    with Client(args.socket) as client:
        done = client.order_rollout(args.rollout, args.verb, dry_run=dry_run, by=args.as_)
        if dry_run:
            return _planned(done, args.json)
        rollout = done.rollout or Rollout()
        if args.verb == "undo" and rollout.undoes and rollout.state != "undoing":
            return _started(client, done, args)
        if args.verb == "undo":  # of the rollout in progress
            done = RolloutOrdered(owner=done.owner, verb=done.verb, by=done.by, rollout=rollout)
        if args.json:
            out.json(done)
        else:
            did = DID.get(args.verb, "aborted")
            out.line(f"{done.by} {did} {rollout.id} of {rollout.service} (owned by {done.owner})")
        return 0


# ---------------------------------------------------------------------- waiting


def wait(client: Client, id: str, *, json: bool) -> int:
    """Until the rollout has ended or is halted. Exit code 0 only if it is done."""
    last = lost = ""
    while True:
        try:
            rollout = client.rollout(id)
            lost = ""
        except Problem as problem:
            if problem.status not in (0, 503):
                raise
            if problem.detail != lost and not json:
                out.message(f"{PROG}: {problem.detail}; still waiting")
            lost = problem.detail
            time.sleep(POLL_S)
            continue
        now = progress(rollout)
        if now != last and not json:
            out.line(now)
        last = now
        if rollout.state == "done" or rollout.state in FAILED:
            break
        time.sleep(POLL_S)
    if json:
        out.json(rollout)
    if rollout.state == "done":
        return 0
    why = f": {first_line(rollout.detail)}" if rollout.detail else ""
    failed = "; ".join(f"{node}: {first_line(text)}" for node, text in sorted(rollout.failed.items()))
    text = f"{rollout.id} of {rollout.service} is {rollout.state}{why}{f' ({failed})' if failed and failed not in why else ''}"
    raise Problem(BASE + "rollout-failed", 409, text)
