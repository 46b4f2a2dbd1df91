"""Gates and cut-overs with real nodes: approvals, windows, migrations in the gap, flips, and routes that change hands."""

from __future__ import annotations

import getpass
import signal
import struct
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdlb.model.gate import DAYS
from tests.e2e.acts import codes, halted
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, Registration, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
SITE = "example.com"
SIGN: dict[str, object] = {"name": "sign-off", "kind": "approval", "by": [getpass.getuser()]}
OLD, NEW = "1.0.2", "2.5.1"
PARK: dict[str, object] = {"timeout_s": 60.0, "requests_max": 1000}


def both(
    cluster: Cluster, edges: list[Node], hosts: list[Node], backend: Make, **policy: object
) -> tuple[list[Registration], list[Registration]]:
    """The old version is active on all hosts, and the new one is registered."""
    with hosts[0].client() as client:
        client.set_policy("catalog", {"park": PARK, **policy})
    old = [cluster.register(host, f"catalog-{OLD}", SITE, backend("catalog", OLD)) for host in hosts]
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{OLD}")
    return old, [cluster.register(host, f"catalog-{NEW}", SITE, backend("catalog", NEW), wait="") for host in hosts]


def gate(node: Node, name: str) -> dict[str, Any]:
    with node.client() as client:
        opening = client.service("catalog").services[0].opening
    waits = opening.versions.get(NEW) if opening is not None else None
    found = [each.to_dict() for each in waits.gates if each.name == name] if waits is not None else []
    return found[0] if found else {}


def phase(node: Node) -> str:
    with node.client() as client:
        opening = client.service("catalog").services[0].opening
    return opening.phase if opening is not None else ""


def conductor(node: Node) -> str:
    with node.client() as client:
        opening = client.service("catalog").services[0].opening
    return opening.conductor if opening is not None else ""


def all_active(new: list[Registration], timeout_s: float = 30.0) -> None:
    for each in new:
        each.wait("active", timeout_s)


def approve(cluster: Cluster, node: Node) -> None:
    until("the gate is evaluated", lambda: gate(node, "sign-off"))
    done = cluster.sdlb("rollout", "approve", "catalog", NEW, node=node)
    assert done.returncode == 0, done.stderr


def add_hook(node: Node, *command: str) -> None:
    """To the node file of a running node."""
    node.settings["hook.migrate"] = {"command": list(command)}
    node.write_config()
    before = codes(node).count("config-changed")
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    until(f"{node.name} has reloaded its file", lambda: codes(node).count("config-changed") > before)


MIGRATE = """
import fcntl, os, sys, time
folder, seconds = sys.argv[1], float(sys.argv[2])
key = os.environ["SDLB_KEY"]
with open(folder + "/started", "a") as file:
    file.write(key + "\\n")
with open(folder + "/database", "a+") as database:
    fcntl.flock(database, fcntl.LOCK_EX)
    database.seek(0)
    if key in database.read().split():
        sys.exit(0)
    time.sleep(seconds)
    database.write(key + "\\n")
print("migrated to", os.environ["SDLB_VERSION"], "from", os.environ["SDLB_REPLACES"])
"""


def migration(folder: Path, text: str = MIGRATE) -> Path:
    file = folder / "migrate.py"
    file.write_text(textwrap.dedent(text))
    return file


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


# ---------------------------------------------------------------------- approval and window


def zone_at(second: float) -> bytes:
    """A time zone file (RFC 8536, version 1) in which it is now this many seconds after midnight."""
    offset = round(second - time.time() % 86400)
    head = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 5)
    return head + struct.pack(">lBB", offset, 0, 0) + b"TEST\0"


