"""Which sources of a slot are in the engine.

Upwards it is make before break: capacity is reported after the engine has confirmed it. Downwards, an endpoint is removed
after the parents have acknowledged the drain.
"""

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

CAPACITY_MAX = (1 << 32) - 1  # of one endpoint, as in proto/engine.proto


class Endpoints:
    def __init__(self, state: State, children: Children, local: LocalInstances) -> None:
        self._state = state
        self._children = children
        self._local = local

    # ------------------------------------------------------------------ sums

    def refresh(self, slot: Slot, targets: dict[str, None]) -> None:
        """Updates the sums of the slot from the sources in `targets`."""
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
        # A child that stops or drains reports no capacity. This one does, so it was recalled and may serve again later.
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
            able=claim.able if comes else 0,
            healthy=claim.healthy if comes else 0,
            joined=claim.joined if claims else (),
            seen=claim.seen,
            lease_s=claim.lease_s,
            doubted=claim.doubted,
            capacity=claim.capacity if serves else 0,
            ready=claim.capacity if applied and comes else 0,
            # Also before the permit: an entry then parks requests as soon as its own verdict is ACTIVE.
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
        free = free and not self._successor_arrives(slot)
        if free != slot.free:
            slot.free = free
            targets[ALL] = None
        everything = {**slot.endpoints, **slot.sources}
        for target in sorted(everything) if ALL in targets else targets:
            if target in everything:
                self._settle_one(slot, target, serving, free)
        self.refresh(slot, targets)
        self._notify_siblings(slot)

    def _successor_arrives(self, slot: Slot) -> bool:
        """Whether the last endpoint of this slot leaves while another version is about to serve its route here.

        Then it stays until the other version serves (make before break, over two keys), but not past its deadline (`_waits`).
        """
        if not slot.serving or not slot.sums.departing or slot.sums.stable:
            return False
        siblings = [each for each in self._siblings(slot) if each.active]
        return any(each.sums.arriving for each in siblings) and not any(each.sums.stable for each in siblings)

    def _siblings(self, slot: Slot) -> list[Slot]:
        """The other slots of the service whose routes may match the same requests."""
        key, slots = slot.key, self._state.slots
        others = (k for k in self._state.by_service.get(key.service, ()) if k != key)
        return [slots[k] for k in others if k.route == key.route or _overlap(k.route, key.route)]

    def _notify_siblings(self, slot: Slot) -> None:
        comes = slot.active and bool(slot.sums.arriving), bool(slot.sums.stable)
        if comes != slot.announced:
            slot.announced = comes
            for each in self._siblings(slot):
                if each.sums.departing:
                    self._state.touch(each.key)

    def _settle_one(self, slot: Slot, target: str, serving: bool, free: bool) -> None:
        table, source = self._state.table, slot.sources.get(target)
        endpoint = EndpointKey(slot.key, target)
        if source is not None and serving and self._wanted(source, free):
            table.put_endpoint(endpoint, min(source.claim.capacity, CAPACITY_MAX), source.suspect, self._is_far(source))
            slot.endpoints[target] = None
        elif source is not None and not free and self._waits(slot, source):
            pass  # the parents still send requests here
        elif target in slot.endpoints:
            table.delete_endpoint(endpoint)
            del slot.endpoints[target]

    def _wanted(self, source: Source, free: bool) -> bool:
        if source.standing is Standing.LEAVING and not self._state.table.synced:
            # The engine may have it from before the restart; it is drained once that is known. A root knows what it has
            # released, and waits for nothing but a successor.
            return bool(self._state.settings.parents) or not (free or source.released)
        return source.standing in ENDPOINT and source.claim.capacity > 0

    def _waits(self, slot: Slot, source: Source) -> bool:
        """Whether a departing source stays in the engine until the parents have acknowledged the drain."""
        if source.target not in slot.endpoints or source.standing is Standing.FORCED:
            return False
        if not slot.serving:
            return self._state.table.has(EndpointKey(slot.key, source.target))
        return source.standing in OUT

    def _is_far(self, source: Source) -> bool:
        """Whether the source is in another zone than this node. False unless both have the label `zone`."""
        child = self._children.by_name.get(source.child) if source.child else None
        here = self._state.settings.zone
        there = next((label[5:] for label in child.labels if label.startswith("zone=")), None) if child else here
        return here is not None and there is not None and here != there


@lru_cache(maxsize=4096)
def _overlap(one: str, other: str) -> bool:
    """Whether one of the two patterns is less specific and matches everything that the other matches."""
    wider = {str(pattern) for pattern in Pattern.parse(one).wider()}
    return other in wider or one in {str(pattern) for pattern in Pattern.parse(other).wider()}
