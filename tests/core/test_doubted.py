"""A generation that one child brings, and that no root of the tree has on record any more."""

from __future__ import annotations

import pytest

from tests.core.forest import Forest, key_of

TWO = {"edge-1": (), "edge-2": (), **{f"host-{n}": ("edge-1", "edge-2") for n in (1, 2, 3)}}
NEW = key_of("2.0.0")


def set_back(*names: str) -> Forest:
    """2.0.0 has replaced 1.0.1, and serves at host-3. Then these nodes get the state folders from before."""
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "1.0.1")
    backups = {name: node.snapshot() for name, node in forest.nodes.items()}
    forest.put("host-3", "c", "2.0.0")
    forest.remove("host-1", "a")
    forest.remove("host-2", "b")
    forest.run(3.0)
    assert forest["edge-1"].versions() == {"2.0.0": "active"}
    for name in names:
        forest[name].restore(backups[name])
    for host, name in (("host-1", "a"), ("host-2", "b")):
        forest.put(host, name, "1.0.1", settle=False)
    return forest


@pytest.mark.promise(1, 5)
def test_roots_that_have_forgotten_a_generation_end_it_at_the_only_node_that_knows_it() -> None:
    forest = set_back("edge-1", "edge-2", "host-1", "host-2")
    forest.run(60.0)
    forest.one_generation()
    for name in ("edge-1", "edge-2"):
        assert forest[name].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    forest.run(200.0)
    assert forest["edge-1"].generation() == forest["edge-2"].generation() == 3, "they do not outbid each other"
    forest.remove("host-1", "a")
    forest.remove("host-2", "b")
    forest.run(3.0)
    assert forest["host-3"].serves(NEW) and forest["edge-1"].versions() == {"2.0.0": "active"}
