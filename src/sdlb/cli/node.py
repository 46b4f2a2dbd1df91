"""`sdlb node`: runs one node, control and engine, in the foreground."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from sdlb.cli import args as options

if TYPE_CHECKING:
    from sdlb.node.config import Options

PROG = "sdlb node"
TAKES_INTERRUPTS = True


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "node",
        description="Runs one node in the foreground. SIGTERM drains and stops control and engine. When control is "
        "killed, its engine keeps serving; the same command attaches to it again.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the node file (docs/reference/node-file.md); options override it"
    )
    parser.add_argument("--root", action="store_true", help="run as a root: a node without parents")
    parser.add_argument(
        "--parent",
        dest="parents",
        action="append",
        metavar="ADDR",
        help="a parent to register with, host:port; repeat it for several parents",
    )
    parser.add_argument("--listen", metavar="ADDR", help="the listener for HTTP clients, for example 0.0.0.0:80 (none)")
    parser.add_argument("--node-listen", metavar="ADDR", help="the listener for child nodes (127.0.0.1:7700)")
    parser.add_argument("--name", metavar="NAME", help="the node's name in the tree (default: the host's)")
    parser.add_argument("--state-dir", metavar="DIR", help="the node's state folder")
    parser.add_argument(
        "--public", action="store_true", default=None, help="the node faces the internet: use the hardened preset"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow unencrypted node links in private networks, not only on this machine",
    )
    options.add_socket(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="only report all errors of the node file, and what this machine lacks to run it",
    )
    actions = parser.add_subparsers(dest="action", metavar="upgrade | restart")
    restart = actions.add_parser(
        "restart",
        help="restart the running node's control with the installed program, without touching traffic",
        description="Restarts the control of the running node with the same command: after an upgrade of the package "
        "or of Python, or to use new parents from the node file. The engine keeps serving. Nothing changes "
        "when the node file has errors or the program cannot start.",
    )
    restart.add_argument(
        "--timeout", type=options.seconds, default=60.0, metavar="S", help="maximum time until control is back (60)"
    )
    options.add_socket(restart)
    options.add_json(restart)
    upgrade = actions.add_parser(
        "upgrade",
        help="hot restart: replace the running node's engine by the installed one, under traffic",
        description="Hot restart of the engine: the installed engine takes the listening sockets over from the running "
        "one. The old engine drains its connections and exits. When the new engine fails, the old one keeps serving.",
    )
    upgrade.add_argument(
        "--deadline",
        type=options.seconds_or_zero,
        default=30.0,
        metavar="S",
        help="maximum time for the old engine to drain (30)",
    )
    options.add_socket(upgrade)
    options.add_json(upgrade)


def _upgrade(args: argparse.Namespace) -> int:
    from sdlb.cli import out
    from sdlb.sdk.client import Client

    with Client(args.socket) as client:
        done = client.upgrade_engine(args.deadline)
    if args.json:
        out.json(done)
    else:
        now, before = done.now, done.before
        out.line(
            f"{done.node}: engine {now.version} (process {now.pid}) serves; "
            f"{before.version} (process {before.pid}) drains and exits within {done.deadline_s:g} s"
        )
    return 0


def _restart(args: argparse.Namespace) -> int:
    import time

    from sdlb.cli import out
    from sdlb.sdk.client import Client
    from sdlb.sdk.problem import Problem

    with Client(args.socket) as client:
        before = client.restart_control()
    until = time.monotonic() + args.timeout
    while True:
        try:
            with Client(args.socket) as client:
                tree = client.tree()
            if tree.incarnation > before.incarnation and tree.engine.attached:
                break
        except Problem as problem:
            if problem.status:
                raise
        if time.monotonic() > until:
            out.message(
                f"{PROG} restart: control of {before.node} is not back after {args.timeout:g} s; see the node's log"
            )
            return 1
        time.sleep(0.05)
    if args.json:
        out.json({"node": tree.node, "incarnation": tree.incarnation, "pid": before.pid, "engine": tree.engine})
    else:
        same = "kept serving" if tree.engine.pid == before.engine.pid else "was restarted"
        out.line(f"{tree.node}: control restarted (process {before.pid}); engine {tree.engine.pid} {same}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from sdlb.cli import out
    from sdlb.node import check, compose  # the whole program, to see that it can be started

    assert compose
    found = check.mistakes(options_of(args), _bound)
    for text in found:
        out.message(f"{PROG}: {text}")
    for text in check.certificate_warnings(options_of(args)):
        out.message(f"{PROG}: warning: {text}")
    if not found:
        out.line(f"{args.config or 'the options'}: no errors")
    return 1 if found else 0


def _bound(socket: Path) -> Collection[str]:
    """The listeners of the running node that has this socket."""
    from sdlb.sdk.client import Client
    from sdlb.sdk.problem import Problem

    try:
        with Client(str(socket)) as client:
            return [address for address in client.tree().listen.values() if address]
    except Problem:
        return ()


def options_of(args: argparse.Namespace) -> Options:
    from sdlb.node.config import Options

    return Options(
        config=args.config,
        root=args.root,
        parents=tuple(args.parents) if args.parents else None,
        listen=args.listen,
        node_listen=args.node_listen,
        name=args.name,
        state_dir=args.state_dir,
        socket=args.socket,
        public=args.public,
        insecure=args.insecure,
    )


def run(args: argparse.Namespace) -> int:
    if args.action is not None:
        return _upgrade(args) if args.action == "upgrade" else _restart(args)
    if args.root and args.parents:
        raise options.Usage(PROG, "a root has no parents; leave out --root or --parent")
    if args.config is None and not args.root and not args.parents:
        raise options.Usage(PROG, "give --config FILE, or --root, or --parent ADDR")
    if args.check:
        return _check(args)
    from sdlb.node.signals import Signals

    signals = Signals()
    signals.hold()  # before the rest is imported, which takes a while
    from sdlb.node.run import run_node

    return run_node(options_of(args), signals)
