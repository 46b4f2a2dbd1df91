"""`sdlb events [-f]`: the node's events; with -f also new ones as they happen."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Event

LEVEL_STYLES = {"warning": "yellow", "error": "red"}


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser("events", description="Prints the events of this node, oldest first.")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="keep printing events as they happen, also across restarts of the node",
    )
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    troubled = False

    def lost(problem: Problem) -> None:
        nonlocal troubled
        if not troubled:
            out.message(f"sdlb events: {problem.detail} (retrying)")
        troubled = True

    with Client(args.socket) as client:
        for event in client.events(follow=args.follow, lost=lost):
            troubled = False
            if args.json:
                out.json(event, compact=True)
            else:
                show(event)
    return 0


def show(event: Event) -> None:
    style = LEVEL_STYLES.get(event.level, "")
    out.line(
        (event.at, "dim"), "  ", (f"{event.level:<7}", style), "  ", f"{event.code:<20}", "  ", (event.text, style)
    )
