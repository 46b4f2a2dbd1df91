"""What releases require of each other: the order of services in a joint rollout, and what would break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.requirements import Move, Requires, objection, order, withdrawal_objection
from sdlb.model.release import Release, Requirement
from sdlb.model.requirements import cycle
from sdlb.model.version import matches

SERVICES: tuple[str, ...] = ("a", "b", "c", "d", "e")
RANGES = ("=1", "=2", ">=1", ">=2", "<2")
Needs = Mapping[tuple[str, str], Sequence[Requirement]]


def requires_of(needs: Needs) -> Requires:
    return lambda service, version: needs.get((service, version), ())


def holds(versions: Mapping[str, str], needs: Needs) -> bool:
    """Whether all requirements are met while these versions serve."""
    return all(
        need.service in versions and matches(versions[need.service], [need.versions])
        for each in versions.items()
        for need in needs.get(each, ())
    )


@st.composite
def worlds(draw: st.DrawFn, *, acyclic: bool) -> Needs:
    """What versions 1 and 2 of each service require. Acyclic: a service requires only those before it in the alphabet."""
    found: dict[tuple[str, str], list[Requirement]] = {}
    for number, service in enumerate(SERVICES):
        others = SERVICES[:number] if acyclic else [each for each in SERVICES if each != service]
        for version in ("1", "2"):
            chosen = draw(st.lists(st.sampled_from(others), unique=True, max_size=2)) if others else []
            found[service, version] = [Requirement(other, draw(st.sampled_from(RANGES))) for other in chosen]
    return found


def steps_of(moves: Sequence[Move]) -> list[dict[str, str]]:
    """The versions that serve before the first move, and after each."""
    now = dict.fromkeys(SERVICES, "1")
    found = [dict(now)]
    for move in moves:
        now[move.service] = move.to
        found.append(dict(now))
    return found


@given(worlds(acyclic=False), st.lists(st.sampled_from(SERVICES), unique=True, min_size=1))
def test_all_requirements_hold_at_each_point_of_the_order(needs: Needs, names: list[str]) -> None:
    moves, serving = [Move(name, "2") for name in names], {name: ["1"] for name in SERVICES}
    if not holds(steps_of([])[0], needs):
        return
    requires = requires_of(needs)
    last = steps_of(moves)[-1]
    assert bool(objection(moves, serving, requires)) == (not holds(last, needs))
    if not holds(last, needs):
        return
    found, why = order(moves, serving, requires)
    assert bool(found) != bool(why)
    if found:
        assert sorted(move.service for move in found) == sorted(names)
        assert all(holds(each, needs) for each in steps_of(found)), "going back passes the same points"


@given(worlds(acyclic=True), st.lists(st.sampled_from(SERVICES), unique=True, min_size=1))
def test_required_services_come_first_in_every_acyclic_graph(needs: Needs, names: list[str]) -> None:
    """What serves now requires nothing, so only the new versions decide."""
    serving: dict[str, list[str]] = {name: ["1"] for name in SERVICES}
    new = {key: found for key, found in needs.items() if key[1] == "2"}
    found, why = order([Move(name, "2") for name in names], serving, requires_of(new))
    assert not why
    places = {move.service: number for number, move in enumerate(found)}
    for name in names:
        for need in new[name, "2"]:
            assert need.service not in places or places[need.service] < places[name]


@given(worlds(acyclic=False), st.lists(st.sampled_from(SERVICES), unique=True, min_size=1, max_size=4))
def test_no_order_is_refused_only_if_there_is_none(needs: Needs, names: list[str]) -> None:
    """Except for services that require each other in versions that both fit: which comes first would be chance."""
    moves = [Move(name, "2") for name in names]
    if not holds(steps_of([])[0], needs) or not holds(steps_of(moves)[-1], needs):
        return
    found, why = order(moves, {name: ["1"] for name in SERVICES}, requires_of(needs))
    able = any(all(holds(each, needs) for each in steps_of(way)) for way in permutations(moves))
    assert able or not found
    if able and not found:
        assert "in a cycle" in why


def test_what_is_needed_first_is_named() -> None:
    needs: Needs = {("a", "2"): [Requirement("b", ">=2")], ("a", "1"): [Requirement("b", "<2")]}
    _, why = order([Move("a", "2"), Move("b", "2")], {"a": ["1"], "b": ["1"]}, requires_of(needs))
    assert (
        why
        == "a-2 requires b>=2, and b 1 is active, but a-1, which serves, requires b<2; first roll out versions that fit both"
    )


def test_an_old_version_that_the_other_one_breaks_leaves_first() -> None:
    """On the way down: catalog 2 requires pricing 3, and goes back before it."""
    needs: Needs = {
        ("catalog", "2"): [Requirement("pricing", ">=3")],
        ("catalog", "1"): [Requirement("pricing", ">=1")],
    }
    moves, serving = [Move("pricing", "2"), Move("catalog", "1")], {"catalog": ["2"], "pricing": ["3"]}
    found, _ = order(moves, serving, requires_of(needs))
    assert [move.service for move in found] == ["catalog", "pricing"]


def test_all_versions_that_serve_have_to_fit() -> None:
    requires = requires_of({("a", "2"): [Requirement("b", ">=2")]})
    assert objection([Move("a", "2")], {"b": ["2"]}, requires) == ""
    assert objection([Move("a", "2")], {"b": ["1", "2"]}, requires) == "a-2 requires b>=2, and b 1 is active"
    assert objection([Move("a", "2")], {}, requires) == "a-2 requires b>=2, and no version of b is active"
    assert "would break it" in objection([Move("b", "1")], {"a": ["1", "2"], "b": ["2"]}, requires)
    assert withdrawal_objection("b", "2", {"a": ["2"], "b": ["2"]}, requires).startswith(
        "a-2, which is active, requires b>=2"
    )
    assert withdrawal_objection("b", "3", {"a": ["2"], "b": ["2"]}, requires) == "", "it serves nowhere"


# ---------------------------------------------------------------------- cycles


def release(name: str, version: str, *needs: str) -> Release:
    return Release(name, version, tuple(Requirement(need[0], need[1:]) for need in needs))


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ([], ()),
        ([release("b", "1", "a>=1")], ("a-1", "b-1", "a-1")),
        ([release("b", "1", "a>=2")], ()),
        ([release("b", "1", "a>=1"), release("b", "2")], ()),
        ([release("b", "1", "c>=1"), release("c", "1", "a>=1")], ("a-1", "b-1", "c-1", "a-1")),
        ([release("b", "1", "c>=1"), release("c", "1", "b>=1")], ("b-1", "c-1", "b-1")),
    ],
)
def test_a_cycle_is_found_only_if_none_could_be_first(known: list[Release], found: tuple[str, ...]) -> None:
    new = release("a", "1", "b>=1")
    assert cycle(new, lambda service: [each for each in known if each.service == service]) == found


@given(worlds(acyclic=True))
def test_an_acyclic_graph_has_no_cycle(needs: Needs) -> None:
    known = [Release(service, version, tuple(found)) for (service, version), found in needs.items()]
    for new in known:
        assert not cycle(new, lambda service: [each for each in known if each.service == service])
