"""`sdlb tree`: the node that was asked, what is above it and what is below."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.types import Child, Instance, Parent, Tree

Line = list[out.Piece]


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "tree", description="The tree as this node sees it: its parents, itself, its children and its own instances."
    )
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        tree = client.tree()
    if args.json:
        out.json(tree)
        return 0
    for line in draw(tree):
        out.line(*line)
    return 0


def draw(tree: Tree) -> Iterator[Line]:
    beyond = [name for name in tree.roots if name not in {p.name for p in tree.parents} and name != tree.node]
    if beyond:
        yield [("above: ", "dim"), ", ".join(beyond), (" (roots)" if len(beyond) > 1 else " (root)", "dim")]
    for parent in tree.parents:
        yield [*_parent(parent, parent.name in tree.roots)]
    bend, below = ("└─ ", "   ") if out.draws() else ("`- ", "   ")
    yield [*([(bend, "dim")] if tree.parents else []), *_node(tree)]
    indent = below if tree.parents else ""
    leaves = [*(_child(child) for child in tree.children), *(_instance(i) for i in tree.instances)]
    for index, leaf in enumerate(leaves):
        last = index == len(leaves) - 1
        branch = (bend if last else "├─ ") if out.draws() else (bend if last else "|- ")
        yield [(indent + branch, "dim"), *leaf]


def _node(tree: Tree) -> Line:
    line: Line = [(tree.node, "bold"), "  this node" + (", a root" if tree.root else "")]
    line += [(f"  {name} {address}", "dim") for name, address in tree.listen.items() if address]
    if tree.guarded:
        line.append(("  guarded", "red"))
    if tree.cut_off:
        line.append(("  cut off: no parent is in touch", "red"))
    if not tree.writes:
        line.append((f"  the disk cannot be written: {tree.detail}", "red"))
    elif not tree.ready:
        line.append((f"  not ready: {tree.detail}", "yellow"))
    return line


def _heard(silent_s: float, state: str) -> str:
    return f"  not heard for {silent_s:.0f} s" if state in ("suspect", "lost", "disconnected") else ""


def _parent(parent: Parent, root: bool) -> Line:
    name = parent.name or parent.address
    at = f"  {parent.address}" if parent.name else ""
    heard = _heard(parent.silent_s, parent.state)
    detail = parent.detail if parent.state != "connected" else ""
    return [name, "  root" if root else "  parent", (at, "dim"), "  ", out.state(parent.state, detail), heard]


def _child(child: Child) -> Line:
    has = f"  {', '.join(child.services)}" if child.services else "  no services"
    instances = "1 instance" if child.instances == 1 else f"{child.instances} instances"
    figures = f"  {instances}, capacity {child.capacity}" if child.services else ""
    heard = _heard(child.silent_s, child.state)
    return [child.name, "  ", out.state(child.state, child.detail), heard, has, (figures, "dim")]


def _instance(instance: Instance) -> Line:
    name = f"{instance.service}-{instance.version}"
    return [name, "  ", out.state(instance.state, instance.reason), (f"  {instance.endpoint}  {instance.id}", "dim")]