@pytest.mark.promise(2)
def test_approval_and_window_both_have_to_hold(cluster: Cluster, backend: Make, tmp_path: Path) -> None:
    """A version waits for an approval and a window, and a restart of all nodes outside of the window opens it again."""
    (tmp_path / "Test").mkdir()
    (tmp_path / "Test" / "Soon").write_bytes(zone_at(9 * 3600 - 25))  # nine o'clock is in 25 s
    opens_at = time.monotonic() + 25
    cluster.environment["PYTHONTZPATH"] = f"{tmp_path}:/usr/share/zoneinfo"
    edges, hosts = cluster.tiers(2, 2)
    sign = {"name": "sign-off", "kind": "approval", "by": ["operator-a", "release-bot"]}
    window = {"name": "office", "kind": "window", "hours": "09:00-16:00", "zone": "Test/Soon"}
    old, new = both(cluster, edges, hosts, backend, gate=[sign, window], cut_over="flip")
    until("the gates are evaluated", lambda: gate(hosts[1], "sign-off"))
    with Traffic(edges, SITE, threads=2) as traffic:
        refused = cluster.sdlb("rollout", "approve", "catalog", NEW, "--as", "operator-b", node=hosts[1])
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "operator-b may not approve gate sign-off of catalog; operator-a and release-bot may" in refused.stderr
        done = cluster.sdlb("rollout", "approve", "catalog", NEW, "--as", "operator-a", node=hosts[1])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"operator-a approved gate sign-off of catalog-{NEW} (recorded by edge-")
        until("it is approved", lambda: gate(hosts[0], "sign-off").get("state") == "open")
        assert list(gate(hosts[0], "sign-off")["by"]) == ["operator-a"]
        assert time.monotonic() < opens_at, "the machine is too slow for this test"
        found = gate(edges[0], "office")
        assert found["state"] == "waiting" and "09:00 to 16:00 (Test/Soon)" in found["reason"]
        shown = cluster.sdlb("status", "catalog", node=hosts[0]).stdout
        assert f"catalog  {NEW}  gate sign-off  open by operator-a" in shown
        assert f"catalog  {NEW}  gate office  waiting" in shown
        assert all(each.get().state == "active" for each in old)
        all_active(new, 60)
        assert time.monotonic() >= opens_at - 1
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    told = [code for edge in edges for code in codes(edge)]
    assert {"gate-approved", "gate-opened", "cutover-closing", "cutover-opened"} <= set(told)

    day = DAYS[(time.gmtime().tm_wday + 3) % 7]
    with edges[0].client() as client:
        client.set_policy("catalog", {"park": PARK, "gate": [sign, {**window, "days": [day]}], "cut_over": "flip"})
    for node in (*edges, *hosts):
        node.kill()
    for node in (*edges, *hosts):
        node.start()
    cluster.wait_ready()
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{NEW}")
    with Traffic(edges, SITE, threads=2) as traffic:
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {NEW}


# ---------------------------------------------------------------------- flips


@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_a_flip_under_traffic_loses_nothing_and_no_version_overlaps(cluster: Cluster, backend: Make) -> None:
    """A flip through racks with two edges loses no request, and no answer of the old version follows one of the new."""
    edges, _, hosts = cluster.tiers(2, 2, 2)
    old, new = both(cluster, edges, hosts, backend, cut_over="flip", gate=[SIGN])
    with Traffic(edges, SITE, threads=6) as traffic:
        traffic.wait_for(100)
        approve(cluster, hosts[0])
        all_active(new)
        traffic.wait_for(100)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    for edge in edges:
        assert set(traffic.count(lambda got, edge=edge: got.entry == edge.name)) == {OLD, NEW}
    assert {each.get().state for each in old} == {"waiting"}


@pytest.mark.promise(3)
def test_an_old_version_that_was_replaced_comes_back_when_it_is_promoted(cluster: Cluster, backend: Make) -> None:
    """Versions flip back and forth, each time without a lost request."""
    edges, hosts = cluster.tiers(1, 2)
    versions = dict(zip((OLD, NEW), both(cluster, edges, hosts, backend, cut_over="flip"), strict=True))
    all_active(versions[NEW])
    with Traffic(edges, SITE, threads=3) as traffic:
        for wanted in (OLD, NEW, OLD):
            traffic.wait_for(20)
            until("it waits", lambda wanted=wanted: versions[wanted][0].get().state == "waiting")
            done = cluster.sdlb("rollout", "promote", "catalog", wanted, node=hosts[0])
            assert done.returncode == 0, done.stderr
            all_active(versions[wanted])
            moment = time.monotonic()
            traffic.wait_for(20)
            assert set(traffic.since(moment)) == {wanted}
    traffic.assert_nothing_lost()


