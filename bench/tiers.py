"""The cost of a hop between two nodes in addition to the public one: CPU a request of the engines of an edge and a host.

Clients speak HTTPS with the edge; the edge passes requests over a mutual-TLS link to the host; the host forwards them to the backend.
Both engines are real ones under their nodes, with one worker each, on one core; client and backend have the other.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import backend, certificates, load, processes
from bench.certificates import HOST
from bench.client import Client
from bench.report import CannotRun, Report, Row
from bench.stand import version
from sdlb.cli.demo.launch import Launcher, Node, WaitTimeout

SHARE = 0.60


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    load.need("h2load", "openssl", "nginx")
    rounds = 2 if quick else 7
    here, there = processes.cores()
    launcher = Launcher("sdlb-bench-")
    started: list[subprocess.Popen[bytes]] = []
    try:
        server, origin = backend.start(launcher.folder, launcher.ports, there)
        started.append(server)
        processes.listening(server, origin, launcher.folder / "backend.log")
        edge, host = _nodes(launcher)
        _register(edge, host, origin)
        engines = {node.name: node.engine_pids() for node in (edge, host)}
        for pids in engines.values():
            processes.pin(pids, here)
        clients = _clients(launcher.folder, edge, 1 if quick else 3)

        def one(title: str, _: bool) -> tuple[float, ...]:
            before = {name: processes.cpu_s(pids) for name, pids in engines.items()}
            answered, _rate = load.ask(clients[title], title, there)
            return tuple((processes.cpu_s(pids) - before[name]) / answered * 1e6 for name, pids in engines.items())

        took = processes.interleaved([*clients], rounds, one)
    except WaitTimeout as error:
        raise CannotRun(str(error)) from None
    finally:
        processes.end(started)
        launcher.close()
    return _report(took, rounds)


def _nodes(launcher: Launcher) -> tuple[Node, Node]:
    folder = launcher.folder
    certificates.site(folder)
    ca = certificates.nodes(folder, "edge-1", "host-1")
    made: list[Node] = []
    for name in ("edge-1", "host-1"):
        identity: dict[str, object] = {"certificate": str(folder / f"{name}.pem"), "ca": str(ca)}
        node = launcher.node(
            name, made, entry=not made, start=False, identity=identity, engine={"kind": "native", "workers": 1}
        )
        del node.settings[""]["insecure"]
        made.append(node)
    edge, host = made
    edge.settings["listen"]["https"] = f"127.0.0.1:{launcher.ports.take()}"
    edge.settings[""]["site"] = [{"hosts": ["*"], "certificate": str(folder / "site.pem")}]
    edge.start()
    host.start()
    launcher.wait_ready()
    return edge, host


def _register(edge: Node, host: Node, origin: str) -> None:
    body = {"service": "web", "version": "1.0.0", "routes": [f"{HOST}/*"], "endpoint": origin, "ttl_s": 0}
    with Client(host.socket) as client:
        status, content = client.json("PUT", "/v1/instances/web", {**body, "health": {"kind": "none"}})
        if status not in (200, 201):
            raise CannotRun(f"registering was answered {status}: {content}")
    with Client(edge.http) as client:
        processes.until("the edge serves it", lambda: client.ask("GET", "/", HOST)[0] == 200)


def _clients(folder: Path, edge: Node, seconds: int) -> dict[str, list[str]]:
    script, once = load.script(folder / "ask.lua", 1000), load.script(folder / "once.lua", 1000, close=True)
    url = f"https://{edge.https}"
    return {
        "HTTP/1.1 over TLS, 64 connections": load.wrk(script, url, 64, seconds),
        "HTTP/2 over TLS, 8 connections, 32 streams": load.h2load([f"{url}/service-1/x"], seconds),
        "a full handshake and one request": load.wrk(once, url, 16, seconds),
    }


def _report(took: dict[str, list[tuple[float, ...]]], rounds: int) -> Report:
    rows: list[Row] = []
    for title, values in took.items():
        public, between = (processes.median([pair[which] for pair in values]) for which in (0, 1))
        measured = f"{between / public:.2f} x: host {between:.1f} us, edge {public:.1f} us"
        rows.append(Row(title, f"host <= {SHARE:.2f} x edge", measured, between <= SHARE * public))
    how = [
        f"CPU time a request (user and system) of both engines in the same runs; medians of {rounds} in turn. Client: HTTPS to",
        f"the edge; edge to host: mutual TLS; host to backend: HTTP/1.1, {backend.BODY_BYTES} bytes. {version('nginx')}, {version('wrk')}.",
    ]
    return Report(
        "tiers", "a hop between two nodes beside the public one", how, rows, {"edge_host_us_per_request": took}
    )
