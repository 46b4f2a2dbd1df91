"""`sdlb tree`: a node with its parents, children and instances."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.types import Child, Instance, Parent, Tree

Line = list[out.Piece]
FOLD_MIN = 8
"""Up to this many entries of a kind are listed individually."""
SERVICES_MAX = 4


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "tree",
        description="Shows the tree as this node sees it: its parents, itself, its children and its own instances.",
    )
    parser.add_argument("--all", action="store_true", help="list every child and instance")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        tree = client.tree()
    if args.json:
        out.json(tree)
        return 0
    for line in draw(tree, every=args.all):
        out.line(*line, hang=hang_of(line))
    return 0


def hang_of(line: Line) -> str:
    """The prefix of the second and later lines of a wrapped entry, which continues the drawing."""
    first = out.plain(line[0]) if line else ""
    drawing = first if first[-3:] in ("├─ ", "└─ ", "|- ", "`- ") else ""
    return drawing.replace("├─", "│ ").replace("└─", "  ").replace("|-", "| ").replace("`-", "  ") + " " * 4


def draw(tree: Tree, *, every: bool = False) -> Iterator[Line]:
    beyond = [name for name in tree.roots if name not in {p.name for p in tree.parents} and name != tree.node]
    if beyond:
        yield [("above: ", "dim"), ", ".join(beyond), (" (roots)" if len(beyond) > 1 else " (root)", "dim")]
    for parent in tree.parents:
        yield [*_parent(parent, parent.name in tree.roots)]
    bend, below = ("└─ ", "   ") if out.draws() else ("`- ", "   ")
    yield [*([(bend, "dim")] if tree.parents else []), *_node(tree)]
    indent = below if tree.parents else ""
    ejected = {each.target: each.reason for each in tree.ejected}
    leaves = [*_children(tree, ejected, every), *_instances(tree, ejected, every)]
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
        line.append(("  cut off: no parent is connected", "red"))
    if not tree.writes:
        line.append((f"  the state cannot be written: {tree.detail}", "red"))
    elif not tree.ready:
        line.append((f"  not ready: {tree.detail}", "yellow"))
    return line


def _heard(silent_s: float, state: str) -> str:
    return f"  last heard {silent_s:.0f} s ago" if state in ("suspect", "lost", "disconnected") else ""


def _parent(parent: Parent, root: bool) -> Line:
    name = parent.name or parent.address
    at = f"  {parent.address}" if parent.name else ""
    heard = _heard(parent.silent_s, parent.state)
    detail = parent.detail if parent.state != "connected" else ""
    return [name, "  root" if root else "  parent", (at, "dim"), "  ", out.state(parent.state, detail), heard]


def _children(tree: Tree, ejected: Mapping[str, str], every: bool) -> Iterator[Line]:
    """Children with problems one by one; the others folded when they are many."""
    folded = 0
    for child in tree.children:
        out_here = ejected.get(f"n:{child.name}")
        if every or len(tree.children) <= FOLD_MIN or child.state != "connected" or out_here is not None:
            yield [*_child(child), *_ejected(out_here)]
        else:
            folded += 1
    if folded:
        yield [f"{folded} children", "  ", out.state("connected"), ("  (--all lists them)", "dim")]


def _instances(tree: Tree, ejected: Mapping[str, str], every: bool) -> Iterator[Line]:
    """Instances of one version in one state, folded when they are many."""
    groups: dict[tuple[str, str, str, str], list[Instance]] = {}
    for each in tree.instances:
        alone = each.id if f"i:{each.id}" in ejected or each.former else ""
        groups.setdefault((each.service, each.version, each.state, alone), []).append(each)
    for (service, version, state, _), group in groups.items():
        if every or len(group) <= FOLD_MIN:
            for each in group:
                yield [*_instance(each), *_ejected(ejected.get(f"i:{each.id}"))]
        else:
            why = next((each.reason for each in group if each.reason), "")
            many = f"  {len(group)} instances"
            yield [f"{service}-{version}", many, "  ", out.state(state, why), ("  (--all lists them)", "dim")]


def _ejected(why: str | None) -> Line:
    return [] if why is None else [("  ejected: " + (why or "requests failed there"), "red")]


def _child(child: Child) -> Line:
    shown = child.services if len(child.services) <= SERVICES_MAX else (f"{len(child.services)} versions",)
    has = f"  {', '.join(shown)}" if child.services else "  no services"
    instances = "1 instance" if child.instances == 1 else f"{child.instances} instances"
    capacity = f"  {instances}, capacity {child.capacity}" if child.services else ""
    heard = _heard(child.silent_s, child.state)
    return [child.name, "  ", out.state(child.state, child.detail), heard, has, (capacity, "dim")]


def _instance(instance: Instance) -> Line:
    name = f"{instance.service}-{instance.version}"
    state = out.state(instance.state, instance.reason)
    former = ", ".join(f"{each.version} on {each.endpoint} is {each.state}" for each in instance.former)
    before = f"  before: {former}" if former else ""
    return [name, "  ", state, (f"  {instance.endpoint}  {instance.id}{before}", "dim")]
