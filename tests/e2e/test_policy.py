"""Policies change live, are exact, and outlive the roots that hold them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdlb.sdk.problem import Problem
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


def pair(shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make) -> str:
    """1.0.1 on host-1 and 1.0.2 on host-2 of a service of the test's own; returns its name."""
    service = site.partition(".")[0]
    for host, version in zip(hosts, ("1.0.1", "1.0.2"), strict=True):
        shared.register(host, f"{service}-{version}", site, backend(service, version))
        shared.reachable(edges, f"http://{site}/", f"{service}-{version}")
    return service


def drawn(edge: Node, site: str, requests: int) -> dict[str, int]:
    """Answers by version of this many requests, one after another."""
    counts: dict[str, int] = {}
    for _ in range(requests):
        version = get(edge, site, "/").json()["version"]
        counts[version] = counts.get(version, 0) + 1
    return counts


def applied(edges: list[Node], site: str, wanted: dict[str, float]) -> None:
    """Until both edges draw by these shares (percent of the versions that are drawn at all)."""

    def done(edge: Node) -> bool:
        with edge.client() as client:
            versions = client.explain(f"http://{site}/").versions
        return {v.version: round(v.share) for v in versions if v.chosen} == wanted

    for edge in edges:
        until(f"{edge.name} draws {wanted}", lambda edge=edge: done(edge))


@pytest.mark.promise(5)
def test_priority_changes_live(shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make) -> None:
    service = pair(shared, edges, hosts, site, backend)
    with hosts[0].client() as client:
        for priority, only in (("higher", "1.0.2"), ("lower", "1.0.1")):
            client.set_policy(service, {"priority": priority})
            applied(edges, site, {only: 100})
            assert drawn(edges[0], site, 20) == {only: 20}
            assert drawn(edges[1], site, 20) == {only: 20}


