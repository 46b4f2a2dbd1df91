"""`sdlb run`: any program as an instance, from its start to its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sdlb.cli.demo import app
from sdlb.cli.demo.launch import Instance
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() != b""


@pytest.mark.promise(3)
def test_a_program_starts_serves_drains_and_ends(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str
) -> None:
    name = f"{site[:-8]}-1.0.0"
    first, second = (shared.run(host, name, site) for host in hosts)
    for instance in (first, second):
        told = instance.wait("active")
        assert told.pid and told.healthy
    shared.reachable(edges, f"http://{site}/", name)
    (program,) = children(first.process.pid)
    with Traffic(edges, site) as traffic:
        assert first.stop() == 0
        traffic.wait_for(30)
    traffic.assert_nothing_lost()
    assert not alive(program), "the program outlived its runner"
    assert first.registered() is None
    assert second.stop() == 0
    with edges[0].client() as client:
        until("nothing is left at the edge", lambda: not client.explain(f"http://{site}/").targets)


@pytest.mark.promise(3)
def test_a_slow_request_is_waited_for(shared: Cluster, edges: list[Node], hosts: list[Node], site: str) -> None:
    instance = shared.run(hosts[0], f"{site[:-8]}-1.0.0", site)
    instance.wait("active")
    shared.reachable(edges, f"http://{site}/", f"{site[:-8]}-1.0.0")
    bodies: list[bytes] = []
    asking = threading.Thread(target=lambda: bodies.append(get(edges[1], site, "/x?slow=1500").content))
    asking.start()
    time.sleep(0.4)
    begin = time.monotonic()
    assert instance.stop() == 0
    assert time.monotonic() - begin > 0.7, "ended before its request was answered"
    asking.join(10)
    assert b'"target"' in bodies[0]


def test_a_program_that_dies_leaves_the_pool_within_a_second(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str
) -> None:
    name = f"{site[:-8]}-1.0.0"
    dying, staying = (shared.run(host, name, site) for host in hosts)
    for instance in (dying, staying):
        instance.wait("active")
    shared.reachable(edges, f"http://{site}/", name)
    (program,) = children(dying.process.pid)
    os.kill(program, signal.SIGKILL)
    begin = time.monotonic()
    until("the node has forgotten it", lambda: dying.registered() is None, 5, 0.01)
    assert time.monotonic() - begin < 1.5  # noticed at once, by its end; a second for a busy machine
    with Traffic(edges, site) as traffic:
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert dying.process.wait(10) != 0, "the runner tells its program's failure"
    staying.stop()


def test_a_runner_that_is_killed_is_noticed_by_the_end_of_its_program_or_lease(
    shared: Cluster, hosts: list[Node], site: str
) -> None:
    instance = shared.run(hosts[0], f"{site[:-8]}-1.0.0", site, "--ttl", "1.5")
    instance.wait("active")
    (program,) = children(instance.process.pid)
    instance.process.kill()
    instance.process.wait()
    until("its lease has run out", lambda: instance.state() in ("", "drained"), 8)
    if alive(program):
        os.kill(program, signal.SIGKILL)


def test_an_unhealthy_program_is_never_registered(shared: Cluster, hosts: list[Node], site: str) -> None:
    instance = shared.run(
        hosts[0], f"{site[:-8]}-1.0.0", site, "--start-timeout", "1",
        command=[sys.executable, "-c", "import time; time.sleep(60)"],
    )  # fmt: skip
    assert instance.process.wait(15) == 1
    assert instance.registered() is None
    assert "healthy" in instance.tail()


def test_the_end_of_a_program_is_the_end_of_its_runner(shared: Cluster, hosts: list[Node], site: str) -> None:
    program = [sys.executable, "-c", "raise SystemExit(7)"]
    assert shared.run(hosts[0], f"{site[:-8]}-1.0.0", site, command=program).process.wait(15) == 7


def test_a_program_runs_through_a_restart_of_its_nodes_control(cluster: Cluster) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    instance: Instance = cluster.run(host, "web-1.0.0", "web.example", "--ttl", "3")
    instance.wait("active")
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    with Traffic([edge], "web.example") as traffic:
        host.kill_control()
        time.sleep(1.0)
        host.start()
        host.wait_ready()
        until("renewed", lambda: instance.state() == "active")
        time.sleep(4.0)
        assert instance.state() == "active", "its lease is kept after the restart"
    traffic.assert_nothing_lost()
    assert instance.stop() == 0


def test_a_failing_health_check_removes_an_instance_until_it_passes(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, tmp_path: Path
) -> None:
    """`/health` fails while the file is there: the instance gets no requests, its process keeps running, and it returns automatically."""
    mark = tmp_path / "unwell"
    source = Path(app.__file__).read_text()
    unwell = f"status = b'503 Unwell' if request.target == '/health' and os.path.exists({str(mark)!r}) else "
    program = tmp_path / "app.py"
    assert source.count('status = b"200 OK" if') == 1
    program.write_text(source.replace('status = b"200 OK" if', unwell + 'b"200 OK" if'))
    name = f"{site[:-8]}-1.0.0"
    words = [sys.executable, "-I", str(program), "--service", site[:-8], "--version", "1.0.0", "--instance", "a"]
    instance = shared.run(hosts[0], name, site, command=words)
    instance.wait("active")
    shared.reachable(edges, f"http://{site}/", name)
    mark.touch()
    instance.wait("unhealthy", 12)
    mark.unlink()
    instance.wait("active", 12)
    assert instance.stop() == 0


APP = """
import os, socket, sys, http.server as h
class H(h.BaseHTTPRequestHandler):
    def do_GET(self):
        well = self.path != "/health" or self.headers["host"] == "app.example"
        self.send_response(204 if well and self.path == "/health" else 200 if well else 421)
        self.send_header("content-length", "0" if self.path == "/health" else "2"); self.end_headers()
        if self.path != "/health": self.wfile.write(b"hi")
    def address_string(self): return "unix"
    def log_message(self, *a): pass
class S(h.HTTPServer):
    address_family = getattr(socket, sys.argv[1])
    def server_bind(self):
        self.socket.bind(self.server_address); self.server_name, self.server_port = "app", 0
S(eval(sys.argv[2]), H).serve_forever()
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "::1"], ["AF_INET6", "('::1', int(os.environ['PORT']))"]),
        (["--unix"], ["AF_UNIX", "os.environ['SOCKET']"]),
        (["--unix", "{folder}/own.sock"], ["AF_UNIX", "'{socket}'"]),
    ],
    ids=["::1", "unix", "unix at a path"],
)
def test_programs_on_other_addresses(cluster: Cluster, options: list[str], words: list[str]) -> None:
    ((edge,),) = cluster.tiers(1)
    options = [each.format(folder=cluster.folder) for each in options]
    checks = [
        "--health",
        "/health",
        "--health-host",
        "app.example",
        "--health-status",
        "204",
        "--health-interval",
        "0.2",
    ]
    program = [sys.executable, "-c", APP, *words]
    instance = cluster.run(edge, "app-1.0.0", "app.example", *options, *checks, command=program)
    told = instance.wait("active")
    assert told.endpoint.startswith("[::1]:" if "::1" in options else "unix:/")
    assert (told.health.host, told.health.status, told.health.interval_s) == ("app.example", "204", 0.2)
    assert get(edge, "app.example", "/").text == "hi"
    assert instance.stop() == 0
    if options == ["--unix"]:
        assert not os.path.exists(os.path.dirname(told.endpoint[5:])), "its folder goes with it"
