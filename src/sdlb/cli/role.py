"""`sdlb role [NAME]`: what this node runs as its roles, or what the nodes of the tree run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.cli.release import warn
from sdlb.cli.status import age
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import Agent, AgentRole, Roles, TreeRole

HERE = ("ROLE", "SERVICE", "VERSION", "WANTED", "SLOTS", "STATE")
TREE = ("SERVICE", "VERSION", "NODES", "CAPACITY", "ROLLOUT")
RIGHT = frozenset({2, 3})
PHASES = {"done": "green", "current": "green", "failed": "red", "reverting": "red"}


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "role",
        description="Shows the services that this node runs as its roles; with a name, what the nodes of the tree run. The node file has "
        "the roles of a node.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a role of this node, or a service")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        if args.name is None:
            return _here(client.agent(), args.json)
        return _tree(client.roles(), client.agent(), args.name, args.json)


def _here(agent: Agent, json: bool) -> int:
    if json:
        out.json(agent)
        return 0
    if not agent.roles:
        out.line(f"{agent.node} has no roles; its node file can have some: roles = [...] and [role.ROLE.SERVICE]")
    now = time.time()
    out.table(HERE, [row(each, now) for each in agent.roles])
    for line in failures(agent):
        out.line(line)
    return 0


def row(role: AgentRole, now: float) -> list[out.Piece]:
    slots = (
        f"{name} {slot.version} {slot.status} on {slot.port}" if slot.port else f"{name} {slot.version} {slot.status}"
        for name, slot in sorted(role.slots.items())
        if slot.version
    )
    since = f" {age(max(0.0, now - role.since))}" if role.since else ""
    of = f" ({role.rollout})" if role.rollout else ""
    state = (f"{role.phase}{of}{since}", PHASES.get(role.phase, "yellow"))
    return [(role.role, "bold"), role.service, role.version or "-", role.target or "-", ", ".join(slots) or "-", state]


def failures(agent: Agent) -> Iterator[out.Piece]:
    for role in agent.roles:
        if role.detail:
            yield (f"{role.service}: {role.detail}", PHASES.get(role.phase, "yellow"))
        if role.phase in ("failed", "reverting"):
            yield from (f"  {line}" for line in role.log)


def _tree(roles: Roles, agent: Agent, name: str, json: bool) -> int:
    services = {name, *(each.service for each in agent.roles if each.role == name)}
    found = [each for each in roles.roles if each.service in services]
    if not found:
        known = ", ".join(each.service for each in roles.roles) or "none"
        raise Problem(BASE + "no-such-service", 404, f"no node runs a service {name} as a role; there are: {known}")
    if json:
        out.json({**roles.to_dict(), "roles": [each.to_dict() for each in found]})
        return 0
    out.table(TREE, [tree_row(each) for each in found], RIGHT)
    warn(roles.unreachable)
    return 0


def tree_row(role: TreeRole) -> list[out.Piece]:
    waiting = "".join(f", {version} {capacity} waiting" for version, capacity in sorted(role.waiting.items()))
    rollout = f"{role.rollout} to {role.to}: {role.state}" if role.rollout else "-"
    return [(role.service, "bold"), role.version or "-", str(role.nodes), f"{role.ready}{waiting}", rollout]