# ---------------------------------------------------------------------- hooks


def test_a_hook_that_no_node_file_has_is_named_and_may_be_added_later(
    cluster: Cluster, backend: Make, tmp_path: Path
) -> None:
    ((node,),) = cluster.tiers(1)
    hook = {"name": "migrate", "kind": "hook", "run": "migrate", "at": "gap", "timeout_s": 60}
    _, new = both(cluster, [node], [node], backend, cut_over="flip", gate=[hook])
    wanted = f"{node.config} has no table [hook.migrate]"
    until("the hook is reported", lambda: wanted in gate(node, "migrate").get("reason", ""))
    add_hook(node, sys.executable, str(migration(tmp_path)), str(tmp_path), "0")
    all_active(new)
    (key,) = lines(tmp_path / "database")
    assert key.startswith(f"catalog/{NEW}/")


@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_migration_in_the_gap_runs_once_though_control_is_killed_or_restarted(
    cluster: Cluster, backend: Make, tmp_path: Path, how: str
) -> None:
    """Control of the only root is killed or restarted during the migration, which goes on. Requests are parked until it is done."""
    edges, _, hosts = cluster.tiers(1, 1, 2)
    add_hook(edges[0], sys.executable, str(migration(tmp_path)), str(tmp_path), "4")
    hook = {"name": "migrate", "kind": "hook", "run": "migrate", "at": "gap", "back": False}
    _, new = both(cluster, edges, hosts, backend, cut_over="flip", gate=[SIGN, hook])
    with Traffic(edges, SITE, threads=4) as traffic:
        approve(cluster, hosts[0])
        until("the migration runs", lambda: lines(tmp_path / "started"))
        if how == "killed":
            edges[0].kill_control()
            edges[0].start()
            assert not lines(tmp_path / "database")
        else:
            assert cluster.sdlb("node", "restart", node=edges[0]).returncode == 0
        all_active(new)
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    (key,) = lines(tmp_path / "database")
    assert set(lines(tmp_path / "started")) == {key}


@pytest.mark.promise(3)
def test_another_root_finishes_the_migration_of_one_that_is_lost(
    cluster: Cluster, backend: Make, tmp_path: Path
) -> None:
    """The root that conducts is lost in the gap, after a hook that cannot be undone: the other root goes on with the same key."""
    edges, hosts = cluster.tiers(2, 2)
    for edge in edges:
        add_hook(edge, sys.executable, str(migration(tmp_path)), str(tmp_path), "4")
    hook = {"name": "migrate", "kind": "hook", "run": "migrate", "at": "gap", "back": False}
    _, new = both(cluster, edges, hosts, backend, cut_over="flip", gate=[SIGN, hook])
    until("the gates are evaluated", lambda: gate(hosts[0], "sign-off"))
    first = cluster.nodes[conductor(hosts[0])]
    other = next(edge for edge in edges if edge is not first)
    with Traffic([other], SITE, threads=3) as traffic:
        approve(cluster, hosts[0])
        until("the migration runs", lambda: lines(tmp_path / "started"))
        first.kill()
        assert not lines(tmp_path / "database")
        all_active(new, 60)
        traffic.wait_for(20)
        first.start()
        first.wait_ready()
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    (key,) = lines(tmp_path / "database")
    assert lines(tmp_path / "started") == [key, key]


