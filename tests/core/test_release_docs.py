"""Releases as documents of the tree: every node has them, one name keeps its digests, and all of it outlives restarts."""

from __future__ import annotations

import msgspec
import pytest

from sdlb.core import events as ev
from sdlb.core import releases
from sdlb.core.messages import TARGET, Doc
from sdlb.model.rollout import DONE, ROLLING, Rollout, Target, target_body
from tests.core.forest import Forest

A, B = "a" * 64, "b" * 64
TREE: dict[str, tuple[str, ...]] = {"edge": (), "rack": ("edge",), "host": ("rack",)}
NAME = "catalog-1.0.2"


def put(digest: str = A, platform: str = "linux-x86_64", **more: object) -> ev.ReleasePut:
    artifact = {platform: {"url": f"https://repo.example/{platform}.tgz", "sha256": digest}}
    data = {"service": "catalog", "version": "1.0.2", "artifact": artifact, **more}
    return ev.ReleasePut(NAME, msgspec.json.encode(data), "ann")


WITHDRAW = ev.ReleasePut(NAME, b"", "bob")


def send(forest: Forest, *events: ev.Event) -> None:
    for event in events:
        forest["edge"].inbox.append(event)
        forest.settle()


def known(forest: Forest, node: str = "edge") -> tuple[bool, list[str]]:
    """Withdrawn, and the platforms with the beginning of their digests."""
    found = forest[node].balancer.view.release(NAME)
    assert found is not None
    return found["withdrawn"], [f"{each['platform']} {each['sha256'][:1]}" for each in found["artifacts"]]


def objection(forest: Forest, event: ev.ReleasePut, node: str = "edge") -> str:
    return forest[node].balancer.view.release_objection(event)


def notes(forest: Forest) -> list[str]:
    return [note.text for note in forest["edge"].notes if note.code in ("release-added", "release-withdrawn")]


def test_a_release_reaches_every_node_and_outlives_restarts() -> None:
    forest = Forest(TREE)
    send(forest, put())
    for name in forest.nodes:
        assert known(forest, name) == (False, ["linux-x86_64 a"])
        forest[name].restart()
        forest.run(4.0)
        assert known(forest, name) == (False, ["linux-x86_64 a"])
    assert [each["name"] for each in forest["host"].balancer.view.releases()] == [NAME]
    assert notes(forest)[0] == f"ann added release {NAME}"


def test_one_name_keeps_its_digests_also_when_withdrawn() -> None:
    forest = Forest(TREE)
    send(forest, put(), put(B))
    assert known(forest) == (False, ["linux-x86_64 a"])
    assert "already has the digest" in objection(forest, put(B))
    send(forest, WITHDRAW, put(B))
    assert known(forest) == (True, ["linux-x86_64 a"])
    assert "already has the digest" in objection(forest, put(B))
    send(forest, put())
    assert known(forest, "host") == (False, ["linux-x86_64 a"])
    assert notes(forest) == [
        f"ann added release {NAME}",
        f"bob withdrew release {NAME}",
        f"ann made release {NAME} available again",
    ]


def test_more_platforms_are_added_and_nothing_else() -> None:
    forest = Forest(TREE)
    send(forest, put(), put(B, "linux-aarch64"), put())
    assert known(forest, "host") == (False, ["linux-aarch64 b", "linux-x86_64 a"])
    assert notes(forest) == [f"ann added release {NAME}", f"ann added linux-aarch64 to release {NAME}"]
    assert "other requirements" in objection(forest, put(requires=["pricing>=3"]))


def test_what_is_known_changes_nothing() -> None:
    forest = Forest(TREE)
    send(forest, put(), WITHDRAW)
    digest = forest["edge"].balancer._state.policies.digest
    send(forest, WITHDRAW)
    assert forest["edge"].balancer._state.policies.digest == digest
    assert len(notes(forest)) == 2


def test_a_name_that_two_services_could_have_belongs_to_the_first() -> None:
    forest = Forest(TREE)
    data = {"service": "catalog-1", "version": "0-2"}
    send(forest, ev.ReleasePut("catalog-1-0-2", msgspec.json.encode(data), "ann"))
    data = {"service": "catalog", "version": "1-0-2"}
    why = objection(forest, ev.ReleasePut("catalog-1-0-2", msgspec.json.encode(data), "ann"))
    assert why == "release catalog-1-0-2 already exists with service catalog-1 and version 0-2"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Target("catalog", "1.0.2"), "the nodes of catalog have catalog-1.0.2; roll out another version first"),
        (
            Target("catalog", "1.0.1", Rollout("r-1", "1.0.2", "1.0.1", ROLLING)),
            "rollout r-1 of catalog is in progress",
        ),
        (
            Target("catalog", "1.0.2", Rollout("r-1", "1.0.3", "1.0.2", ROLLING)),
            "rollout r-1 of catalog is in progress",
        ),
        (Target("catalog", "1.0.3", Rollout("r-1", "1.0.3", "1.0.2", DONE)), ""),
    ],
)
def test_a_release_in_use_is_not_withdrawn(target: Target, why: str) -> None:
    forest = Forest({"edge": ()})
    send(forest, put())
    forest["edge"].balancer._state.policies.put_doc(TARGET, "catalog", target_body(target))
    assert objection(forest, WITHDRAW).startswith(why)
    send(forest, WITHDRAW)
    assert known(forest)[0] == (not why)


def test_refusals_have_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = Forest(TREE)
    assert objection(forest, WITHDRAW) == f"there is no release {NAME}"
    assert objection(forest, put(), "rack") == "this node is not a root"
    assert objection(forest, ev.ReleasePut("catalog-9", put().body)) == "release catalog-9 cannot be read"
    monkeypatch.setattr(releases, "RELEASES_MAX", 1)
    send(forest, put())
    other = ev.ReleasePut("catalog-2", msgspec.json.encode({"service": "catalog", "version": "2"}))
    assert objection(forest, other) == "release catalog-2: there are already 1 releases, which is the maximum"
    send(forest, other, put(B, "linux-aarch64"))
    assert forest["edge"].balancer.view.release_names() == [NAME]
    assert known(forest)[1] == ["linux-aarch64 b", "linux-x86_64 a"]


def test_a_release_stays_short_enough_for_the_links() -> None:
    forest = Forest({"edge": ()})
    long = {f"linux-m{number}": {"url": f"/{'x' * 900}{number}", "sha256": A} for number in range(64)}
    first, second = dict(list(long.items())[:40]), dict(list(long.items())[40:])
    more = {f"linux-n{number}": {"url": f"/{'y' * 900}{number}", "sha256": A} for number in range(40)}
    send(forest, put(artifact=first), put(artifact=second))
    assert len(known(forest)[1]) == 64
    assert objection(forest, put(artifact=more)) == f"release {NAME} would be longer than 64 KiB; use fewer platforms"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 9000, b'{"service": "catalog"}', b'{"later": 1}'])
def test_a_release_that_cannot_be_read_is_passed_on_and_never_replaced(body: bytes) -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    policies = forest["edge"].balancer._state.policies
    policies.adopt(Doc("release", NAME, 1, "edge", body, ("id-edge",)))
    send(forest, ev.Tick(), put())
    assert forest["host"].balancer._state.policies.docs[f"release/{NAME}"].body == body
    assert forest["edge"].balancer.view.releases() == []
    assert "cannot be read by this version" in objection(forest, put())
