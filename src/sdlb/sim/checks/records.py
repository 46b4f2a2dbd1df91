"""Promise 8, for the record of a rollout: whatever happens, its chain is whole and no entry is lost or changed. And what it says agrees
with what truly was, where no fault blurs that: the gap at each root, and the least capacity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from sys import maxsize
from typing import Any

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.model.record import broken, digest
from sdlb.model.rollout import CUTTING_OVER
from sdlb.sim import bridge
from sdlb.sim.check import Check, check
from sdlb.sim.host import WALL_S, Host
from sdlb.sim.world import World

AGREES_S = 1.0
LASTS = 5
"""Seconds after which the owner must know of a loss of capacity, over all tiers."""


@check(8)
class RecordHolds(Check):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._heads: dict[tuple[str, str, str], tuple[int, str]] = {}  # (root, service, rollout) -> number, SHA-256
        self._closed: dict[tuple[str, str], float] = {}  # (root, service) -> since when its engine has no endpoint
        self._serves: dict[tuple[str, str], bool] = {}
        self._gaps: dict[tuple[str, str], list[tuple[float, float]]] = {}  # -> (begin, end)
        self._holds: dict[str, dict[str, int]] = {}  # service -> host that holds a slot -> share
        self._ready: dict[str, list[int]] = {}  # service -> capacity in each of the last seconds
        self._least: dict[str, tuple[int, int]] = {}  # rollout -> (lowest that lasted, lowest at all)

    # ------------------------------------------------------------------ the truth

    def on_table(self, host: Host, out: list[ev.EndpointKey]) -> None:
        if host.parents:
            return
        now = self.world.clock.now
        there = {key.service for key, group in host.engine.groups.items() if group}
        for service in there | {service for root, service in self._serves if root == host.name}:
            place = (host.name, service)
            was, self._serves[place] = self._serves.get(place, False), service in there
            if was and service not in there:
                self._closed[place] = now
            elif not was and service in there and place in self._closed:
                self._gaps.setdefault(place, []).append((self._closed.pop(place), now))

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for effect in effects:
            for service, share in bridge.saved_holds(effect).items():
                known = self._holds.setdefault(service, {})
                if share is None:
                    known.pop(host.name, None)
                else:
                    known[host.name] = share
                    self._dipped(service)

    def every_second(self) -> None:
        for rollout in self._counted():
            service, id = str(rollout["service"]), rollout["id"]
            last = self._ready.setdefault(f"{service}/{id}", [])
            last.append(self._capacity(service))
            lasted = max(last[-LASTS:]) if len(last) >= LASTS else last[0]
            least, lowest = self._least.get(id, (lasted, last[-1]))
            self._least[id] = min(least, lasted), min(lowest, last[-1])

    def _dipped(self, service: str) -> None:
        """A host takes its instance out: perhaps for less than the second between two looks."""
        for rollout in self._counted():
            if rollout["service"] == service:
                least, lowest = self._least.get(rollout["id"], (maxsize, maxsize))
                self._least[rollout["id"]] = least, min(lowest, self._capacity(service))

    def _counted(self) -> Iterator[Mapping[str, Any]]:
        """Rollouts whose capacity their owners record now."""
        for host in self.world.hosts.values():
            for rollout in host.view.rollouts() if not host.parents and host.balancer is not None else ():
                begun = rollout["capacity"]["baseline"] and rollout["state"] not in (CUTTING_OVER, "preparing")
                if rollout["owner_here"] and begun:
                    yield rollout

    def _capacity(self, service: str) -> int:
        """What serves on nodes without a slot, as the owner counts it."""
        out = {name for name, share in self._holds.get(service, {}).items() if share}
        there = [p for p in self.world.by_service.get(service, {}).values() if p.host not in out]
        serving = [p for p in there if p.alive and p.healthy and p.wanted and self.world.is_endpoint(p)]
        return sum(p.spec.capacity for p in serving)

    # ------------------------------------------------------------------ what is recorded

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code == "rollout-recorded":
            self._look(host)
            for record in host.view.record(note.fields["rollout"]):
                if record["service"] == note.fields["service"] and self.world.affected.undisturbed:
                    self._compare_gaps(host, record)
                    self._compare_capacity(host, record)

    def _compare_gaps(self, host: Host, record: Mapping[str, Any]) -> None:
        entries = record["entries"]
        opened = [each for each in entries if each["kind"] == "opened"]
        since = entries[0]["at_ms"] / 1000 - WALL_S - host.wall_ahead_s
        truly = [(one, end) for one, end in self._gaps.get((host.name, record["service"]), []) if one >= since]
        self.compared()
        told = [(each["at_ms"] / 1000 - WALL_S - host.wall_ahead_s, each["gap_ms"] / 1000) for each in opened]
        for one, end in truly:
            if end - one > 2 * AGREES_S and not any(
                abs(end - at) < AGREES_S and abs(end - one - gap_s) < AGREES_S for at, gap_s in told
            ):
                raise self.broken(f"{host.name} had no endpoint of {record['service']} for {end - one:.2f} s: {told}")
        for at, gap_s in told:
            if gap_s > 2 * AGREES_S and not any(abs(end - at) < AGREES_S for _, end in truly):
                raise self.broken(f"{host.name} recorded a gap of {gap_s:.2f} s that was none: {truly}")

    def _compare_capacity(self, host: Host, record: Mapping[str, Any]) -> None:
        last = record["entries"][-1]
        if last.get("least", -1) < 0 or record["rollout"] not in self._least or record["entries"][0]["incompatible"]:
            return
        least, lowest = self._least[record["rollout"]]
        self.compared()
        if not lowest <= last["least"] <= least:
            raise self.broken(
                f"{host.name} recorded a least capacity of {last['least']} for {record['rollout']} of {record['service']}; "
                f"it was {least} for {LASTS} s, and {lowest} for a moment"
            )

    def _look(self, host: Host) -> None:
        for service in {str(each["service"]) for each in host.view.rollouts()}:
            for record in host.view.record(service):
                self._chain(host, record)

    def _chain(self, host: Host, record: Mapping[str, Any]) -> None:
        """Whole, and the continuation of what it was when it was looked at last."""
        entries, place = record["entries"], (host.name, record["service"], record["rollout"])
        number, why = broken(entries)
        self.compared()
        if number:
            raise self.broken(f"the record of {record['rollout']} at {host.name} is broken at {number}: {why}")
        if place in self._heads and not self.world.affected.harmed(host.name, record["service"]):
            number, head = self._heads[place]
            if len(entries) < number or digest(entries[number - 1]) != head:
                raise self.broken(
                    f"entry {number} of the record of {record['rollout']} at {host.name} was changed or lost"
                )
        self._heads[place] = record["number"], record["head"]

    def at_end(self) -> None:
        for host in self.world.inside():
            if not host.parents and host.balancer is not None:
                self._look(host)
