"""`sdlb route transfer`: gives a route to another service."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "route", description="Gives a route to another service. 'sdlb routes' lists the routes."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="transfer", required=True)
    transfer = verbs.add_parser(
        "transfer",
        help="give a route to another service",
        description="Gives a route to another service that claims it. The service that holds the route is drained; "
        "requests wait meanwhile. Every root must answer, otherwise nothing is changed.",
    )
    transfer.add_argument("route", metavar="PATTERN", help="the route, for example 'example.com/catalog*'")
    transfer.add_argument("--to", required=True, metavar="SERVICE", help="the service that gets it")
    options.add_as(transfer)
    options.add_socket(transfer)
    options.add_json(transfer)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        done = client.transfer_route(args.route, args.to, by=args.as_)
    if args.json:
        out.json(done)
    else:
        out.line(f"{done.by} transferred {done.route} to {done.to} (recorded by {', '.join(done.roots)})")
    return 0
