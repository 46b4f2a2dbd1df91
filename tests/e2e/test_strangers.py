"""One child sends arbitrary values: huge revisions and generations change nothing for the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.acts import child
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
STRANGER = Path(__file__).with_name("stranger.py")
SITE = "web.example"


@pytest.mark.promise(1)
@pytest.mark.promise(6)
def test_a_policy_and_a_generation_from_below_are_not_believed(cluster: Cluster, backend: Make) -> None:
    """A policy with a huge revision and a generation of 2^40, sent by one child, change nothing.

    The policy would let 2.0.0 in beside 1.0.0, the generation would let 3.0.0 take the service over.
    """
    (edge,), hosts = cluster.tiers(1, 2)
    cluster.register(hosts[0], "web-1.0.0", SITE, backend("web", "1.0.0"))
    new = backend("web", "2.0.0")
    waiting = cluster.register(hosts[1], "web-2.0.0", SITE, new, wait="waiting")
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.0")
    with hosts[0].client() as client:
        before = client.policy("web")
    with Traffic([edge], SITE) as traffic:
        policy = json.dumps({"compatibility": {"rule": "any"}, "priority": "higher"})
        words = [sys.executable, str(STRANGER), edge.address, "stranger", "web", "3.0.0", f"{SITE}/*", policy]
        stranger = cluster.program(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "heard\n"
        until("the edge has taken its claim in", lambda: child(edge, "stranger").services == ("web-3.0.0",))
        traffic.wait_for(80)
        for node in (edge, *hosts):
            with node.client() as client:
                assert client.policy("web").policy == before.policy, node.name
        assert (waiting.get().state, new.seen) == ("waiting", [])
        with hosts[1].client() as client:
            told = client.set_policy("web", {"priority": "lower"})
        assert told.policy["priority"] == "lower" and told.revision < 1 << 40
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.0"}
