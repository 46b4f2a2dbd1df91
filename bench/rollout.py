"""What a rollout costs at its root: the messages for each host, and a redraw of `sdlb rollout status --watch`.

    python -m bench.rollout [--json]

Messages are counted in the simulator, with 40 hosts, without heartbeats: hosts that are children of the root, and hosts below four
racks. A redraw is the two reads of the API at a root with 1,000 children, their JSON, and the lines on the terminal. "at most" is
the project's limit; a row above its limit makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from random import Random
from typing import Any

import msgspec

from sdlb.cli.rollout_status import block
from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import Beat, Claim, ClaimKey, Hello, Stage, UpState
from sdlb.core.settings import Settings
from sdlb.model.rollout import PREPARED, TAKE, RoleReport, RolloutSpec, SlotAsk, SlotReport, ask_body, report_body
from sdlb.node import schema_rollouts as schema
from sdlb.node.answers import shaped
from sdlb.sdk.rollout_types import Rollout
from sdlb.sim.check import Check
from sdlb.sim.host import Host
from sdlb.sim.stage import Stage as Play
from sdlb.sim.topology import Shape
from sdlb.sim.world import World

ROUTE = "example.com/catalog*"
OLD = ClaimKey("catalog", "1.0.1", ROUTE)
CHILDREN, HOSTS, RACKS = 1000, 40, 4
Row = tuple[str, float, str, float]


class Root:
    """With children that are hosts, each of which runs the service, in the middle of a rollout."""

    def __init__(self, hosts: int) -> None:
        self.now = 1000.0
        self.balancer = Balancer(Settings("root", "root-id", 1, (), nonce="n"), {}, Random(1))
        self.seq: dict[int, int] = {}
        self.balancer.start(self.now, self.now)
        self.handle(ev.EngineAttached("boot", 0, 0))
        for number in range(1, hosts + 1):
            address = f"10.0.{number >> 8}.{number & 255}:80"
            hello = Hello(f"host-{number}", f"id-{number}", 1, address, 0, nonce=f"n-{number}")
            self.handle(ev.ChildConnected(number, hello))
            claim = Claim(OLD, capacity=100, count=1, hosts=(f"host-{number}",), stage=Stage.WAITING, lease_s=10)
            self.send(number, claims=(claim,), reports=(("catalog", report_body(RoleReport(nodes=1, ready=100))),))
        self.now += 20.0
        self.handle(ev.Tick())
        for version in ("1.0.1", "1.0.2"):
            body = json.dumps({"service": "catalog", "version": version}).encode()
            self.handle(ev.ReleasePut(f"catalog-{version}", body, "ann"))
        order = ev.RolloutOrder("catalog", "start", "ann", "1.0.2", RolloutSpec(first=100))
        why = self.balancer.view.rollout_objection(order)
        assert not why, why
        self.handle(order)
        for number in range(1, hosts + 1):
            self.report(number, PREPARED)
        self.now += 1.0
        self.handle(ev.Tick())
        for number in range(1, hosts // 10 + 1):
            ask = SlotAsk("catalog", "r-1", 1, f"host-{number}", TAKE, 100)
            self.handle(ev.AskUp(f"a-{number}", "POST", "/v1/rollouts/slot", ask_body(ask)))
            self.report(number, "draining")

    def handle(self, *events: ev.Event) -> None:
        self.balancer.handle_all(events, self.now, self.now)

    def send(self, number: int, **fields: Any) -> None:
        self.seq[number] = self.seq.get(number, 0) + 1
        self.handle(ev.ChildMessage(number, UpState(self.seq[number], self.seq[number] == 1, **fields)))

    def report(self, number: int, phase: str) -> None:
        slots = (SlotReport(f"host-{number}", "r-1", phase, 100, "2 in flight"),) if phase != PREPARED else ()
        found = RoleReport(nodes=1, ready=0 if slots else 100, counts={f"r-1 {phase}": 1}, slots=slots)
        self.send(number, reports=(("catalog", report_body(found)),))

    def redraw(self) -> float:
        """Milliseconds."""
        started = time.perf_counter()
        view = self.balancer.view
        body = msgspec.json.encode(shaped(schema.Rollout, view.rollout("catalog")))
        msgspec.json.decode(msgspec.json.encode(view.service("catalog")))
        lines = [str(line) for line in block(msgspec.json.decode(body, type=Rollout), None, self.now)]
        assert lines
        return (time.perf_counter() - started) * 1000


class Messages(Check):
    """To and from the root, without heartbeats."""

    count = 0

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        if host.name == "root":
            self.count += sum(isinstance(e, ev.ChildMessage) and not isinstance(e.message, Beat) for e in events)

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        if host.name == "root":
            self.count += sum(isinstance(e, ef.ToChild) and not isinstance(e.message, Beat) for e in effects)


def messages(racks: int) -> float:
    """Of each host, during a rollout with the usual settings."""
    above = [f"rack-{number}" for number in range(racks)] or ["root"]
    parents: dict[str, tuple[str, ...]] = {"root": (), **{name: ("root",) for name in above if name != "root"}}
    hosts = [f"host-{number}" for number in range(HOSTS)]
    parents |= {name: (above[number % len(above)],) for number, name in enumerate(hosts)}
    world = World(Shape(parents), Random(1))
    counted = Messages(world)
    world.watch([counted])
    play = Play(world, Random(1))
    play.roles(*hosts)
    for host in world.hosts.values():
        host.start()
    world.clock.after(1.0, world.every_second)
    play.run(20.0)
    play.release("1.0.1", "1.0.2")
    first: dict[str, Any] = {"soak_s": 1.0, "first": 100}
    usual: dict[str, Any] = {"soak_s": 30.0, "nodes_out_max": "10%"}
    for version, spec in (("1.0.1", first), ("1.0.2", usual)):
        counted.count = 0
        why = play.roll(version, "root", **spec)
        assert not why, why
        play.run(1.0)
        play.rolls("done", 3000.0, "root")
        if version == "1.0.1":
            play.run(20.0)
    return counted.count / HOSTS


def main() -> int:
    """Exit code 1: something is above its limit."""
    parser = argparse.ArgumentParser("python -m bench.rollout")
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    root = Root(CHILDREN)
    rows: list[Row] = [
        ("messages for each host, a child of the root", messages(0), "messages", 28.0),
        ("messages for each host, below a rack", messages(RACKS), "messages", 17.0),
        ("redraw of rollout status, 1,000 hosts", statistics.median(root.redraw() for _ in range(20)), "ms", 100.0),
    ]
    if as_json:
        keys = ("what", "value", "unit", "at_most")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    for what, value, unit, most in () if as_json else rows:
        print(f"{what:<50}{value:>8.1f} {unit:<9} at most {most:g}")
    return int(any(value > most for _, value, _, most in rows))


if __name__ == "__main__":
    sys.exit(main())
