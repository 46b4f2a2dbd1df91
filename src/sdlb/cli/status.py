"""`sdlb status [SERVICE]`: what is active, what waits for what, who was refused, and whether the roots agree."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.types import Claim, Service, Services, Sites, Tree, Version

HEADERS = ("SERVICE", "VERSION", "INSTANCES", "CAPACITY", "SHARE", "HOSTS", "STATE")
FIGURES = frozenset({2, 3, 4})


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "status",
        description="Services and their versions as the roots see them: which are active, which wait and for what. "
        "Works on any node's socket.",
    )
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only this service")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        services = client.services() if args.service is None else client.service(args.service)
        tree, sites = client.tree(), client.sites()
    if args.json:
        out.json({**services.to_dict(), "this_node": {**this_node(tree), "sites": ailing(sites)}})
    else:
        show(services, tree)
        for line in of_sites(sites):
            out.line(line)
    return 0


def this_node(tree: Tree) -> dict[str, object]:
    return {
        "node": tree.node,
        "ready": tree.ready,
        "detail": tree.detail,
        "guarded": tree.guarded,
        "cut_off": tree.cut_off,
        "writes": tree.writes,
    }


def ailing(sites: Sites) -> list[dict[str, object]]:
    """Those whose certificates somebody should look at."""
    return [site.to_dict() for site in sites.sites if site.reason or site.warnings]


def of_sites(sites: Sites) -> Iterator[out.Piece]:
    for site in sites.sites:
        if site.reason:
            state = "nobody can connect to it" if site.state == "refused" else "it keeps what it had"
            yield (f"site {site.name}: {site.reason}; {state}", "red")
        for text in site.warnings:
            yield (f"site {site.name}: {text}", "yellow")


def show(services: Services, tree: Tree) -> None:
    if services.services:
        out.table(HEADERS, [row for service in services.services for row in rows(service)], FIGURES)
    else:
        out.line("no services yet; start one with 'sdlb run', or register one with 'sdlb register'")
    for line in warnings(services, tree):
        out.line(line)


def rows(service: Service) -> Iterator[list[out.Piece]]:
    """A row for each version, and one more for each of its routes that was decided otherwise."""
    name: out.Piece = (service.name, "bold")
    for version in service.versions:
        yield [
            name,
            version.version,
            str(version.instances),
            str(version.capacity),
            f"{version.share:.4g}%",
            ", ".join(version.hosts),
            out.state(version.state, version.reason or _idle(version)),
        ]
        for claim in odd_claims(version):
            yield ["", "", "", "", "", claim.route, out.state(claim.state, _why(claim))]
        name = ""
    if not service.versions:
        yield [name, "-", "0", "0", "0%", "", ("no instance runs", "dim")]


def _idle(version: Version) -> str:
    """It may have requests, and can take none."""
    return "no instance is ready" if version.state == "active" and not version.capacity else ""


def odd_claims(version: Version) -> Iterator[Claim]:
    for claim in version.claims:
        if (claim.state, claim.reason) != (version.state, version.reason):
            yield claim


def _why(claim: Claim) -> str:
    reason = claim.reason
    if claim.decided_by and claim.decided_by not in reason:
        reason = f"{reason} (decided by {claim.decided_by})" if reason else f"decided by {claim.decided_by}"
    return reason


def warnings(services: Services, tree: Tree) -> Iterator[out.Piece]:
    """What makes the table less than the whole truth."""
    for disagreement in services.disagree:
        yield (f"roots disagree about {disagreement.service}: {disagreement.text}", "red")
    if services.unreachable:
        yield (f"not reached: {', '.join(services.unreachable)}; shown is what the others say", "yellow")
    if tree.guarded:
        why = tree.detail or "too many leases ran out at once"
        yield (
            f"{tree.node} is guarded: {why}; it keeps the claims it had (those that are dead: 'sdlb forget NODE')",
            "red",
        )
    if tree.cut_off:
        yield (f"{tree.node} is cut off: no parent is in touch; it serves on, and nothing new opens here", "red")
    if not tree.writes:
        yield (f"{tree.node} cannot write its state: {tree.detail}", "red")
    elif not tree.cut_off and not tree.ready and tree.node:
        yield (f"{tree.node} is not ready: {tree.detail or 'no reason given'}", "yellow")
