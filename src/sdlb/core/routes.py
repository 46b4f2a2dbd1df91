"""The routes in the node's engine: the service of a pattern, the versions that get requests, and parking.

Requests are parked while an instance is expected: a version is about to open, or the route served recently. A route that
loses its last endpoint or its last claim parks requests for `RECENT_S`, within which a restarted program or node usually
returns. After that, a claimed route answers 503 and an unclaimed one is removed.
"""

from __future__ import annotations

from sdlb.core.effects import RoutePut
from sdlb.core.messages import REFUSED
from sdlb.core.share import overlay, picks
from sdlb.core.slot import Slot
from sdlb.core.state import State
from sdlb.model.policy import SESSION, SESSION_COOKIE, Park, Sticky
from sdlb.model.route import Pattern

RECENT_S = 300.0
"""Time for which a route without endpoints parks requests after it served."""
LOST_MAX = 1000
"""Routes without a claim that are kept. Above that number, the one that was lost first is removed."""


class Routes:
    def __init__(self, state: State) -> None:
        self._state = state
        self._served: dict[str, str] = {}  # routes that have had capacity -> their service; durable
        self._lost: dict[str, float] = {}  # routes that served and have no capacity now -> the time since when
        self._unclaimed: dict[str, None] = {}  # lost routes without a claim, in the order in which they were lost
        self._held_back: dict[
            str, str
        ] = {}  # route that never served -> the less specific one that serves its requests
        self._holding: dict[str, dict[str, None]] = {}  # the inverse of `_held_back`

    def load(self, route: str, service: object) -> None:
        """Loads a route that served before the restart. `service`: its name, or True as written by releases before 0.2.

        Routes without a claim are not kept over a restart, because the engine may have newer ones.
        """
        if route in self._state.by_route:
            self._served[route] = service if isinstance(service, str) else ""
        else:
            self._state.persist(f"route/{route}", None, durable=False)

    def settle(self, route: str) -> None:
        state = self._state
        slots = [state.slots[key] for key in state.by_route.get(route, ())]
        slots = [slot for slot in slots if slot.permit.state != REFUSED]
        self._release(route)
        if not slots:
            self._without_claim(route)
            return
        self._unclaimed.pop(route, None)
        # While two services claim the route and no root has decided, the active one has it, else the one with seniority.
        service = min(slots, key=lambda s: (not s.active, s.permit.stamp, s.key.service)).key.service
        mine = [slot for slot in slots if slot.key.service == service]
        capacity = {slot.key.version: slot.sums.capacity for slot in mine if slot.active}
        if any(capacity.values()):
            if self._lost.pop(route, None) is not None:
                state.clear_timer("route", route)
            if self._served.get(route) != service:
                self._served[route] = service
                state.persist(f"route/{route}", service, durable=False)
        elif route in self._served:
            self._lose(route)
        elif state.table.route(route) is None:
            wider = self._served_by(route)
            if wider is not None:
                self._held_back[route] = wider
                self._holding.setdefault(wider, {})[route] = None
                return
        self._put(route, service, mine, capacity)

    def _put(self, route: str, service: str, mine: list[Slot], capacity: dict[str, int]) -> None:
        policy = self._state.policy(service)
        expected = any(not slot.active or slot.sums.opening for slot in mine)
        recent = not expected and route in self._served and not self._is_over(route)
        park = policy.park if (expected or recent) and policy.park.timeout_s else Park(0, 0.0)
        sticky = policy.sticky
        self._state.table.set_route(
            route,
            RoutePut(
                route,
                service,
                picks(policy, capacity, overlay(self._state.targets.get(service))),
                park.requests_max,
                park.timeout_s,
                sticky.by if sticky is not None else "",
                _sticky_name(sticky, service),
                recent,
            ),
        )

    # ------------------------------------------------------------------ routes that served recently

    def on_timer(self, route: str) -> None:
        if route in self._lost:
            self._state.dirty_routes[route] = None

    def _without_claim(self, route: str) -> None:
        """The route has no claim, or only refused ones."""
        service = self._served.get(route)
        if service:
            self._lose(route)
            if not self._is_over(route) and not self._is_taken_over(route, service):
                self._put(route, service, [], {})
                self._unclaimed[route] = None
                self._let_go(route)
                if len(self._unclaimed) > LOST_MAX:
                    self._forget(next(iter(self._unclaimed)))
                return
        self._forget(route)

    def _forget(self, route: str) -> None:
        self._state.table.set_route(route, None)
        self._state.clear_timer("route", route)
        self._unclaimed.pop(route, None)
        self._lost.pop(route, None)
        if self._served.pop(route, None) is not None:
            self._state.persist(f"route/{route}", None, durable=False)
        self._let_go(route)

    def _lose(self, route: str) -> None:
        if route not in self._lost:
            self._lost[route] = self._state.now
            self._state.set_timer(self._state.now + RECENT_S, "route", route)

    def _is_over(self, route: str) -> bool:
        lost_at = self._lost.get(route)
        return lost_at is not None and self._state.now >= lost_at + RECENT_S

    def _is_taken_over(self, route: str, service: str) -> bool:
        """Whether a less specific route of the same service serves: its instances were registered again with other routes."""
        wider = self._served_by(route)
        put = self._state.table.route(wider) if wider is not None else None
        return put is not None and put.service == service and bool(put.picks)

    # ------------------------------------------------------------------ routes held back behind a less specific one

    def _release(self, route: str) -> None:
        wider = self._held_back.pop(route, None)
        if wider is not None:
            holding = self._holding[wider]
            del holding[route]
            if not holding:
                del self._holding[wider]

    def _let_go(self, route: str) -> None:
        """The route serves no more: the routes that were held back behind it get their own entries."""
        for other in list(self._holding.get(route, ())):
            self.settle(other)

    def _served_by(self, route: str) -> str | None:
        """The most specific wider route that serves. A route that never served must not take its requests away."""
        table = self._state.table
        wider = (str(pattern) for pattern in Pattern.parse(route).wider())
        return next((text for text in wider if table.route(text) is not None and text not in self._unclaimed), None)


def _sticky_name(sticky: Sticky | None, service: str) -> str:
    """The services of one host share its cookies, so each has a name of its own for sessions."""
    if sticky is None:
        return ""
    return sticky.name or (f"{SESSION_COOKIE}-{service}" if sticky.by == SESSION else "")
