"""An id that registers again with another version or endpoint: make before break, for its owner alone."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

import pytest

from sdlb.sdk.problem import Problem
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(3)
def test_the_only_instance_is_replaced_under_its_id(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """The only instance registers again under its id with another version and endpoint: no request is lost."""
    service = site.partition(".")[0]
    shared.register(hosts[0], f"{service}-1.0.0", site, backend(service, "1.0.0"), id=f"{service}-only")
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    with Traffic(edges, site) as traffic:
        for version in ("1.0.1", "1.0.2", "1.0.3"):
            again = shared.register(
                hosts[0], f"{service}-{version}", site, backend(service, version), id=f"{service}-only"
            )
            shared.reachable(edges, f"http://{site}/", f"{service}-{version}")
            until("the former registration is gone", lambda again=again: again.get().former == ())
            assert again.get().version == version
            traffic.wait_for(20)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.0", "1.0.1", "1.0.2", "1.0.3"}


@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_an_incompatible_successor_waits_for_what_is_in_flight(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    slow, new = backend(service, "1.0.1"), backend(service, "2.0.0")
    shared.register(hosts[0], f"{service}-1.0.1", site, slow, id=f"{service}-only")
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")
    answers: list[dict[str, str]] = []
    asking = [
        threading.Thread(target=lambda edge=edge: answers.append(get(edge, site, "/hang?until=gate").json()))
        for edge in edges
    ]
    for thread in asking:
        thread.start()
    until("both have arrived", lambda: len(slow.seen) == 2)
    again = shared.register(hosts[0], f"{service}-2.0.0", site, new, id=f"{service}-only", wait="waiting")
    until("the former registration drains", lambda: [each.state for each in again.get().former] == ["draining"])
    parked = threading.Thread(target=lambda: answers.append(get(edges[0], site, "/").json()))
    parked.start()
    until("it says what it waits for", lambda: again.get().reason)
    assert (again.get().state, new.seen) == ("waiting", [])
    slow.gate.set()
    for thread in (*asking, parked):
        thread.join(20)
    again.wait("active")
    assert sorted(answer["version"] for answer in answers) == ["1.0.1", "1.0.1", "2.0.0"]


@pytest.mark.promise(3)
def test_another_living_process_cannot_take_an_id(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    owner, other = (shared.program(["sleep", "600"], stdin=subprocess.DEVNULL) for _ in range(2))
    mine = backend(service, "1.0.0")
    first = shared.register(hosts[0], f"{service}-1.0.0", site, mine, id=f"{service}-only", pid=owner.pid)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    thief = backend(service, "1.0.1")
    with Traffic(edges, site) as traffic:
        with pytest.raises(Problem) as refused:
            shared.register(hosts[0], f"{service}-1.0.1", site, thief, id=f"{service}-only", pid=other.pid)
        assert refused.value.status == 409 and f"process {owner.pid}" in refused.value.detail
        traffic.wait_for(30)
    traffic.assert_nothing_lost()
    assert (first.get().version, first.get().pid, thief.seen) == ("1.0.0", owner.pid, [])
