"""Policies of patterns: what they apply to, at every node and over every restart, and several of them at once."""

from __future__ import annotations

import json

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core import policies
from sdlb.core.messages import ClaimKey, Doc
from sdlb.model.policy import Policy
from sdlb.model.traffic import Traffic
from tests.core.forest import Forest, interruptions, key_of
from tests.core.node import Node

TREE: dict[str, tuple[str, ...]] = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}


def text(**keys: object) -> str:
    return json.dumps({"sparse": True, **keys})


def policy_of(forest: Forest, service: str, node: str = "edge") -> Policy:
    return forest[node].balancer._state.policy(service)


def policies_of(forest: Forest, service: str) -> set[Policy]:
    return {json.dumps(policy_of(forest, service, node).to_data()) for node in forest.nodes}  # type: ignore[misc]


def traffic_of(node: Node, service: str) -> Traffic:
    put = node.balancer._state.table._services.get(service)
    return put.traffic if put is not None else Traffic()


def test_the_most_specific_pattern_wins_at_every_node_and_over_every_restart() -> None:
    forest = Forest(TREE)
    forest.policy("edge", text(priority="higher", park={"timeout_s": 5}, timeout_s=7), "*")
    forest.policy("edge", text(park={"requests_max": 9}, timeout_s=8), "cat*")
    forest.policy("edge", text(priority="even"), "catalog")
    for name in ("", *forest.nodes):
        if name:
            forest[name].restart()
            forest.run(4.0)
        for node in forest.nodes:
            policy = policy_of(forest, "catalog", node)
            assert (policy.priority, policy.park.timeout_s, policy.park.requests_max) == ("even", 5, 9), (name, node)
            assert policy_of(forest, "dog", node).priority == "higher"
            assert policy_of(forest, "dog", node).traffic.timeout_s == 7
    forest.policy("edge", text(), "catalog")  # removed
    assert policy_of(forest, "catalog", "host-1").priority == "higher"
    forest.policy("edge", text(), "*")
    assert policy_of(forest, "catalog", "host-1").priority == "even"


def test_a_pattern_takes_effect_on_the_services_that_exist() -> None:
    """Versions that are incompatible by the new rule are recalled, and those that waited open."""
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.put("host-2", "dog", "2.0.0", "dog.example/*", service="dog")
    assert forest["host-2"].state("b") == "waiting"
    forest.policy("edge", text(compatibility={"rule": "any"}), "do*")
    assert forest["host-2"].state("b") == "waiting"
    forest.policy("edge", text(compatibility={"rule": "any"}), "cat*")
    assert forest["host-2"].state("b") == "active"
    forest.policy("edge", text(compatibility={"rule": "exact"}), "catalog")
    assert forest["host-2"].state("b") == "waiting"


def test_a_service_that_appears_later_has_the_settings_of_its_pattern() -> None:
    forest = Forest(TREE)
    forest.policy("edge", text(timeout_s=7), "cat*")
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "dog", "1.0.1", "dog.example/*", service="dog")
    for name in ("edge", "rack", "host-1"):
        assert traffic_of(forest[name], "catalog").timeout_s == 7, name
        assert traffic_of(forest[name], "dog") == Traffic(), name
        assert traffic_of(forest[name], "cat*") == Traffic(), "not a service"
    forest.policy("edge", text(timeout_s=8), "*")
    assert traffic_of(forest["rack"], "dog").timeout_s == 8
    assert traffic_of(forest["rack"], "catalog").timeout_s == 7


def test_settings_of_services_that_are_gone_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "GONE_MAX", 3)
    forest = Forest({"edge": ()})
    forest.policy("edge", text(timeout_s=7), "*")
    forest.policy("edge", text(timeout_s=9), "s0")
    for number in range(6):
        forest.put("edge", f"i{number}", "1.0.1", f"{number}.example/*", service=f"s{number}")
    for number in range(6):
        forest.remove("edge", f"i{number}")
    forest.run(1.0)
    kept = list(forest["edge"].balancer._state.table._services)
    assert sorted(kept) == ["s0", "s3", "s4", "s5"], "with its own document, and the last ones"
    forest.policy("edge", text(), "*")
    assert sorted(forest["edge"].balancer._state.table._services) == ["s0"]


def test_a_document_of_an_earlier_release_keeps_only_what_differs_from_the_default() -> None:
    """It has all keys, so it would hide every pattern."""
    forest = Forest(TREE)
    older = Policy.from_data({"priority": "lower", "park": {"requests_max": 5}}).to_json()
    forest.policy("edge", older)
    forest.policy("edge", text(on_silence="wait", priority="higher", park={"timeout_s": 3}), "*")
    forest["edge"].restart()
    forest.run(4.0)
    for node in forest.nodes:
        policy = policy_of(forest, "catalog", node)
        assert (policy.priority, policy.on_silence) == ("lower", "wait")
        assert (policy.park.requests_max, policy.park.timeout_s) == (5, 3)
    assert forest["rack"].balancer.view.policy("catalog").body == older.encode()  # type: ignore[union-attr]


