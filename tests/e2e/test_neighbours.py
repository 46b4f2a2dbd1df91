"""A tree of two neighbouring releases, and the step from one to the other: the last release with protocol 1, and this one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.acts import child
from tests.e2e.backend import Backend
from tests.e2e.cluster import FAST, Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
ROOT = Path(__file__).parents[2]
PREVIOUS = "fadeabf"
SITE = "web.example"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the previous release. The engine is the current one: its protocol with control is the same."""
    try:
        words = ["git", "-C", str(ROOT), "archive", "--format=tar", PREVIOUS, "src"]
        archive = subprocess.run(words, capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"the project's history is not here: git has no commit {PREVIOUS}")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    assert "PROTOCOL_MAX" not in (folder / "src/sdlb/core/messages.py").read_text()  # it speaks protocol 1 alone
    return folder / "src"


def start(cluster: Cluster, previous: Path, old: Sequence[str]) -> tuple[Node, Node, Node]:
    """edge, rack, host; those named in `old` run the previous release. It drops the routes of its only child when its control starts more
    slowly than lease and fence, so both are long."""
    timing = {**FAST, "lease_s": 10.0, "fence_s": 10.0}
    edge = cluster.node("edge", entry=True, start=False, timing=timing)
    rack = cluster.node("rack", [edge], start=False, timing=timing)
    host = cluster.node("host", [rack], start=False, timing=timing)
    for node in (edge, rack, host):
        if node.name in old:
            node.environment = {**node.environment, "PYTHONPATH": str(previous)}
        node.start()
    cluster.wait_ready()
    return edge, rack, host


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("old", ["edge", "rack", "host", "edge host"])
def test_neighbouring_releases_form_a_tree(cluster: Cluster, backend: Make, previous: Path, old: str) -> None:
    """A tree of two neighbouring releases keeps its promises, with the previous one at each place.

    Through an instance, a policy, a compatible and an incompatible version.
    """
    edge, rack, host = start(cluster, previous, old.split())
    one = cluster.register(host, "web-1.0.0", SITE, backend("web", "1.0.0"))
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.0")
    with Traffic([edge], SITE) as traffic:
        with host.client() as client:
            client.set_policy("web", {"priority": "higher"})
        two = cluster.register(host, "web-1.0.1", SITE, backend("web", "1.0.1"))
        cluster.reachable([edge], f"http://{SITE}/", "web-1.0.1")
        for node in (edge, rack, host):
            with node.client() as client:
                until(
                    f"{node.name} has the policy",
                    lambda client=client: client.policy("web").policy["priority"] == "higher",
                )
        new = cluster.register(host, "web-2.0.0", SITE, backend("web", "2.0.0"), wait="waiting")
        until("it says why", lambda: new.get().reason_code == "still-running")
        rack.kill_control()
        rack.start()
        cluster.wait_ready()
        traffic.wait_for(20)
        assert new.get().state == "waiting"
        assert one.deregister().drained
        assert new.get().state == "waiting"
        assert two.deregister().drained
        new.wait("active")
        cluster.reachable([edge], f"http://{SITE}/", "web-2.0.0")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.0", "1.0.1", "2.0.0")
    assert get(edge, SITE, "/").json()["version"] == "2.0.0"


@pytest.mark.promise(3)
@pytest.mark.promise(8)
def test_every_tier_takes_the_next_release_under_traffic(cluster: Cluster, backend: Make, previous: Path) -> None:
    """Controls are upgraded one after another, with the state that the previous release wrote, and nothing is lost."""
    edge, rack, host = start(cluster, previous, ["edge", "rack", "host"])
    old = cluster.register(host, "web-1.0.0", SITE, backend("web", "1.0.0"))
    new = cluster.register(host, "web-2.0.0", SITE, backend("web", "2.0.0"), wait="waiting")
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.0")
    with host.client() as client:
        client.set_policy("web", {"priority": "lower"})
    with Traffic([edge], SITE) as traffic:
        for node in (edge, rack, host):
            node.kill_control()
            node.environment = cluster.environment
            node.start()
            cluster.wait_ready()
            traffic.wait_for(20)
            until("all are connected", lambda: child(edge, "rack").state == child(rack, "host").state == "connected")
            assert (old.get().state, new.get().state) == ("active", "waiting"), node.name
            with host.client() as client:
                assert client.policy("web").policy["priority"] == "lower", node.name
        old.deregister()
        new.wait("active")
        cluster.reachable([edge], f"http://{SITE}/", "web-2.0.0")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.0", "2.0.0")
