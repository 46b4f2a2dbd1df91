"""Orders for a rollout in each of its states: each is carried out, or refused with one line and no change."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.roles import SITE
from tests.releases import release

VERBS = ("pause", "resume", "promote", "abort", "undo")
DIES = "raise SystemExit('no table')\n"
QUICK, SLOW = ("--soak", "0.2", "--drain", "20"), ("--soak", "600", "--drain", "20")


class _Repository:
    """Serves the files of a folder, once `opened` is set."""

    def __init__(self, folder: Path) -> None:
        self.opened = threading.Event()
        opened = self.opened

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                opened.wait(60.0)
                super().do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, node: Node, folder: Path, version: str, program: str = "") -> None:
        body = release(folder, version, program)
        body["artifact"]["any"]["url"] = f"{self.url}catalog-{version}.tar"
        roles.post(node, "/v1/releases", body)

    def close(self) -> None:
        self.opened.set()
        self.server.shutdown()
        self.server.server_close()


def _now(node: Node) -> tuple[object, ...]:
    found = roles.rollout(node)
    return found["id"], found["state"], [(each["id"], each["state"]) for each in found["history"]]


def _refused(node: Node, *orders: str) -> None:
    """With one line that says why, and without any change. An order: a verb, or "VERSION" or "VERSION --supersede" for `start`."""
    before = _now(node)
    for order in orders:
        words = [order, "catalog"] if order in VERBS else ["start", "catalog", *order.split()]
        code, lines = roles.command(node, *words)
        assert (code, len(lines)) == (1, 1), (words, lines)
        assert lines[0].startswith("sdlb rollout: ") and _now(node) == before, (words, lines)


def _done(node: Node, *words: str, state: str) -> None:
    code, lines = roles.command(node, *words)
    assert code == 0, lines
    until(f"the rollout is {state}", lambda: roles.rollout(node)["state"] == state)


@contextlib.contextmanager
def _in_flight(entry: Node) -> Iterator[None]:
    """Requests that are answered slowly, some by each instance, so that no instance is drained before they are cancelled. A program
    notices that within three seconds."""
    url, headers = f"http://{entry.http}/?slow=12000", {"host": SITE}
    with httpx.Client(timeout=90.0, trust_env=False) as client, contextlib.ExitStack() as answers:
        for _ in range(8):
            answers.enter_context(client.stream("GET", url, headers=headers))
        yield


def test_orders_in_every_state_are_carried_out_or_refused_without_a_change(cluster: Cluster) -> None:
    """After an abort, hosts, programs and policy are as before. After a superseded rollout, undo leads to the version that was done."""
    repository = _Repository(cluster.folder)
    try:
        _every_state(cluster, repository)
    finally:
        repository.close()


def _every_state(cluster: Cluster, repository: _Repository) -> None:
    edge = cluster.node("edge", entry=True)
    places = [f"{cluster.folder}/", repository.url]
    hosts = [roles.host(cluster, f"host-{n}", [edge], **{"from": places}) for n in (1, 2)]
    cluster.wait_ready()
    node = hosts[0]
    for verb in VERBS:  # nothing was ever rolled out
        code, lines = roles.command(node, verb, "catalog")
        assert (code, len(lines)) == (1, 1), lines
    roles.deploy(hosts, "1.0.1", soak_s=0.2)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    for version, program in (("1.0.2", ""), ("1.0.3", ""), ("1.0.4", DIES), ("2.5.1", "")):
        repository.add(node, cluster.folder, version, program)
    policy, pids = roles.policy(node), [roles.program(host) for host in hosts]

    _refused(node, *VERBS, "1.0.1", "1.0.1 --supersede", "9.9.9")  # done
    _done(node, "start", "catalog", "1.0.2", *QUICK, state="preparing")
    _refused(node, "resume", "1.0.3", "9.9.9 --supersede")
    _done(node, "pause", "catalog", state="paused")
    _refused(node, "pause", "1.0.3")
    _done(node, "resume", "catalog", state="preparing")
    _done(node, "promote", "catalog", state="preparing")
    _done(node, "start", "catalog", "1.0.3", "--supersede", *QUICK, state="preparing")
    _done(node, "abort", "catalog", state="undone")
    _refused(node, *VERBS, "1.0.1")  # undone
    assert [roles.program(host) for host in hosts] == pids

    repository.opened.set()
    _done(node, "start", "catalog", "1.0.2", *SLOW, state="rolling")
    until("a host verifies it", lambda: [slot["phase"] for slot in roles.rollout(node)["slots"]] == ["verifying"])
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.2")
    _refused(node, "resume", "1.0.3")
    _done(node, "pause", "catalog", state="paused")
    _refused(node, "pause", "1.0.3")
    with _in_flight(edge):
        _done(node, "abort", "catalog", state="undoing")
        _refused(node, *VERBS, "1.0.3", "1.0.3 --supersede")
    roles.wait(node, "undone")
    assert [roles.versions(host) for host in hosts] == [["1.0.1"]] * 2 and roles.policy(node) == policy
    assert sum(roles.program(host) == pid for host, pid in zip(hosts, pids, strict=True)) == 1

    _done(node, "start", "catalog", "1.0.4", *QUICK, state="halted")
    _refused(node, "pause", "promote", "1.0.3")
    _done(node, "resume", "catalog", state="halted")  # tried again, and as broken as before
    _done(node, "undo", "catalog", "--wait", state="undone")
    assert [roles.versions(host) for host in hosts] == [["1.0.1"]] * 2

    _done(node, "start", "catalog", "1.0.2", *SLOW, state="rolling")
    _done(node, "start", "catalog", "1.0.3", "--supersede", *QUICK, "--wait", state="done")
    _, lines = roles.command(node, "undo", "catalog", "--dry-run")
    assert lines[0].startswith("catalog 1.0.3 -> 1.0.1 on 2 nodes") and lines[-1] == "nothing was changed"
    _done(node, "undo", "catalog", "--wait", state="done")
    assert [roles.versions(host) for host in hosts] == [["1.0.1"]] * 2

    with node.client() as client:
        client.set_policy("catalog", {"hold": ["2.5.1"]})
    _done(node, "start", "catalog", "2.5.1", *QUICK, state="rolling")
    until("all wait", lambda: roles.rollout(node)["nodes"]["ready"] == 2 and "hold" in roles.rollout(node)["detail"])
    with _in_flight(edge):
        with node.client() as client:
            client.set_policy("catalog", {})
        until("it cuts over", lambda: roles.rollout(node)["state"] == "cutting-over")
        _refused(node, *VERBS, "1.0.3", "1.0.3 --supersede")
    roles.wait(node)
    assert [roles.versions(host) for host in hosts] == [["2.5.1"]] * 2
