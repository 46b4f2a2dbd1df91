"""A root that cannot write: it sends heartbeats, has no say, and no entry loses traffic."""

from __future__ import annotations

import pytest

from sdlb.core.messages import Beat
from tests.core.forest import Forest, interruptions, key_of

TWO: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "rack": ("edge-1", "edge-2"),
    "host-1": ("rack",),
    "host-2": ("rack",),
}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
EDGES = ("edge-1", "edge-2")


def served() -> Forest:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.watch.append(forest.one_generation)
    return forest


def some_version(forest: Forest, edge: str) -> bool:
    return bool(forest.endpoints(edge, OLD) or forest.endpoints(edge, NEW))


def test_a_root_that_cannot_write_reports_that_in_its_heartbeats() -> None:
    forest = served()
    forest["edge-2"].stick()
    forest.put("host-2", "b", "1.0.2")  # a decision that it cannot write
    sent = forest["edge-2"].listen()
    forest.run(10.0)
    beats = [message for message in sent if isinstance(message, Beat)]
    assert len(beats) >= 4
    assert not any(beat.has_say for beat in beats)
    forest["edge-2"].unstick()
    sent = forest["edge-2"].listen()
    forest.run(5.0)
    assert all(message.has_say for message in sent if isinstance(message, Beat))


@pytest.mark.promise(4)
def test_a_stuck_root_changes_nothing_for_what_serves() -> None:
    forest = served()
    for edge in EDGES:
        forest[edge].stick()
    forest.put("host-2", "b", "1.0.2")
    for _ in range(120):
        forest.run(1.0)
        assert all(forest.endpoints(edge, OLD) == {"host-1/i:a"} for edge in EDGES)


@pytest.mark.promise(3)
@pytest.mark.promise(4)
def test_a_rollout_with_one_disk_full_costs_no_more_than_lease_and_fence_at_either_edge() -> None:
    """Every root must consent. One that cannot write loses its say after lease and fence."""
    forest = served()
    forest["edge-2"].stick()
    forest.put("host-2", "b", "2.0.0")
    forest.run(5.0)
    forest.remove("host-1", "a")
    forest.run(22.0)
    assert forest["host-2"].state("b") == "active"
    forest.run(22.0)
    for _ in range(60):
        forest.run(1.0)
        for edge in EDGES:
            assert some_version(forest, edge), edge
    forest["edge-2"].unstick()
    forest.run(10.0)
    for edge in EDGES:
        assert forest[edge].versions() == {"2.0.0": "active"}
        assert forest.endpoints(edge, NEW) == {"host-2/i:b"}


@pytest.mark.promise(3)
def test_a_further_compatible_version_waits_for_the_stuck_root_no_longer_than_lease_and_fence() -> None:
    forest = served()
    forest["edge-2"].stick()
    forest.put("host-2", "b", "1.0.2")
    assert forest["host-2"].state("b") == "waiting"
    forest.run(25.0)
    assert forest["host-2"].state("b") == "active"
    assert forest.endpoints("edge-1", key_of("1.0.2")) == {"host-2/i:b"}


@pytest.mark.promise(1)
@pytest.mark.promise(8)
def test_a_stuck_root_that_is_killed_brings_nothing_back() -> None:
    """A root is killed while it cannot write, and the other root continues: its old disk closes nothing."""
    forest = served()
    forest["edge-2"].stick()
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-1", "a")
    forest.run(60.0)
    assert forest["host-2"].state("b") == "active"
    forest["edge-2"].kill()
    forest["edge-2"].stuck = False
    forest["edge-2"].start()
    forest.put("host-1", "c", "1.0.1")
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-2"].state("b") == "active"
        assert forest["host-1"].serves(OLD) == set()
    assert forest["edge-2"].versions() == {"1.0.1": "waiting", "2.0.0": "active"}


@pytest.mark.promise(8)
def test_the_only_root_decides_nothing_while_it_cannot_write() -> None:
    """Decide, write, act: a decision that is not on disk has no effect."""
    forest = Forest({"edge": (), "host": ("edge",)})
    forest["edge"].stick()
    forest.put("host", "a", "1.0.1")
    forest.run(120.0)
    assert forest["host"].state("a") == "waiting"
    forest["edge"].unstick()
    forest.run(1.0)
    assert forest["host"].state("a") == "active"


@pytest.mark.promise(4)
def test_a_stuck_middle_node_or_host_keeps_what_it_serves() -> None:
    for name in ("rack", "host-1"):
        forest = served()
        forest[name].stick()
        forest.put("host-2", "b", "1.0.2")
        forest.put("host-1", "c", "1.0.2")
        forest.run(60.0)
        for edge in EDGES:
            assert "host-1/i:a" in forest.endpoints(edge, OLD), name
        forest[name].unstick()
        forest.run(10.0)
        for edge in EDGES:
            assert forest.endpoints(edge, key_of("1.0.2")) == {"host-1/i:c", "host-2/i:b"}, name


@pytest.mark.promise(3)
@pytest.mark.parametrize("victim", ["edge-1", "edge-2", "rack", "host-2"])
def test_the_disk_has_space_again_while_another_node_restarts(victim: str) -> None:
    def story() -> Forest:
        forest = served()
        forest["edge-2"].stick()
        forest.put("host-2", "b", "2.0.0")
        forest.remove("host-1", "a")
        forest.run(50.0)
        return forest

    for where, forest in interruptions(story, lambda f: f["edge-2"].unstick(), [victim]):
        forest.run(30.0)
        assert forest["host-2"].state("b") == "active", where
        for edge in EDGES:
            assert forest[edge].versions() == {"2.0.0": "active"}, where
            assert forest.endpoints(edge, NEW) == {"host-2/i:b"}, where