@pytest.mark.promise(3)
def test_a_failing_migration_opens_the_old_version_again(cluster: Cluster, backend: Make, tmp_path: Path) -> None:
    """A gap hook that fails reverts the flip: parked requests get the old version. A promotion tries again."""
    edges, hosts = cluster.tiers(2, 2)
    failing = migration(tmp_path, "print('no such table: \\x1b[31mitems'); raise SystemExit(3)")
    for edge in edges:
        add_hook(edge, sys.executable, str(failing), str(tmp_path), "0")
    hook = {"name": "migrate", "kind": "hook", "run": "migrate", "at": "gap"}
    old, new = both(cluster, edges, hosts, backend, cut_over="flip", gate=[SIGN, hook])
    with Traffic(edges, SITE, threads=4) as traffic:
        approve(cluster, hosts[0])
        until("it is reverted", lambda: phase(hosts[0]) == "reverted")
        all_active(old)
        moment = time.monotonic()
        traffic.wait_for(40)
        assert set(traffic.since(moment)) == {OLD}
        found = gate(hosts[0], "migrate")
        assert found["state"] == "refused" and found["reason"].endswith("code 3: no such table:  [31mitems")
        shown = cluster.sdlb("status", "catalog", node=hosts[0]).stdout
        assert f"catalog  cut-over to {NEW}  reverted: gate migrate:" in shown
        assert "cutover-reverted" in [code for edge in edges for code in codes(edge)]
        migration(tmp_path)
        done = cluster.sdlb("rollout", "promote", "catalog", NEW, "--json", node=hosts[1])
        assert done.returncode == 0, done.stderr
        all_active(new)
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    assert len(lines(tmp_path / "database")) == 1


@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_stopped_by_hand_the_last_old_instance_makes_the_gap(cluster: Cluster, backend: Make, tmp_path: Path) -> None:
    """Without a flip, the new version waits for the last old instance; then the migration runs, and only then it opens."""
    edges, _, hosts = cluster.tiers(2, 2, 2)
    for edge in edges:
        add_hook(edge, sys.executable, str(migration(tmp_path)), str(tmp_path), "0.5")
    hook = {"name": "migrate", "kind": "hook", "run": "migrate", "at": "gap"}
    old, new = both(cluster, edges, hosts, backend, gate=[hook])
    for each in new:
        until("it waits", lambda each=each: each.get().state == "waiting")
    with Traffic(edges, SITE, threads=6) as traffic:
        traffic.wait_for(60)
        old[0].deregister()
        until("one is left", lambda: f"{OLD} still has 1 instance on host-2" in new[0].get().reason)
        moment = time.monotonic()
        traffic.wait_for(60)
        assert set(traffic.since(moment)) == {OLD}
        assert not lines(tmp_path / "started")
        old[1].deregister()
        all_active(new)
        traffic.wait_for(60)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(OLD, NEW)
    assert len(lines(tmp_path / "database")) == 1


# ---------------------------------------------------------------------- routes that change hands


@pytest.mark.promise(3)
def test_a_route_is_transferred_under_traffic(cluster: Cluster, backend: Make) -> None:
    """A route goes from one service to another without a lost request, and no answer of the first follows one of the second."""
    edges, _, hosts = cluster.tiers(2, 1, 2)
    for name in ("catalog", "shop"):
        with hosts[0].client() as client:
            client.set_policy(name, {"park": PARK})
    first = [cluster.register(host, f"catalog-{OLD}", SITE, backend("catalog", OLD)) for host in hosts]
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{OLD}")
    second = [cluster.register(host, "shop-1.0.0", SITE, backend("shop", "1.0.0"), wait="refused") for host in hosts]
    words = ("route", "transfer", SITE, "--to", "shop")
    with Traffic(edges, SITE, threads=4) as traffic:
        traffic.wait_for(40)
        with halted(edges[1]):
            done = cluster.sdlb(*words, node=hosts[0])
        assert (done.returncode, done.stdout) == (1, "")
        assert "needs an answer of every root, and edge-2 gave none; nothing was changed" in done.stderr
        moment = time.monotonic()
        traffic.wait_for(40)
        assert set(traffic.since(moment)) == {OLD}
        cluster.wait_ready()
        done = cluster.sdlb(*words, node=hosts[0])
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"transferred {SITE}/* to shop (recorded by edge-1, edge-2)\n")
        all_active(second)
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    finished = max(got.answer.finished_ns for got in traffic.results if got.answer.service == "catalog")
    assert finished <= min(got.answer.received_ns for got in traffic.results if got.answer.service == "shop")
    assert {each.get().state for each in first} == {"refused"}
    again = cluster.sdlb(*words, node=hosts[0])
    assert (again.returncode, again.stderr) == (1, f"sdlb route: shop holds {SITE}/* already\n")
