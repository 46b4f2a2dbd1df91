"""`sdlb routes`: every pattern claimed at this node, most specific first, with the routes that it shadows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.types import Route

HEADERS = ("ROUTE", "SERVICE", "VERSIONS", "CAPACITY", "SHADOWS", "SHADOWED BY", "STATE")
SHOWN_MAX = 3
"""The maximum number of shadowed routes that are shown; `--json` has all."""
NUMERIC_COLUMNS = frozenset({3})


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "routes",
        description="Shows the route table of this node. A route shadows another where both match: the more specific "
        "one gets the request.",
    )
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        routes = client.routes()
    if args.json:
        out.json(routes)
    elif routes.routes:
        out.table(HEADERS, [row for route in routes.routes for row in rows(route)], NUMERIC_COLUMNS)
    else:
        out.line("no routes yet; start a service with 'sdlb run', or register one with 'sdlb register'")
    return 0


def rows(route: Route) -> list[list[out.Piece]]:
    """The route's row, and one for each claim to it that was refused."""
    rows: list[list[out.Piece]] = [
        [
            (route.route, "bold"),
            route.service,
            ", ".join(route.versions),
            str(route.capacity),
            _some(route.shadows),
            _some(route.shadowed_by),
            out.state(route.state, route.reason),
        ]
    ]
    for claim in route.refused:
        by = f" (decided by {claim.decided_by})" if claim.decided_by and claim.decided_by not in claim.reason else ""
        rows.append(["", claim.service, claim.version, "", "", "", out.state("refused", claim.reason + by)])
    return rows


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
