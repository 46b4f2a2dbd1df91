"""What a rollout costs at its root: the messages for each host, and a redraw of `sdlb rollout status --watch`.

    python -m bench.rollout [--json]
    python -m bench.rollout --hosts 1000 --racks 32

Messages are counted in the simulator, with 40 hosts, beyond the heartbeats of an idle tree: hosts that are children of the root, and
hosts below four racks. `--hosts` prints their kinds, and what the root holds and computes, for a tree of any size. A redraw is the two
reads of the API at a root with 1,000 children, their JSON, and the lines on the terminal. "at most" is the project's limit; a row above
its limit makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import msgspec

from sdlb.cli.rollout_status import block
from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import (
    Answer,
    Ask,
    Beat,
    Claim,
    ClaimKey,
    DownMessage,
    DownState,
    Hello,
    Stage,
    UpMessage,
    UpState,
)
from sdlb.core.settings import Settings
from sdlb.model.rollout import (
    PREPARED,
    TAKE,
    RoleReport,
    RolloutSpec,
    SlotAsk,
    SlotReport,
    ask_body,
    read_answer,
    read_ask,
    report_body,
)
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
BEAT_S = 2.0
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


class AtRoot(Check):
    """What passes the root and what it holds. Only messages beyond the heartbeats of an idle tree count: a state message that goes in
    place of a heartbeat costs nothing."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.began = 0.0
        self.kinds: Counter[str] = Counter()
        self.heartbeats = 0
        self.slots_max = self.bytes_max = 0
        self.cpu_s = 0.0
        self._entered = 0.0

    def begin(self) -> None:
        self.began, self.heartbeats, self.cpu_s = self.world.clock.now, 0, 0.0
        self.slots_max = self.bytes_max = 0
        self.kinds.clear()

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        if host.name == "root":
            for event in events:
                if isinstance(event, ev.ChildMessage):
                    self._count("up", event.message)
            self._entered = time.process_time()

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        if host.name != "root":
            return
        self.cpu_s += time.process_time() - self._entered
        for effect in effects:
            match effect:
                case ef.ToChild(_, message):
                    self._count("down", message)
                case ef.Persist(puts) if (owned := puts.get("rollout/catalog")) is not None:
                    self.bytes_max = max(self.bytes_max, len(msgspec.json.encode(owned)))
                case _:
                    pass
        found = host.view.rollout("catalog")
        self.slots_max = max(self.slots_max, len(found["slots"]) if found is not None else 0)

    def _count(self, way: str, message: UpMessage | DownMessage) -> None:
        if isinstance(message, Beat):
            self.heartbeats += 1
        else:
            self.kinds[f"{way}: {kind(message)}"] += 1

    def beyond(self, links: int) -> int:
        """Messages besides the heartbeats of an idle tree."""
        idle = 2 * links * (self.world.clock.now - self.began) / BEAT_S
        return round(self.heartbeats + self.kinds.total() - idle)


def kind(message: UpMessage | DownMessage) -> str:
    match message:
        case UpState():
            parts = {"claim": message.claims, "withdrawal": message.withdrawn, "report": message.reports}
        case DownState():
            parts = {"verdict": message.verdicts, "drained": message.drained, "document": message.docs}
        case Ask():
            ask = read_ask(message.body)
            return f"slot: {ask.what}" if ask is not None else "request"
        case Answer():
            answer = read_answer(message.answers[0].body) if message.answers else None
            return "slot: granted or returned" if answer is not None and answer.granted else "slot: later"
        case _:
            return type(message).__name__
    return " + ".join(name for name, value in parts.items() if value) or "state"


def roll(hosts: int, racks: int) -> AtRoot:
    """A rollout with the usual settings. `racks` 0: the hosts are children of the root."""
    above = [f"rack-{number}" for number in range(racks)] or ["root"]
    parents: dict[str, tuple[str, ...]] = {"root": (), **{name: ("root",) for name in above if name != "root"}}
    names = [f"host-{number}" for number in range(hosts)]
    parents |= {name: (above[number % len(above)],) for number, name in enumerate(names)}
    world = World(Shape(parents), Random(1))
    counted = AtRoot(world)
    world.watch([counted])
    play = Play(world, Random(1))
    play.roles(*names)
    for host in world.hosts.values():
        host.start()
    world.clock.after(1.0, world.every_second)
    play.run(20.0)
    play.release("1.0.1", "1.0.2")
    first: dict[str, Any] = {"soak_s": 1.0, "first": hosts, "nodes_out_max": "100%"}
    usual: dict[str, Any] = {"soak_s": 30.0, "nodes_out_max": "10%"}
    for version, spec in (("1.0.1", first), ("1.0.2", usual)):
        counted.begin()
        why = play.roll(version, "root", **spec)
        assert not why, why
        play.run(1.0)
        play.rolls("done", 6000.0, "root")
        if version == "1.0.1":
            play.run(20.0)
    return counted


def messages(hosts: int, racks: int) -> float:
    """Of each host."""
    return roll(hosts, racks).beyond(racks or hosts) / hosts


def describe(hosts: int, racks: int) -> None:
    started = time.process_time()
    counted = roll(hosts, racks)
    took_s = counted.world.clock.now - counted.began
    below = f"below {racks} racks" if racks else "children of the root"
    print(f"{hosts} hosts, {below}: {counted.beyond(racks or hosts) / hosts:.1f} messages a host beyond heartbeats")
    print(f"rollout {took_s:.0f} s; at the root: {counted.slots_max} slots, {counted.bytes_max} bytes saved, ", end="")
    print(f"{counted.cpu_s:.1f} s of CPU ({100 * counted.cpu_s / took_s:.1f} % of a core)")
    idle = 2 * (racks or hosts) * took_s / BEAT_S
    print(f"{counted.heartbeats / hosts:8.2f} heartbeats, {idle / hosts:.2f} when idle")
    for name, number in counted.kinds.most_common():
        print(f"{number / hosts:8.2f} {name}")
    print(f"(the simulation took {time.process_time() - started:.0f} s)")


def main() -> int:
    """Exit code 1: something is above its limit."""
    parser = argparse.ArgumentParser("python -m bench.rollout")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--hosts", type=int, help="print what is sent in a rollout over this number of hosts")
    parser.add_argument("--racks", type=int, default=0, help="with --hosts: racks between (none)")
    given = parser.parse_args()
    if given.hosts:
        describe(given.hosts, given.racks)
        return 0
    as_json = given.json
    root = Root(CHILDREN)
    rows: list[Row] = [
        ("messages for each host, a child of the root", messages(HOSTS, 0), "messages", 15.0),
        ("messages for each host, below a rack", messages(HOSTS, RACKS), "messages", 10.0),
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