def test_under_wait_of_a_pattern_a_remnant_stays_until_the_pattern_changes() -> None:
    forest = Forest(TREE)
    forest.policy("edge", text(on_silence="wait"), "c*")
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest["host-1"].kill()
    forest["rack"].lose_disk()
    forest.run(120.0)
    assert forest["host-2"].state("b") == "waiting"
    forest.policy("edge", text(on_silence="open"), "d*")
    forest.run(1.0)
    assert forest["host-2"].state("b") == "waiting"
    forest.policy("edge", text(on_silence="open"), "c*")
    forest.run(1.0)
    assert forest["host-2"].state("b") == "active"


def test_an_unreadable_pattern_keeps_its_former_content() -> None:
    forest = Forest(TREE)
    forest.policy("edge", text(priority="higher"), "*")
    forest.policy("edge", '{"priority": "sideways"}', "*")
    assert {policy_of(forest, "catalog", name).priority for name in forest.nodes} == {"higher"}
    assert "policy-unreadable" in forest["rack"].codes()


# ---------------------------------------------------------------------- several at once


def several(forest: Forest, root: str = "edge") -> None:
    puts = (("*", text(priority="higher")), ("catalog", text(priority="lower")), ("dog", text(on_silence="wait")))
    forest[root].inbox.append(ev.PoliciesPut(tuple(ev.PolicyPut(name, body.encode()) for name, body in puts)))


def held(forest: Forest, node: str) -> set[str]:
    return set(forest[node].balancer._state.policies.docs)


@pytest.mark.promise(8)
def test_several_documents_are_written_and_sent_together() -> None:
    forest = Forest(TREE)
    effects = forest["edge"].balancer.handle(
        ev.PoliciesPut((ev.PolicyPut("*", b"{}"), ev.PolicyPut("catalog", b"{}"))), forest.now
    )
    (persist,) = [effect for effect in effects if isinstance(effect, ef.Persist)]
    assert persist.durable and {"doc/policy/*", "doc/policy/catalog"} <= set(persist.puts)
    assert effects.index(persist) == 0


@pytest.mark.promise(5, 8)
@pytest.mark.parametrize("victim", ["edge", "rack"])
def test_all_of_several_documents_are_in_force_or_none(victim: str) -> None:
    for where, forest in interruptions(lambda: Forest(TREE), several, [victim]):
        assert len(held(forest, "edge")) in (0, 3), where
        forest.run(20.0)
        assert {len(held(forest, name)) for name in forest.nodes} in ({0}, {3}), where


def test_none_of_several_documents_is_set_when_one_has_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "DOCS_MAX", 3)
    forest = Forest({"edge": ()})
    forest.policy("edge", text(priority="lower"), "dog")
    forest.policy("edge", text(priority="lower"), "other")
    several(forest)
    forest.settle()
    assert held(forest, "edge") == {"policy/dog", "policy/other"}
    assert policy_of(forest, "dog").on_silence == "open"
    assert "doc-refused" in forest["edge"].codes()


def test_a_pattern_is_learnt_back_by_a_root_that_lost_its_disk() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    several(forest)
    forest.run(2.0)
    forest["edge"].lose_disk()
    forest.run(60.0)
    assert policy_of(forest, "shop").priority == "higher" and policy_of(forest, "catalog").priority == "lower"


def test_a_document_whose_name_is_no_pattern_of_this_release_is_passed_on() -> None:
    forest = Forest(TREE)
    doc = Doc("policy", "c?t**", 3, "edge", text(priority="higher").encode())
    forest["edge"].balancer._state.policies.adopt(doc)
    forest["edge"].handle(ev.Tick())
    forest.run(2.0)
    assert {forest[name].balancer._state.policies.docs.get(doc.id) for name in forest.nodes} == {doc}
    assert policy_of(forest, "catalog").priority == "even"


def test_the_cost_of_a_change_is_that_of_the_services_it_concerns() -> None:
    forest = Forest({"edge": ()})
    for number in range(20):
        forest.put(
            "edge", f"i{number}", "1.0.1", f"{number}.example/*", service=f"{'cat' if number < 3 else 'dog'}{number}"
        )
    state = forest["edge"].balancer._state
    touched: list[ClaimKey] = []
    touch = state.touch
    state.touch = lambda key, target="": (touched.append(key), touch(key, target))[1]  # type: ignore[method-assign,assignment,return-value,misc]
    forest.policy("edge", text(priority="higher"), "cat*")
    assert {key.service for key in touched} == {"cat0", "cat1", "cat2"}
    assert key_of("1.0.1").service == "catalog"
