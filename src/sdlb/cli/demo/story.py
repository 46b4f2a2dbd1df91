"""The story that `sdlb demo` plays: one method a phase, in order. Every wait is bounded; a phase that
cannot continue raises WaitTimeout.

Registering, draining, configuration changes, a killed control and a node that joins or leaves lose no request. A killed
node loses what is in flight through it: the entry retries elsewhere when that is safe (GET and similar), but not a POST
that may have been processed or a response that has begun. So the load is only short GETs while the middle node is
killed, and the output mentions this.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdlb.cli.demo.launch import APP, Instance, Launcher, Node, WaitTimeout, until
from sdlb.cli.demo.load import HOST
from sdlb.cli.demo.screen import Screen
from sdlb.cli.demo.traffic import Traffic, TrafficStats

CATALOG_ROUTE = f"{HOST}/catalog*"
SEARCH_ROUTE = f"{HOST}/catalog/search*"
OLD, NEW, CANARY, NEXT = "1.0.1", "1.0.2", "1.0.3", "2.5.1"
RATE = 300.0
CANARY_PERCENT = 10
SOAK_S = 1.0
TIMING: dict[str, object] = {"beat_s": 1.0, "lease_s": 5.0, "fence_s": 5.0}
"""Half of the defaults: a root that has just started waits a lease for the reports of its nodes."""
EDGES, RACKS, HOSTS = 2, 2, 4


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    title: str
    play: Callable[[], None]


class Story:
    """`engines`: of the nodes of each tier, in turn."""

    def __init__(self, launcher: Launcher, screen: Screen, engines: Sequence[str] = ("native",)) -> None:
        self._launcher, self._screen = launcher, screen
        self.edges = [launcher.node(f"edge-{n + 1}", entry=True, start=False, timing=TIMING) for n in range(EDGES)]
        self.racks = [launcher.node(f"rack-{n + 1}", self.edges, start=False, timing=TIMING) for n in range(RACKS)]
        self.hosts = [self._host(f"host-{n + 1}") for n in range(HOSTS)]
        for tier in (self.edges, self.racks, self.hosts):
            for n, node in enumerate(tier):
                node.settings[""]["engine"] = engines[n % len(engines)]
        self._running: dict[tuple[str, str], list[Instance]] = {}
        self._traffic: Traffic | None = None
        self.phases = (
            Phase("start", f"catalog-{OLD} starts on each of the four hosts", self._start),
            Phase("rolling", f"rollout of {NEW}, host by host; priority: higher", self._rolling),
            Phase(
                "canary", f"{CANARY} as a canary with {CANARY_PERCENT} % of the requests, then withdrawn", self._canary
            ),
            Phase(
                "incompatible", f"{NEXT} is incompatible: it waits beside {NEW}, then a cut-over", self._incompatible
            ),
            Phase("second-service", f"a second service on the longer route {SEARCH_ROUTE}", self._second_service),
            Phase("conflict", "another service claims the same route", self._conflict),
            Phase("kill-control", "kill -9 of edge-1's control", self._kill_control),
            Phase("kill-node", "kill -9 of rack-1, control and engine", self._kill_node),
        )

    @property
    def traffic(self) -> Traffic:
        assert self._traffic is not None
        return self._traffic

    @property
    def stats(self) -> TrafficStats:
        """Up to now."""
        return self._traffic.stats if self._traffic is not None else TrafficStats()

    def calm(self) -> None:
        """The demo failed: requests that fail because the nodes stop do not count as lost."""
        if self._traffic is not None:
            with contextlib.suppress(WaitTimeout):
                self._traffic.send(0)

    def build(self) -> None:
        """All nodes up and linked, the load generator ready."""
        nodes = [*self.edges, *self.racks, *self.hosts]
        for node in nodes:
            node.start()
        self._traffic = Traffic(
            self._launcher, [edge.http for edge in self.edges], self._screen.stats, self._screen.failure
        )
        self._launcher.wait_ready(nodes)

    # ------------------------------------------------------------- phases

    def _start(self) -> None:
        self.traffic.start("catalog", OLD)
        self._roll_out(OLD)
        self._at_edges("/catalog/items", "catalog", OLD)
        self.traffic.expect("catalog", "catalog")
        self.traffic.send(RATE)
        self._screen.note(
            f"all active; traffic starts: {RATE:.0f} requests a second over both edges, GET and POST, some slow"
        )
        time.sleep(2.5)

    def _rolling(self) -> None:
        with self.hosts[-1].client() as client:  # every node forwards this call to the roots
            client.set_policy("catalog", {"priority": "higher"})
        self.traffic.start("catalog", NEW)
        self._roll_out(NEW)
        self.traffic.end("catalog", OLD)
        time.sleep(0.5)

    def _canary(self) -> None:
        with self.hosts[0].client() as client:
            client.set_policy("catalog", {"priority": "share", "shares": {CANARY: CANARY_PERCENT}})
        self.traffic.start("catalog", CANARY)
        self._launch("catalog", CANARY, CATALOG_ROUTE, [self.hosts[0]])
        self._at_edges("/catalog/items", "catalog", CANARY)
        before = self.traffic.stats.by_version("canary")
        time.sleep(4.0)
        after = self.traffic.stats.by_version("canary")
        counts = {name: after[name] - before.get(name, 0) for name in after}
        got, every = counts.get(f"catalog-{CANARY}", 0), sum(counts.values()) or 1
        self._screen.note(f"measured: {100 * got / every:.1f} % of {every:,} requests; the canary is withdrawn")
        self._end(*self._running["catalog", CANARY])
        self.traffic.end("catalog", CANARY)
        with self.hosts[0].client() as client:
            client.set_policy("catalog", {"priority": "even"})

    def _incompatible(self) -> None:
        waited = self._waited("incompatible")
        self.traffic.start("catalog", NEXT)
        self._roll_out(NEXT)
        self.traffic.end("catalog", NEW)
        self._at_edges("/catalog/items", "catalog", NEXT)
        time.sleep(0.5)
        parked = self._waited("incompatible") - waited
        self._screen.note(f"the last {NEW} has stopped, {NEXT} serves; {parked} requests were parked in between")
        time.sleep(1.0)

    def _second_service(self) -> None:
        self.traffic.expect("search", "catalog")
        time.sleep(0.7)
        self._screen.note("catalog answers /catalog/search, because no service claims a more specific route")
        self.traffic.expect("search", "catalog", "search")
        self.traffic.start("search", "1.0.0")
        self._launch("search", "1.0.0", SEARCH_ROUTE, self.hosts[1:3])
        self._at_edges("/catalog/search", "search", "1.0.0")
        # An engine carries a decision out a moment after control shows it.
        until("search answers", lambda: all(_answering(edge, "/catalog/search") == "search" for edge in self.edges))
        self.traffic.expect("search", "search")
        with self.edges[0].client() as client:
            route = next(route for route in client.routes().routes if route.route == SEARCH_ROUTE)
        self._screen.note(f"search-1.0.0 active: {route.route} shadows {', '.join(route.shadows)} where it matches")
        time.sleep(1.2)

    def _conflict(self) -> None:
        bargains = self._launcher.run(self.hosts[3], "bargains-1.0.0", CATALOG_ROUTE)
        until(
            "the claim of bargains refused",
            lambda: bargains.process.poll() is not None or bargains.state() == "refused",
        )
        found = bargains.registered()
        self._screen.note(f"bargains-1.0.0 refused: {found.reason if found is not None else bargains.tail(1)}")
        time.sleep(0.7)
        bargains.stop()

    def _kill_control(self) -> None:
        edge = self.edges[0]
        engines = edge.engine_pids()
        edge.kill_control()
        self._screen.note("edge-1 has no control; its engine keeps serving")
        time.sleep(1.0)
        edge.start()
        edge.wait_ready()
        same = edge.engine_pids() == engines and bool(engines)
        self._screen.note(f"control is back{' and attached to the same engine' if same else ', with a new engine'}")
        time.sleep(0.5)

    def _kill_node(self) -> None:
        rack = self.racks[0]
        self._screen.note(
            "GETs only in this phase: of the requests in flight at a killed node only safe ones can be retried"
        )
        rack.kill()
        self._screen.note("rack-1 is gone; all traffic goes through rack-2")
        time.sleep(1.5)
        rack.start()
        rack.wait_ready()
        until("rack-1 in use again", lambda: all(self._reaches(edge, rack) for edge in self.edges))
        self._screen.note("rack-1 is back and gets traffic")
        time.sleep(1.0)

    # ------------------------------------------------------------- what the phases share

    def play(self) -> None:
        for number, phase in enumerate(self.phases, 1):
            if phase.name == "kill-node":  # what was sent before must be through when the node is killed
                self.traffic.send(RATE, posts=False, slow=False)
                time.sleep(0.6)
            self.traffic.phase(phase.name)
            self._screen.phase(number, phase.title)
            phase.play()

    def _host(self, name: str) -> Node:
        """A node that runs catalog itself, as a role."""
        catalog: dict[str, object] = {
            "driver": "process",
            "routes": [CATALOG_ROUTE],
            "command": [
                *(sys.executable, "-I", "-S", str(APP)),
                *("--service", "catalog", "--version", "{version}", "--instance", name),
            ],
            "health": {"kind": "http", "path": "/health", "interval_s": 0.5},
        }
        node = self._launcher.node(name, self.racks, start=False, timing=TIMING)
        node.settings["role.web.catalog"] = catalog
        node.settings[""]["roles"] = ["web"]
        return node

    def _roll_out(self, version: str) -> None:
        """A rollout by the API of any node, as `sdlb rollout start` does it. Returns when it is done, and notes its steps."""
        with self.hosts[-1].client() as client:
            client.add_release({"service": "catalog", "version": version})
            client.start_rollout("catalog", version, {"soak_s": SOAK_S})
            seen = ""

            def done() -> bool:
                nonlocal seen
                now = client.rollout("catalog")
                if now.state in ("halted", "undone", "superseded"):
                    raise WaitTimeout(f"rollout {now.id} of {version} is {now.state}: {now.detail}")
                text = f"{now.id} to {version} is {now.state}: {now.nodes.done} of {now.nodes.all} nodes done"
                if text != seen and now.to == version:
                    self._screen.note(text)
                    seen = text
                return now.to == version and now.state == "done"

            until(f"the rollout of {version} done", done, 60.0)

    def _launch(
        self, service: str, version: str, route: str, hosts: list[Node], state: str = "active"
    ) -> list[Instance]:
        """One instance on each of the hosts; returns when each has the state."""
        started = [self._launcher.run(host, f"{service}-{version}", route) for host in hosts]
        self._running.setdefault((service, version), []).extend(started)
        for instance in started:
            instance.wait(state)
        return started

    def _end(self, *instances: Instance) -> None:
        for instance in instances:
            code = instance.stop()
            if code != 0:
                raise WaitTimeout(f"{instance.name} on {instance.node.name} exited with code {code}: {instance.tail()}")

    def _at_edges(self, path: str, service: str, version: str) -> None:
        """Until both edges would send a request for the path to this version."""

        def seen() -> bool:
            for edge in self.edges:
                with edge.client() as client:
                    explanation = client.explain(f"http://{HOST}{path}")
                if explanation.service != service or not any(
                    t.version == version and t.capacity for t in explanation.targets
                ):
                    return False
            return True

        until(f"{service}-{version} reachable from both edges", seen)

    def _reaches(self, edge: Node, rack: Node) -> bool:
        with edge.client() as client:
            targets = client.explain(f"http://{HOST}/catalog/items").targets
        return any(target.chosen and target.name == f"n:{rack.name}" for target in targets)

    def _waited(self, phase: str) -> int:
        return self.traffic.stats.phases.get(phase, {}).get("waited", 0)


def _answering(edge: Node, path: str) -> str:
    """The service that answers a request at this edge now; "" for an error."""
    host, _, port = edge.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10.0)
    try:
        connection.request("GET", path, headers={"Host": HOST})
        response = connection.getresponse()
        return str(json.loads(response.read())["service"]) if response.status == 200 else ""
    finally:
        connection.close()
