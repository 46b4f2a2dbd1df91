"""`sdlb rollout`: its parser, and orders about a version that waits (`approve`, `promote`)."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out, rollout_orders, rollout_record, rollout_status
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.types import GateProgress

PROG = "sdlb rollout"
APPROVAL, OPEN = "approval", "open"
TAKES_INTERRUPTS = True


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "rollout",
        description="Brings a release to the nodes that run the service, node by node; approves and promotes versions that wait.",
    )
    verbs = parser.add_subparsers(
        dest="verb",
        metavar="plan | start | status | pause | resume | approve | promote | abort | undo | history | show | adopt",
        required=True,
    )
    _add_start(verbs)
    _add_reads(verbs)
    _add_orders(verbs)
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
        help="go on with a rollout, or with a version that waits",
        description="Promotes the rollout of a service: it does not wait for the first nodes. With a version, promotes "
        "that waiting version: gates that were refused or timed out are retried, a flip does not wait for more capacity, "
        "and a version that was replaced may become active again.",
    )
    promote.add_argument("service", metavar="SERVICE", help="the service, or the id of a rollout")
    promote.add_argument("version", nargs="?", metavar="VERSION", help="the waiting version")
    promote.add_argument("--no-gates", metavar="REASON", help="with a version: skip all gates; the reason is recorded")
    _add_as(promote)


def _add_start(verbs: options.Commands) -> None:
    for name, help, description in (
        (
            "plan",
            "what a rollout would do",
            "Shows what a rollout would do: how many nodes, the lowest capacity and the expected gap. Exit code 1 if it would be refused.",
        ),
        (
            "start",
            "start a rollout",
            "Starts a rollout of a release to all nodes that run the service. Prints the lowest capacity and the expected gap. "
            "Settings that neither an option nor the rollout file has come from the policy, or have the default in brackets.",
        ),
    ):
        parser = verbs.add_parser(name, help=help, description=description)
        parser.add_argument(
            "service", metavar="SERVICE", help="the service; without VERSION, the path of a rollout file (TOML or JSON)"
        )
        parser.add_argument("version", nargs="?", metavar="VERSION", help="the version; a release of it must be known")
        parser.add_argument(
            "more",
            nargs="*",
            metavar="SERVICE VERSION",
            help="other services of a joint rollout: they go in the order that their releases require; if one fails, all go back",
        )
        rollout_orders.add_settings(parser)
        parser.add_argument("--supersede", action="store_true", help="replace the rollout in progress")
        if name == "start":
            _add_wait(parser)
        else:
            parser.add_argument(
                "--lose",
                action="append",
                metavar="NODE",
                help="simulate the rollout, and the loss of this node at the worst moments (may be repeated)",
            )
        _add_as(parser)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        action="store_true",
        help="print the progress; exit code 0 only when the rollout is done (or undone, if that was the order), 1 otherwise",
    )


def _add_reads(verbs: options.Commands) -> None:
    status = verbs.add_parser(
        "status", help="how far rollouts are", description="Shows how far the rollouts are and what they wait for."
    )
    status.add_argument("service", nargs="?", metavar="SERVICE", help="only this service, or the rollout with this id")
    status.add_argument(
        "--watch", action="store_true", help="show it again when it changes, until the rollout is finished"
    )
    history = verbs.add_parser(
        "history", help="earlier rollouts", description="Lists the rollouts of a service, newest first."
    )
    history.add_argument("service", metavar="SERVICE", help="the service")
    show = verbs.add_parser("show", help="one rollout", description="Shows a rollout with its settings and digests.")
    show.add_argument("service", metavar="ROLLOUT", help="the id of a rollout, or a service: its last one")
    show.add_argument(
        "--record", action="store_true", help="show the record of each root, entry by entry, and verify it"
    )
    show.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="SHA256",
        help="verify the record, and that it still has the entry with this SHA-256",
    )
    for each in (status, history, show):
        options.add_socket(each)
        options.add_json(each)


def _add_orders(verbs: options.Commands) -> None:
    for name, help, description in (
        (
            "pause",
            "update no more nodes",
            "Pauses a rollout: nodes that are being updated finish, and no other node is updated.",
        ),
        ("resume", "go on", "Resumes a paused or halted rollout. Nodes that failed try again."),
        ("abort", "go back", "Aborts the rollout in progress: nodes that have the new version go back."),
        (
            "undo",
            "go back to what was before",
            "Aborts the rollout in progress; without one, rolls the nodes back to what they had before the last finished rollout.",
        ),
        (
            "adopt",
            "continue a rollout after its owner is lost",
            "Lets another root own the rollout, when the root that owns it cannot be reached. It first collects all open slots.",
        ),
    ):
        parser = verbs.add_parser(name, help=help, description=description)
        parser.add_argument("rollout", metavar="SERVICE", help="the service, or the id of a rollout")
        if name == "undo":
            parser.add_argument("--dry-run", action="store_true", help="only show what it would do")
            _add_wait(parser)
        _add_as(parser)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="the service")
    parser.add_argument("version", metavar="VERSION", help="the waiting version")


def _add_as(parser: argparse.ArgumentParser) -> None:
    options.add_as(parser)
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.verb in ("plan", "start"):
        return rollout_orders.start(args)
    if args.verb == "promote" and args.version is None:
        if args.no_gates is not None:
            raise options.Usage(f"{PROG} promote", "--no-gates needs a VERSION: gates belong to a waiting version")
        args.rollout = args.service
        return rollout_orders.order(args)
    with Client(args.socket) as client:
        match args.verb:
            case "approve":
                return _approve(client, args)
            case "promote":
                return _promote(client, args)
            case "status":
                return rollout_status.run(client, args)
            case "history":
                return rollout_status.history(client.rollout(args.service), args.json)
            case "show" if args.record or args.verify is not None:
                return rollout_record.run(client, args)
            case "show":
                return rollout_status.show(client, client.rollout(args.service), args.json)
            case _:
                return rollout_orders.order(args)


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
