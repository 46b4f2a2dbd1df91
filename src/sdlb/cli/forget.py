"""`sdlb forget NODE`: removes a silent child that has stopped, with all its claims."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "forget",
        description="Removes a child node that has stopped for good, with all its claims. The child's lease must have "
        "expired. Use it at a node that is guarded because most of its children are dead. Make sure that the "
        "child is dead: a child that is only unreachable may still serve a version that an incompatible "
        "version then replaces.",
    )
    parser.add_argument("node", metavar="NODE", help="the child's name ('sdlb tree' lists them as suspect)")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        last = client.forget(args.node)
    if args.json:
        out.json(last)
    else:
        had = f", with {', '.join(last.services)}" if last.services else ""
        out.line(f"{args.node} is forgotten{had}")
    return 0
