"""Checks of policy documents that need more than one document: they are made where a policy is set, at the roots."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from sdlb.model.gate import DependsOn, Window
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import Document, Layers, check_name, covers, is_pattern, merge, only_known
from sdlb.model.problem import Invalid


def read_documents(data: Mapping[str, Any]) -> dict[str, Document]:
    """Raises Invalid for the first name or document that is not valid by itself."""
    found: dict[str, Document] = {}
    for name, document in data.items():
        found[check_name(name)] = read_document(name, document)
    return found


def read_document(name: str, data: object) -> Document:
    Policy.from_data(data, f"policy of {name}")
    return only_known(data) if isinstance(data, dict) else {}  # pyright: ignore[reportUnknownArgumentType]


def check_together(before: Layers, documents: Mapping[str, Document]) -> Layers:
    """The layers with `documents`. Raises Invalid if a time zone is unknown at this node, or documents contradict each other, or
    services depend on each other in a circle. What is so in the documents in force already is no error."""
    after = before.changed(documents)
    for name, document in documents.items():
        _check_zones(document, f"policy of {name}")
    patterns = [name for name in documents if is_pattern(name)]
    for name in after.documents:
        if name in documents or any(covers(pattern, name) for pattern in patterns):
            _check_merge(after, before, name)
    circle = dependency_circle(after)
    if circle and not dependency_circle(before):
        text = " -> ".join(circle)
        raise Invalid(
            "bad-policy", f"policy of {circle[0]}: gate", f"services depend on each other: {text}", "remove one"
        )
    return after


def _check_merge(after: Layers, before: Layers, name: str) -> None:
    for other in after.contradictions(name):
        if other in before.contradictions(name):
            continue
        try:
            Policy.from_data(
                merge((after.documents[other], *(each for _, each in after.layers(name)))), f"policy of {name}"
            )
        except Invalid as problem:
            do = f"{problem.do}; with the policy of {other} they do not fit together"
            raise Invalid(problem.code, problem.where, problem.what, do) from None


def _check_zones(document: Document, where: str) -> None:
    listed = document.get("gate", [])
    for gate in Policy.from_data({"gate": listed}).gates if listed else ():
        if not isinstance(gate, Window):
            continue
        try:
            zoneinfo.ZoneInfo(gate.zone)
        except Exception:  # an unknown name, or a file with any content
            near = get_close_matches(gate.zone, sorted(zoneinfo.available_timezones()), 1, 0.5)
            do = f"did you mean {near[0]!r}?" if near else "use a name like Europe/Berlin (tz database)"
            what = f"the time zone {gate.zone!r} is not known at this node"
            raise Invalid("bad-policy", f"{where}: gate {gate.name}: zone", what, do) from None


def dependency_circle(layers: Layers) -> list[str]:
    """A service that waits for itself, over the gates of the kind `depends_on`: `[a, b, a]`. Empty: there is none.

    Every service of a circle is named by a gate, so no others have to be followed."""
    edges: dict[str, list[str]] = {}
    for service in sorted(_targets(layers)):
        gates = layers.of(service).gates
        edges[service] = [gate.service for gate in gates if isinstance(gate, DependsOn)]
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        found = _follow(start, edges, path, done)
        if found:
            return found
    return []


def _follow(start: str, edges: Mapping[str, list[str]], path: list[str], done: set[str]) -> list[str]:
    """Depth first, without recursion: a chain may be long."""
    stack: list[tuple[str, int]] = [(start, 0)]
    path.append(start)
    while stack:
        service, at = stack[-1]
        if service in done or at == len(edges.get(service, ())):
            done.add(service)
            stack.pop()
            path.pop()
            continue
        stack[-1] = (service, at + 1)
        following = edges[service][at]
        if following in path:
            return [*path[path.index(following) :], following]
        stack.append((following, 0))
        path.append(following)
    return []


def _targets(layers: Layers) -> Iterable[str]:
    found: set[str] = set()
    for document in layers.documents.values():
        for gate in document.get("gate", ()):
            if gate.get("kind") == "depends_on":
                found.add(gate["service"])
    return found