def test_shares_are_exact_on_average(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """20 % of 800: 160, standard deviation 11; five of them on each side."""
    service = pair(shared, edges, hosts, site, backend)
    with hosts[0].client() as client:
        client.set_policy(service, {"priority": "share", "shares": {"1.0.2": 20}})
    applied(edges, site, {"1.0.1": 80, "1.0.2": 20})
    with Traffic(edges, site, pause_s=0.0) as traffic:
        start = len(traffic.results)
        traffic.wait_for(800, 60)
    traffic.assert_nothing_lost()
    counts = [got.answer.version for got in traffic.results[start : start + 800]]
    assert 105 <= counts.count("1.0.2") <= 215, counts.count("1.0.2")


def test_a_sticky_share_stays(shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make) -> None:
    service = pair(shared, edges, hosts, site, backend)
    with hosts[0].client() as client:
        shares = {"priority": "share", "shares": {"1.0.2": 50}, "sticky": {"by": "cookie", "name": "sid"}}
        client.set_policy(service, shares)
    applied(edges, site, {"1.0.1": 50, "1.0.2": 50})
    drawn_by: dict[str, set[str]] = {}
    for number in range(24):
        for edge in (*edges, edges[0]):
            answer = get(edge, site, "/", headers={"cookie": f"a=b; sid=client-{number}"})
            drawn_by.setdefault(f"client-{number}", set()).add(answer.json()["version"])
    assert all(len(versions) == 1 for versions in drawn_by.values()), "a client went back and forth"
    assert {version for versions in drawn_by.values() for version in versions} == {"1.0.1", "1.0.2"}, (
        "all clients got the same version"
    )


@pytest.mark.promise(8)
def test_policies_outlive_the_roots(cluster: Cluster, backend: Make) -> None:
    edges, (host,) = cluster.tiers(2, 1)
    cluster.register(host, "web-1.0.1", "web.example", backend("web", "1.0.1"))
    with host.client() as client:
        revision = client.set_policy("web", {"priority": "share", "shares": {"1.0.1": 7}}).revision
    for edge in edges:
        edge.kill()
    for edge in edges:
        edge.start()
    cluster.wait_ready()
    for node in (*edges, host):
        with node.client() as client:
            told = client.policy("web")
        assert told.policy["shares"] == {"1.0.1": 7} and told.revision == revision and not told.disagree
    edges[1].kill()  # sleeps through a change, and learns it when it is back
    with host.client() as client:
        client.set_policy("web", {"priority": "higher"})
    edges[1].start()
    cluster.wait_ready()

    def learnt() -> bool:
        with edges[1].client() as client:
            told = client.policy("web")
        return told.policy["priority"] == "higher" and not told.disagree

    until("edge-2 has learnt the newer policy", learnt)


@pytest.mark.parametrize(
    "document",
    [
        {"priority": "highest"},
        {"priority": "share", "shares": {"1.0.1": 120}},
        {"priority": "share", "shares": {"1.0.1": 60, "1.0.2": 60}},
        {"priority": "share", "shares": {"1.0.1": -1}},
        {"shares": {"": 5}},
        {"compatibility": {"rule": "sometimes"}},
        {"compatibility": {"scheme": "roman"}},
        {"compatibility": {"ranges": [">=1.0,<<2"]}},
        {"compatibility": {"allow": [["1.0.1"]]}},
        {"compatibility": {"deny": "1.0.1"}},
        {"prioritty": "higher"},
        {"on_silence": "panic"},
        {"park": {"timeout_s": -3}},
        {"park": {"timeout_s": "long"}},
        {"park": {"requests_max": 1.5}},
        {"park_timeout_s": 3},
        {"sticky": {"by": "moon", "name": "x"}},
    ],
    ids=str,
)
def test_a_bad_policy_is_refused_and_changes_nothing(hosts: list[Node], document: dict[str, object]) -> None:
    with hosts[0].client() as client:
        client.set_policy("kept", {"priority": "lower"})
        before = client.policy("kept")
        with pytest.raises(Problem) as refused:
            client.set_policy("kept", document)
        assert refused.value.status == 400
        assert len(refused.value.detail) > 10 and "\n" not in refused.value.detail
        assert client.policy("kept") == before


@pytest.mark.promise(3)
def test_balancing_changes_live_at_every_tier(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """Two instances on each of two hosts: the entry chooses the host, the host the instance, both by the value of a header."""
    service = site.partition(".")[0]
    servers = [backend(service, "1.0.1") for _ in range(4)]
    for number, server in enumerate(servers):
        shared.register(hosts[number % 2], f"{service}-1.0.1", site, server)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")

    def places(user: int, requests: int = 6) -> set[int]:
        before = [len(server.seen) for server in servers]
        for number in range(requests):
            assert get(edges[number % 2], site, "/", headers={"x-user": f"user-{user}"}).status_code == 200
        mine = f"user-{user}"
        new = ((place, server.seen[before[place] :]) for place, server in enumerate(servers))
        return {place for place, seen in new if any(each.get("x-user") == mine for each in list(seen))}

    with Traffic(edges, site) as traffic, hosts[0].client() as client:
        for algorithm in ("peak_ewma", "prequal", "round_robin"):
            client.set_policy(service, {"balance": {"algorithm": algorithm}})
            traffic.wait_for(40)
        until("all have their turn", lambda: len(places(1, 40)) == 4)
        client.set_policy(service, {"balance": {"algorithm": "hash", "hash_by": "header", "hash_name": "x-user"}})
        until("each value has its place", lambda: all(len(places(user)) == 1 for user in range(6)))
        assert len(set[int]().union(*(places(user) for user in range(24)))) == 4
        client.set_policy(service, {})
        traffic.wait_for(40)
    traffic.assert_nothing_lost()


def test_limits_hold_at_the_entry_and_at_the_host(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """An instance that takes one at a time: what it has no room for goes to the other host, then nowhere."""
    service = site.partition(".")[0]
    for host in hosts:
        shared.register(host, f"{service}-1.0.1", site, backend(service, "1.0.1"))
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")

    def ask(path: str) -> int:
        return get(edges[0], site, path).status_code

    with hosts[0].client() as client, ThreadPoolExecutor(8) as pool:

        def busy(requests: int) -> list[int]:
            """The statuses of concurrent slow requests, sorted."""
            return sorted(pool.map(ask, ["/?delay=0.7"] * requests))

        client.set_policy(service, {"limits": {"endpoint_in_flight": 1}})
        until("the hosts hold the limit", lambda: busy(4) == [200, 200, 503, 503])
        client.set_policy(service, {"limits": {"in_flight": 3}})
        until("the entry holds the limit", lambda: busy(4) == [200, 200, 200, 503])
        client.set_policy(service, {"limits": {"in_flight": 3, "pending": 5, "pending_timeout_s": 5}})
        until("the others wait", lambda: busy(6) == [200] * 6)


def test_a_bad_setting_is_one_clear_error(shared: Cluster, hosts: list[Node], site: str) -> None:
    service = site.partition(".")[0]
    for words, told in (
        (["--set", "balance.algorithm=fastest"], "balance: algorithm"),
        (["--set", "limits.in_flight=-1"], "limits: in_flight"),
        (["--set", "balance.algorithm=hash", "--set", "balance.hash_by=cookie"], "name the cookie"),
        (["--set", "limits.inflight=1"], "did you mean 'in_flight'"),
    ):
        done = shared.sdlb("policy", "set", service, *words, node=hosts[0])
        assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1, done.stderr
    words = ["--set", "limits.in_flight=7", "--set", "timeout_s=2.5", "--yes"]
    done = shared.sdlb("policy", "set", service, *words, node=hosts[0])
    assert done.returncode == 0 and "limits.in_flight" in done.stdout and "7" in done.stdout, done.stderr
