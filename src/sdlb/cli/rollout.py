"""`sdlb rollout approve`, `sdlb rollout promote`: orders of operators about a waiting version."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.types import GateProgress

LATER = ("plan", "start", "status", "pause", "resume", "abort", "undo", "history", "show", "adopt")
PROG = "sdlb rollout"
APPROVAL, OPEN = "approval", "open"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "rollout",
        description="Approves or promotes a version that waits. 'sdlb status SERVICE' shows what it waits for.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="approve | promote", required=True)
    approve = verbs.add_parser(
        "approve",
        help="approve a gate",
        description="Approves a gate of a waiting version, in your name: the user that runs the command. The gate "
        "lists the names that may approve.",
    )
    _add_version(approve)
    approve.add_argument(
        "--gate", metavar="GATE", help="the gate; needed when several gates of the version wait for an approval"
    )
    _add_as(approve)
    promote = verbs.add_parser(
        "promote",
        help="go on with a version that waits",
        description="Promotes a waiting version: gates that were refused or timed out are retried, a flip does not "
        "wait for more capacity, and a version that was replaced may become active again.",
    )
    _add_version(promote)
    promote.add_argument("--no-gates", metavar="REASON", help="skip all gates; the reason is recorded")
    _add_as(promote)
    for name in LATER:
        later = verbs.add_parser(name, add_help=False, prefix_chars="\0")  # accepts any further arguments
        later.add_argument("rest", nargs="*")


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="the service")
    parser.add_argument("version", metavar="VERSION", help="the waiting version")


def _add_as(parser: argparse.ArgumentParser) -> None:
    options.add_as(parser)
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.verb in LATER:
        out.message(f"{PROG} {args.verb}: not supported in this version")
        return 2
    with Client(args.socket) as client:
        return _approve(client, args) if args.verb == "approve" else _promote(client, args)


def _approve(client: Client, args: argparse.Namespace) -> int:
    gate = args.gate or _only_gate(_gates(client, args.service, args.version), f"{args.service}-{args.version}")
    done = client.approve(args.service, args.version, gate, by=args.as_)
    if args.json:
        out.json(done)
    else:
        out.line(f"{done.by} approved gate {done.gate} of {done.service}-{done.version} (recorded by {done.conductor})")
    return 0


def _promote(client: Client, args: argparse.Namespace) -> int:
    if args.no_gates is not None and not args.no_gates.strip():
        raise options.Usage(f"{PROG} promote", "--no-gates needs a reason")
    done = client.promote(args.service, args.version, no_gates=args.no_gates or "", by=args.as_)
    if args.json:
        out.json(done)
    else:
        how = ", without its gates" if done.no_gates else ""
        out.line(f"{done.by} promoted {done.service}-{done.version}{how} (recorded by {done.conductor})")
    return 0


def _gates(client: Client, service: str, version: str) -> tuple[GateProgress, ...]:
    opening = client.service(service).services[0].opening
    waiting = opening.versions.get(version) if opening is not None else None
    return waiting.gates if waiting is not None else ()


def _only_gate(gates: tuple[GateProgress, ...], name: str) -> str:
    """The one gate that waits for an approval. Raises Problem."""
    found = [gate.name for gate in gates if gate.kind == APPROVAL and gate.state != OPEN]
    if len(found) == 1:
        return found[0]
    text = f"no gate of {name} waits for an approval; see 'sdlb status'"
    if found:
        text = f"several gates of {name} wait for an approval ({', '.join(found)}); name one with --gate"
    raise Problem(BASE + "approval-refused", 409, text)
