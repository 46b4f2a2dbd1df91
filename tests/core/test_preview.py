"""What a policy would change, as it is shown before it is set, is what it changes when it is set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.forest import Forest

TREE: dict[str, tuple[str, ...]] = {"edge": (), "host-1": ("edge",), "host-2": ("edge",), "host-3": ("edge",)}


def preview(forest: Forest, node: str = "edge", **documents: dict[str, Any]) -> list[dict[str, Any]]:
    view = forest[node].balancer.view
    return view.preview(view.policy_layers.changed(documents))


def states(forest: Forest) -> dict[str, str]:
    service = forest["edge"].balancer.view.service("catalog")
    assert service is not None
    return {version["version"]: version["state"] for version in service["versions"]}


def shares(forest: Forest) -> dict[str, float]:
    service = forest["edge"].balancer.view.service("catalog")
    assert service is not None
    return {version["version"]: round(version["share"], 2) for version in service["versions"]}


def three(*versions: str) -> Forest:
    forest = Forest(TREE)
    for number, version in enumerate(versions, 1):
        forest.put(f"host-{number}", f"i{number}", version)
    return forest


CHANGES: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "a deny recalls the junior": (("1.0.1", "1.0.2"), {}, {"compatibility": {"deny": [["1.0.1", "1.0.2"]]}}),
    "a rule recalls": (("1.0.1", "1.0.2", "1.0.3"), {}, {"compatibility": {"rule": "exact"}}),
    "a rule allows": (("1.0.1", "2.0.0"), {}, {"compatibility": {"rule": "any"}}),
    "a hold ends": (("1.0.1", "1.0.2"), {"hold": ["1.0.2"]}, {}),
    "a pin ends": (("1.0.1", "1.0.2"), {"pin": ["1.0.1"]}, {"pin": ["1.0.1", "1.0.2"]}),
    "a floor falls": (("1.0.2", "1.0.1"), {"never_below": "1.0.2"}, {"never_below": "1.0.1"}),
    "a gate goes": (
        ("1.0.1", "1.0.2"),
        {"gate": [{"name": "a", "kind": "approval", "by": ["anna"], "for": "every"}]},
        {},
    ),
    "a share": (("1.0.1", "1.0.2"), {}, {"priority": "share", "shares": {"1.0.2": 5}}),
    "a priority": (("1.0.1", "1.0.2"), {"priority": "share", "shares": {"1.0.2": 5}}, {"priority": "higher"}),
    "a park": (("1.0.1", "1.0.2"), {}, {"park": {"timeout_s": 5}}),
    "a hold of what serves": (("1.0.1", "1.0.2"), {}, {"hold": ["1.0.2"]}),
}


@pytest.mark.parametrize("name", ["catalog", "cat*"])
@pytest.mark.parametrize(("versions", "before", "after"), CHANGES.values(), ids=CHANGES)
def test_what_is_shown_is_what_happens(
    versions: tuple[str, ...], before: dict[str, Any], after: dict[str, Any], name: str
) -> None:
    forest = Forest(TREE)
    forest.policy("edge", json.dumps({"sparse": True, **before}), name)
    for number, version in enumerate(versions, 1):
        forest.put(f"host-{number}", f"i{number}", version)
    forest.run(2.0)
    had, shared = states(forest), shares(forest)
    found = preview(forest, **{name: after})
    forest.policy("edge", json.dumps({"sparse": True, **after}), name)
    forest.run(5.0)
    has = states(forest)
    changed = {version: (had[version], has[version]) for version in versions if had[version] != has[version]}
    (effect,) = found or [{"service": "catalog", "versions": [], "shares": []}]
    assert {each["version"]: (each["before"], each["after"]) for each in effect["versions"]} == changed
    moved = {v: (shared[v], share) for v, share in shares(forest).items() if share != shared[v] and v not in changed}
    if not any(now == "active" for _, now in changed.values()):  # the capacity of what opens is not known before
        shown = {each["version"]: (each["before"], each["after"]) for each in effect["shares"]}
        assert {v: pair for v, pair in shown.items() if v not in changed} == moved
        assert all(shown[v] == (shared[v], 0.0) for v in changed)
    assert bool(found) == bool(changed or moved)


def test_a_recalled_version_has_its_reason() -> None:
    forest = three("1.0.1", "1.0.2")
    (effect,) = preview(forest, catalog={"compatibility": {"deny": [["1.0.1", "1.0.2"]]}})
    (version,) = effect["versions"]
    assert version["version"] == "1.0.2" and "1.0.1" in version["reason"]
    assert effect["shares"] == [
        {"version": "1.0.1", "before": 50.0, "after": 100.0},
        {"version": "1.0.2", "before": 50.0, "after": 0.0},
    ]


def test_nothing_is_decided() -> None:
    forest = three("1.0.1", "1.0.2")
    before = repr(states(forest)), forest["edge"].balancer._state.puts, dict(forest["edge"].disk)
    preview(forest, **{"*": {"compatibility": {"rule": "exact"}}})
    forest.run(1.0)
    assert (repr(states(forest)), forest["edge"].balancer._state.puts, dict(forest["edge"].disk)) == before
    assert preview(forest, dog={"priority": "higher"}) == [], "a service that does not exist"
    assert preview(forest, catalog={}) == []
