"""Promises 1 and 2 on real processes: compatible versions serve together, incompatible ones never at one time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(1)
def test_compatible_versions_serve_side_by_side(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    for host, version in zip(hosts, ("1.0.1", "1.0.2"), strict=True):
        shared.register(host, f"pair-{version}", site, backend("pair", version))
        shared.reachable(edges, f"http://{site}/", f"pair-{version}")
    with Traffic(edges, site) as traffic:
        traffic.wait_for(150)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.1", "1.0.2"}


@pytest.mark.promise(2)
def test_incompatible_version_waits_with_a_reason_then_opens(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    old = [shared.register(host, f"{service}-1.0.1", site, backend(service, "1.0.1")) for host in hosts]
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")
    with Traffic(edges, site) as traffic:
        new = shared.register(hosts[0], f"{service}-2.5.1", site, backend(service, "2.5.1"), wait="waiting")
        until("it is told why", lambda: new.get().reason_code == "still-running")
        told = new.get()
        assert "1.0.1" in told.reason and "host-1" in told.reason and "host-2" in told.reason
        assert told.decided_by in ("edge-1", "edge-2")

        assert old[0].deregister().drained
        until("the reason names host-2 alone", lambda: "host-1" not in new.get().reason)
        assert "host-2" in new.get().reason
        traffic.wait_for(50)
        assert set(traffic.count()) == {"1.0.1"}, "it got requests while it waited"

        assert old[1].deregister().drained
        new.wait("active")
        moment = time.monotonic()
        shared.reachable(edges, f"http://{site}/", f"{service}-2.5.1")
        traffic.wait_for(50)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.1", "2.5.1")
    assert set(traffic.since(moment)) == {"2.5.1"}


@pytest.mark.promise(2)
def test_a_request_in_flight_holds_the_next_generation_back(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    slow = backend(service, "1.0.0")
    old = shared.register(hosts[0], f"{service}-1.0.0", site, slow)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    new = shared.register(hosts[1], f"{service}-2.0.0", site, backend(service, "2.0.0"), wait="waiting")
    answers: list[int] = []
    asking = threading.Thread(
        target=lambda: answers.append(get(edges[1], site, "/hang?until=gate", timeout=30).status_code)
    )
    asking.start()
    until("the request has arrived", lambda: slow.seen)
    leaving = threading.Thread(target=old.deregister)
    leaving.start()
    time.sleep(1.0)
    assert new.get().state == "waiting", "opened while the older generation had a request in flight"
    slow.gate.set()
    asking.join(10)
    leaving.join(10)
    assert answers == [200]
    new.wait("active")


@pytest.mark.promise(1)
def test_going_back_down_is_the_same(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    running = shared.register(hosts[0], f"{service}-3.0.0", site, backend(service, "3.0.0"))
    shared.reachable(edges, f"http://{site}/", f"{service}-3.0.0")
    with Traffic(edges, site) as traffic:
        back = shared.register(hosts[1], f"{service}-2.9.9", site, backend(service, "2.9.9"), wait="waiting")
        running.deregister()
        back.wait("active")
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("3.0.0", "2.9.9")
    assert set(traffic.count()) == {"3.0.0", "2.9.9"}


@pytest.mark.promise(2)
def test_declared_compatibility_lets_a_major_version_in(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    shared.register(hosts[0], f"{service}-1.4.0", site, backend(service, "1.4.0"))
    shared.register(hosts[1], f"{service}-2.0.0", site, backend(service, "2.0.0"), compatible=[">=1.4,<2.0"])
    shared.reachable(edges, f"http://{site}/", f"{service}-2.0.0")
    third = shared.register(hosts[1], f"{service}-1.3.0", site, backend(service, "1.3.0"), wait="waiting")
    until("it is told why", lambda: third.get().reason_code == "still-running")
    with Traffic(edges, site) as traffic:
        traffic.wait_for(80)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.4.0", "2.0.0"}


@pytest.mark.promise(2)
def test_a_dead_last_instance_counts_as_stopped(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    old = shared.register(hosts[0], f"{service}-1.0.0", site, backend(service, "1.0.0"))
    new = shared.register(hosts[1], f"{service}-2.0.0", site, backend(service, "2.0.0"), wait="waiting")
    old.gone()
    new.wait("active", 5)


@pytest.mark.promise(3)
def test_requests_are_parked_while_nothing_is_active_and_bounded(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    with hosts[0].client() as client:
        client.set_policy(service, {"park": {"timeout_s": 1.0, "requests_max": 2}})
    slow = backend(service, "1.0.0")
    old = shared.register(hosts[0], f"{service}-1.0.0", site, slow)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    shared.register(hosts[1], f"{service}-2.0.0", site, backend(service, "2.0.0"), wait="waiting")
    holding = threading.Thread(target=get, args=(edges[0], site, "/hang?until=gate"))
    holding.start()
    until("the request has arrived", lambda: slow.seen)
    leaving = threading.Thread(target=old.deregister)
    leaving.start()

    def closed() -> bool:  # the old generation takes nothing new any more, the new one isn't open yet
        with edges[0].client() as client:
            return not any(version.chosen for version in client.explain(f"http://{site}/").versions)

    until("between the generations", closed)
    waits: list[tuple[float, int, str]] = []

    def ask() -> None:
        begin = time.monotonic()
        answer = get(edges[0], site, "/")
        waits.append((time.monotonic() - begin, answer.status_code, answer.headers.get("retry-after", "")))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    statuses = [status for _, status, _ in waits]
    assert statuses == [503] * 5, waits
    assert all(retry for _, _, retry in waits), "503 without Retry-After"
    assert sum(wait > 0.8 for wait, _, _ in waits) == 2, f"two fit into the queue, three don't: {waits}"

    parked: list[int] = []
    late = threading.Thread(target=lambda: parked.append(get(edges[0], site, "/").status_code))
    late.start()
    time.sleep(0.2)
    slow.gate.set()
    for thread in (late, holding, leaving):
        thread.join(20)
    assert parked == [200], "a parked request is answered by the next generation"
