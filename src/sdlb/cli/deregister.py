"""`sdlb deregister ID...`: drains instances and removes them; returns when no request is in flight to them."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client

PROG = "sdlb deregister"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "deregister",
        description="Drains an instance of this host and removes it: no node sends it new requests, and it is removed "
        "when none is in flight to it anywhere in the tree. Exit code 1 when the deadline passes first (it "
        "is removed anyway). To stop an instance of 'sdlb run', stop 'sdlb run': it would register the instance again.",
    )
    parser.add_argument("id", metavar="ID", help="the instance's id ('sdlb tree' lists them)")
    parser.add_argument(
        "--deadline", type=options.seconds_or_zero, default=30.0, metavar="S", help="maximum time to drain (30)"
    )
    parser.add_argument(
        "--gone", action="store_true", help="the program has exited: remove it immediately, without draining"
    )
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
    out.message(
        f"{PROG}: {args.id} was removed with {last.in_flight} requests still in flight after {args.deadline:g} s"
    )
    return 1
