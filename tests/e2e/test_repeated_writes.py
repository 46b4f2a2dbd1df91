"""A client whose node is killed while it carries a write out repeats it with the same key: it is done once, or the client is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sdlb.sdk.problem import Problem
from tests.e2e.acts import halted
from tests.e2e.cluster import Cluster, until
from tests.releases import release


@pytest.mark.promise(8)
def test_a_write_outlives_the_control_that_was_to_carry_it_out(cluster: Cluster) -> None:
    """A policy is set by the next control. A release may have been added, so the client has to look; another key adds it."""
    [edge], [host] = cluster.tiers(1, 1)
    body = release(cluster.folder, "1.0.1")
    file = host.folder / "state/repeats"
    with ThreadPoolExecutor(2) as pool, host.client() as client:
        with halted(edge):  # so that neither has an answer yet
            policy = pool.submit(client.set_policy, "catalog", {"priority": "higher"})
            added = pool.submit(client.add_release, body)
            until("both have begun", lambda: file.exists() and file.read_bytes().count(b'"since"') == 2)
            host.kill_control()
        host.start()
        assert policy.result(60.0).document == {"priority": "higher"}
        with pytest.raises(Problem, match="look whether it was done") as refused:
            added.result(60.0)
        assert refused.value.code == "outcome-unknown"
        host.wait_ready()
        assert client.policy("catalog").document == {"priority": "higher"}
        client.add_release(body)
        assert [each.version for each in client.releases("catalog").releases] == ["1.0.1"]
