"""`sdlb status [SERVICE]`: which versions are active, waiting or refused and why, and whether the roots agree."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Claim, GateProgress, Service, Services, Sites, Tree, Version

HEADERS = ("SERVICE", "VERSION", "INSTANCES", "CAPACITY", "SHARE", "HOSTS", "STATE")
NUMERIC_COLUMNS = frozenset({2, 3, 4})


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "status",
        description="Shows services and their versions as the roots see them: which versions are active, which wait "
        "and why. Works on any node's socket.",
    )
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only this service")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        services, why = read(client, args.service)
        tree, sites = client.tree(), client.sites()
    if args.json:
        this = {**this_node(tree), "sites": sites_with_problems(sites)}
        out.json({**services.to_dict(), "local": bool(why), "local_because": why, "this_node": this})
    else:
        if why:
            out.line((f"{why}; the table shows what {tree.node} knows on its own", "red"))
        show(services, tree)
        for line in (*site_lines(sites), *degraded_lines(tree)):
            out.line(line)
    return 0


def read(client: Client, service: str | None) -> tuple[Services, str]:
    """The services as the roots see them; when no root can be reached, as this node sees them, and the reason."""

    def get(local: bool) -> Services:
        return client.services(local=local) if service is None else client.service(service, local=local)

    try:
        return get(False), ""
    except Problem as problem:
        if problem.code != "no-root":
            raise
        return get(True), problem.detail


def this_node(tree: Tree) -> dict[str, object]:
    return {
        "node": tree.node,
        "ready": tree.ready,
        "detail": tree.detail,
        "guarded": tree.guarded,
        "cut_off": tree.cut_off,
        "writes": tree.writes,
        "ejected": [each.to_dict() for each in tree.ejected],
        "degraded": [each.to_dict() for each in tree.engine.degraded],
    }


def sites_with_problems(sites: Sites) -> list[dict[str, object]]:
    """Sites whose certificates have an error or a warning."""
    return [site.to_dict() for site in sites.sites if site.reason or site.warnings]


def degraded_lines(tree: Tree) -> Iterator[out.Piece]:
    """What policies ask for and this node's engine does not have. `sdlb tree --json` lists also what concerns the node alone."""
    for each in tree.engine.degraded:
        if each.services:
            services = ", ".join(each.services)
            yield (
                f"{tree.node}: the engine does not have {each.what} (policy of {services}): {each.instead}",
                "yellow",
            )


def site_lines(sites: Sites) -> Iterator[out.Piece]:
    for site in sites.sites:
        if site.reason:
            state = "TLS handshakes for it fail" if site.state == "refused" else "it keeps its previous certificate"
            yield (f"site {site.name}: {site.reason}; {state}", "red")
        for text in site.warnings:
            yield (f"site {site.name}: {text}", "yellow")


def show(services: Services, tree: Tree) -> None:
    if services.services:
        out.table(HEADERS, [row for service in services.services for row in rows(service)], NUMERIC_COLUMNS)
    else:
        out.line("no services yet; start one with 'sdlb run', or register one with 'sdlb register'")
    for service in services.services:
        for line in opening_lines(service, gates=len(services.services) == 1):
            out.line(*line)
    for line in warnings(services, tree):
        out.line(line)


def rows(service: Service) -> Iterator[list[out.Piece]]:
    """A row for each version, and one more for each of its routes whose state differs."""
    name: out.Piece = (service.name, "bold")
    for version in service.versions:
        yield [
            name,
            version.version,
            str(version.instances),
            str(version.capacity),
            f"{version.share:.4g}%",
            ", ".join(version.hosts),
            _state(version),
        ]
        for claim in odd_claims(version):
            yield ["", "", "", "", "", claim.route, out.state(claim.state, _why(claim))]
        name = ""
    if not service.versions:
        yield [name, "-", "0", "0", "0%", "", ("no instance runs", "dim")]


def _state(version: Version) -> out.Piece:
    """An active version without a ready instance is not green. Nodes of an older release give no reason."""
    if version.state != "active" or version.capacity:
        return out.state(version.state, version.reason)
    return (f"active, but {version.reason or 'no instance is ready'}", "red")


