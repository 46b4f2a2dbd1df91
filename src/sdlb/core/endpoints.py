"""Which sources of a slot are in the engine: make before break upwards, break after the parents let go downwards."""

from __future__ import annotations

from functools import lru_cache

from sdlb.core.children import Children
from sdlb.core.events import EndpointKey
from sdlb.core.local_instances import LocalInstances
from sdlb.core.messages import Stage
from sdlb.core.parents import Parents
from sdlb.core.slot import Part, Slot
from sdlb.core.source import ENDPOINT, OUT, Source, Standing
from sdlb.core.state import ALL, State
from sdlb.model.route import Pattern

CAPACITY_MAX = (1 << 32) - 1  # of one endpoint, as proto/engine.proto has it


class Endpoints:
    def __init__(self, state: State, children: Children, local: LocalInstances) -> None:
        self._state = state
        self._children = children
        self._local = local

    # ------------------------------------------------------------------ sums

    def refresh(self, slot: Slot, targets: dict[str, None]) -> None:
        """The sums of the slot follow its sources, of which these were touched."""
        for target in {**slot.parts, **slot.sources} if ALL in targets else targets:
            source = slot.sources.get(target)
            slot.put_part(target, None if source is None else self._part(slot, source))

    def _part(self, slot: Slot, source: Source) -> Part:
        claim, standing = source.claim, source.standing
        table, endpoint = self._state.table, EndpointKey(slot.key, source.target)
        applied, present = table.applied(endpoint), table.present(endpoint)
        serves = standing in ENDPOINT
        stays = serves and slot.active and not self._state.stopping
        comes = standing in (Standing.CLAIMED, Standing.ADMITTED, Standing.SUSPECT) and not self._state.stopping
        gone = standing in (Standing.REMNANT, Standing.PRESUMED)
        claims = not gone and not self._state.stopping
        # a child that stops or drains claims no capacity: this one was recalled, and its turn may come again
        recalled = standing in OUT and bool(source.child and claim.capacity)
        return Part(
            count=claim.count,
            hosts=claim.hosts,
            hosts_digest=claim.hosts_digest,
            compatible=claim.compatible,
            stage=Stage.SILENT if standing is Standing.PRESUMED else claim.stage,
            stamp=claim.stamp,
            generation=claim.generation,
            scope=claim.scope,
            granted=claim.granted,
            refused=claim.refused,
            seen=claim.seen,
            lease_s=claim.lease_s,
            doubted=claim.doubted,
            capacity=claim.capacity if serves else 0,
            ready=claim.capacity if applied and comes else 0,
            # also before the permit: an entry whose own verdict is out parks from that moment
            opening=(comes and bool(claim.capacity and not applied)) or (claims and (claim.opening or recalled)),
            present=present,
            child=bool(source.child),
            stable=stays and standing is Standing.ADMITTED and applied and claim.capacity > 0,
            departing=present and not stays,
            covered=slot.covered(source),
            recorded_only=gone or source.child in self._children.unsynced,
            why=claim.why,
            arriving=stays and standing is Standing.ADMITTED and not applied and (claim.opening or claim.capacity > 0),
        )

    # ------------------------------------------------------------------ the engine

    def settle(self, slot: Slot, targets: dict[str, None], parents: Parents, now: float) -> None:
        serving = slot.active and not self._state.stopping
        if serving != slot.serving:
            slot.serving = serving
            targets[ALL] = None
        self.refresh(slot, targets)
        if slot.sums.departing and not slot.sums.stable:
            if not slot.leaving:
                slot.leaving = self._state.next_number()
                slot.acked.clear()
            free = parents.drained(slot, now)
        else:
            slot.leaving = 0
            free = True
        free = free and not self._successor_comes(slot)
        if free != slot.free:
            slot.free = free
            targets[ALL] = None
        everything = {**slot.endpoints, **slot.sources}
        for target in sorted(everything) if ALL in targets else targets:
            if target in everything:
                self._settle_one(slot, target, serving, free)
        self.refresh(slot, targets)
        self._tell_siblings(slot)

    def _successor_comes(self, slot: Slot) -> bool:
        """The last endpoint of a version leaves while another version of the service is about to serve the route here:
        make before break, though the two are different keys. What is past its deadline does not wait (`_waits`)."""
        if not slot.serving or not slot.sums.departing or slot.sums.stable:
            return False
        siblings = [each for each in self._siblings(slot) if each.active]
        return any(each.sums.arriving for each in siblings) and not any(each.sums.stable for each in siblings)

    def _siblings(self, slot: Slot) -> list[Slot]:
        """Other keys of the service whose routes may match the same requests."""
        key, slots = slot.key, self._state.slots
        others = (k for k in self._state.by_service.get(key.service, ()) if k != key)
        return [slots[k] for k in others if k.route == key.route or _overlap(k.route, key.route)]

    def _tell_siblings(self, slot: Slot) -> None:
        comes = slot.active and bool(slot.sums.arriving), bool(slot.sums.stable)
        if comes != slot.announced:
            slot.announced = comes
            for each in self._siblings(slot):
                if each.sums.departing:
                    self._state.touch(each.key)

    def _settle_one(self, slot: Slot, target: str, serving: bool, free: bool) -> None:
        table, source = self._state.table, slot.sources.get(target)
        endpoint = EndpointKey(slot.key, target)
        if source is not None and serving and self._wanted(source):
            table.put_endpoint(endpoint, min(source.claim.capacity, CAPACITY_MAX), source.suspect, self._is_far(source))
            slot.endpoints[target] = None
        elif source is not None and not free and self._waits(slot, source):
            pass  # the parents still send through here
        elif target in slot.endpoints:
            table.delete_endpoint(endpoint)
            del slot.endpoints[target]

    def _wanted(self, source: Source) -> bool:
        if source.standing is Standing.LEAVING and not self._state.table.synced and self._state.settings.parents:
            return True  # the engine may have it from before: it is taken out in order, once that is known
        return source.standing in ENDPOINT and source.claim.capacity > 0

    def _waits(self, slot: Slot, source: Source) -> bool:
        """It goes, and may stay in the engine until the parents have let go."""
        if source.target not in slot.endpoints or source.standing is Standing.FORCED:
            return False
        if not slot.serving:
            return self._state.table.has(EndpointKey(slot.key, source.target))
        return source.standing in OUT

    def _is_far(self, source: Source) -> bool:
        """In another zone than this node, as far as both say where they are (the label `zone`)."""
        child = self._children.by_name.get(source.child) if source.child else None
        here = dict(self._state.settings.labels).get("zone")
        there = next((label[5:] for label in child.labels if label.startswith("zone=")), None) if child else here
        return here is not None and there is not None and here != there


@lru_cache(maxsize=4096)
def _overlap(one: str, other: str) -> bool:
    """Whether one of two patterns is less specific than the other, and matches what it matches."""
    wider = {str(pattern) for pattern in Pattern.parse(one).wider()}
    return other in wider or one in {str(pattern) for pattern in Pattern.parse(other).wider()}
