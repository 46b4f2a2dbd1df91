"""`sdlb node`: runs one node, control and engine, in the foreground."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options

PROG = "sdlb node"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "node",
        description="Runs one node in the foreground. SIGTERM drains and stops control and engine. When control is killed "
        "its engine serves on, and the same command started again takes it over.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the node file (docs/reference/node-file.md); options win over it"
    )
    parser.add_argument("--root", action="store_true", help="this node has no parents")
    parser.add_argument(
        "--parent",
        dest="parents",
        action="append",
        metavar="ADDR",
        help="a node to register with, host:port; repeat it for several: all are registered with",
    )
    parser.add_argument("--listen", metavar="ADDR", help="where clients come in, for example 0.0.0.0:80 (none)")
    parser.add_argument("--node-listen", metavar="ADDR", help="where children come in (127.0.0.1:7700)")
    parser.add_argument("--name", metavar="NAME", help="the node's name in the tree (default: the host's)")
    parser.add_argument("--state-dir", metavar="DIR", help="where its state is kept")
    parser.add_argument(
        "--public", action="store_true", default=None, help="it faces the internet: the hardened preset"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="node links in clear text also in private networks, not only on this machine",
    )
    options.add_socket(parser)
    actions = parser.add_subparsers(dest="action", metavar="upgrade")
    upgrade = actions.add_parser(
        "upgrade",
        help="replace the running node's engine by the one that is installed now, under traffic",
        description="The engine that is installed now takes the listening sockets of the running node's engine over. The old "
        "one answers what it has open and ends. A new one that fails leaves the old one as it is.",
    )
    upgrade.add_argument(
        "--deadline",
        type=options.not_negative,
        default=30.0,
        metavar="S",
        help="how long the old engine may take to end (30)",
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
            f"{done.node}: engine {now.version} (process {now.pid}) serves; {before.version} (process {before.pid}) answers "
            f"what it has open and ends within {done.deadline_s:g} s"
        )
    return 0


def run(args: argparse.Namespace) -> int:
    if args.action == "upgrade":
        return _upgrade(args)
    if args.root and args.parents:
        raise options.Usage(PROG, "--root means no parents; leave out --root or --parent")
    if args.config is None and not args.root and not args.parents:
        raise options.Usage(PROG, "give --config FILE, or --root, or --parent ADDR")
    from sdlb.node.config import Options
    from sdlb.node.run import run_node

    return run_node(
        Options(
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
    )