def odd_claims(version: Version) -> Iterator[Claim]:
    reason = "" if version.reason_code == "nothing-ready" else version.reason
    for claim in version.claims:
        if (claim.state, claim.reason) != (version.state, reason):
            yield claim


def _why(claim: Claim) -> str:
    reason = claim.reason
    if claim.decided_by and claim.decided_by not in reason:
        reason = f"{reason} (decided by {claim.decided_by})" if reason else f"decided by {claim.decided_by}"
    return reason


PHASES = {
    "prepare": ("waits for all roots", "yellow"),
    "closing": ("requests are parked, the old version is drained", "yellow"),
    "gap": ("requests are parked, no version is active", "yellow"),
    "opening": ("it opens", "yellow"),
    "reverted": ("reverted", "red"),
}
GATE_STYLES = {"open": "green", "waiting": "yellow", "running": "yellow", "refused": "red", "timed-out": "red"}


def opening_lines(service: Service, *, gates: bool = True) -> Iterator[list[out.Piece]]:
    """The cut-over, and with `gates` those of the versions that wait, each with its state, age and reason."""
    opening = service.opening
    if opening is None:
        return
    if opening.phase:
        text, style = PHASES.get(opening.phase, (opening.phase, "yellow"))
        state = f"{opening.phase}: {opening.detail or text}"
        name = f"{service.name}  cut-over to {opening.to}  "
        yield [name, (state, style), f", {age(opening.since_s)} ({opening.conductor})"]
    for version, waits in opening.versions.items():
        if waits.promoted:
            how = f", without gates: {waits.no_gates}" if waits.no_gates else ""
            yield [f"{service.name}  {version}  promoted by {waits.promoted}{how}"]
        for gate in waits.gates if gates else ():
            yield _gate(f"{service.name}  {version}", gate)


def _gate(name: str, gate: GateProgress) -> list[out.Piece]:
    by = f" by {', '.join(gate.by)}" if gate.by else ""
    at = {"gap": " in the gap", "after": " afterwards"}.get(gate.at, "")
    tried = f", attempt {gate.attempts}" if gate.attempts > 1 and gate.state != "open" else ""
    why = f": {gate.reason}" if gate.reason else ""
    state = (gate.state, GATE_STYLES.get(gate.state, "yellow"))
    return [f"{name}  gate {gate.name}{at}  ", state, f"{by} {age(gate.age_s)}{tried}{why}"]


def age(seconds: float) -> str:
    """ "8 s", "12 min", "5 h", "3 d"."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def warnings(services: Services, tree: Tree) -> Iterator[out.Piece]:
    """Conditions under which the table is incomplete or uncertain."""
    for disagreement in services.disagree:
        yield (f"roots disagree about {disagreement.service}: {disagreement.text}", "red")
    if services.unreachable:
        yield (f"not reached: {', '.join(services.unreachable)}; the table shows what the others report", "yellow")
    for instance in tree.instances:
        if instance.state == "unhealthy":
            name = f"{instance.service}-{instance.version}"
            why = instance.reason or instance.health_detail or "its health has not been checked yet"
            yield (f"{instance.id} ({name}) on {tree.node} is unhealthy: {why}", "red")
    for each in tree.ejected:
        kind, _, name = each.target.partition(":")
        what = {"i": "instance", "n": "node"}.get(kind, "endpoint")
        yield (
            f"{tree.node} has ejected the {what} {name}: {each.reason or 'requests failed there'}",
            "yellow",
        )
    if tree.guarded:
        why = tree.detail or "too many leases expired at once"
        yield (
            f"{tree.node} is guarded: {why}; it keeps all claims (remove dead children with 'sdlb forget NODE')",
            "red",
        )
    if tree.cut_off:
        yield (
            f"{tree.node} is cut off: no parent is connected; it keeps serving, but no version becomes active here",
            "red",
        )
    if not tree.writes:
        yield (f"{tree.node} cannot write its state: {tree.detail}", "red")
    elif not tree.cut_off and not tree.ready and tree.node:
        yield (f"{tree.node} is not ready: {tree.detail or 'no reason given'}", "yellow")
