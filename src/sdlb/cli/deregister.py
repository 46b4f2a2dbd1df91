"""`sdlb deregister ID...`: drains instances and removes them; returns when nothing is on its way to them any more."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client

PROG = "sdlb deregister"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "deregister",
        description="Takes new traffic away from an instance of this host, waits until nothing is in flight to it "
        "anywhere in the tree, and removes it. Exit code 1 when the deadline passed first (it is removed all the same). "
        "What 'sdlb run' has started is stopped by stopping that: it would register again.",
    )
    parser.add_argument("id", metavar="ID", help="the instance's id ('sdlb tree' lists them)")
    parser.add_argument(
        "--deadline", type=options.not_negative, default=30.0, metavar="S", help="how long to wait at most (30)"
    )
    parser.add_argument("--gone", action="store_true", help="the program has ended: remove at once, wait for nothing")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        last = client.deregister(args.id, args.deadline, gone=args.gone)
    if args.json:
        out.json(last)
    if last.drained or args.gone:
        if not args.json:
            out.line(f"{args.id} is drained and removed" if not args.gone else f"{args.id} is removed")
        return 0
    out.tell(f"{PROG}: {args.id} is removed, with {last.in_flight} requests in flight after {args.deadline:g} s")
    return 1
