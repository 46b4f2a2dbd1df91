"""What the engine should route by, what it has been told, and what it has confirmed.

The core writes wishes (`want`, `unwant`, `set_route`); `next_delta` turns the difference to what was last sent into one
`Apply`. Only one delta is under way at a time, so a burst of changes becomes one delta, and its cost is that of the
change. An endpoint is in one of these places:

    wanted --Apply--> sent --Applied--> applied --unwanted, Apply, Applied--> draining --Drained--> gone

`present` is true from sent until gone: something may be in flight. `applied` is true while new requests can use it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sdlb.core.effects import Apply, EndpointPut, RoutePut, ServicePut, UpstreamPut
from sdlb.core.events import EndpointKey, EngineAttached
from sdlb.core.messages import ClaimKey
from sdlb.model.traffic import Traffic

RETRY_S = 1.0


class Table:
    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._endpoints: dict[EndpointKey, EndpointPut] = {}  # wanted
        self._routes: dict[str, RoutePut] = {}  # wanted
        # addresses of all sources, also of those without an endpoint at the moment
        self._upstreams: dict[str, UpstreamPut] = {}
        self._forgotten: set[str] = set()  # of these the source is gone; the address goes with the last endpoint
        self._uses: dict[str, int] = {}  # target -> wanted endpoints
        self._sent: dict[EndpointKey, EndpointPut] = {}
        self._applied: set[EndpointKey] = set()
        self._draining: dict[EndpointKey, int] = {}  # -> epoch of the deletion
        self._sent_routes: dict[str, RoutePut] = {}
        self._sent_upstreams: dict[str, UpstreamPut] = {}
        self._dirty_endpoints: dict[EndpointKey, None] = {}
        self._dirty_routes: dict[str, None] = {}
        self._dirty_upstreams: dict[str, None] = {}
        self._services: dict[str, ServicePut] = {}  # wanted
        self._sent_services: dict[str, ServicePut] = {}
        self._dirty_services: dict[str, None] = {}
        self._attached = False
        self._confirmed = 0  # the last epoch that the engine is known to have carried out
        self.synced = False  # the engine has confirmed a whole table of this control
        self._boot_id = ""
        self._replace = False
        self._outstanding: Apply | None = None
        self._unanswered: Apply | None = None  # outstanding when the connection was lost
        self._keep_until: float | None = None
        self._retry_at = 0.0

    # ------------------------------------------------------------------ wishes

    def set_upstream(self, key: str, is_node: bool, address: str, protocol: str = "http1") -> None:
        target = UpstreamPut(key, is_node, address, protocol)
        self._forgotten.discard(key)
        if self._upstreams.get(key) != target:
            self._upstreams[key] = target
            self._dirty_upstreams[key] = None

    def forget_upstream(self, key: str) -> None:
        """Its source is gone."""
        self._forgotten.add(key)
        self._dirty_upstreams[key] = None

    def put_endpoint(self, key: EndpointKey, capacity: int, last_resort: bool = False, far: bool = False) -> None:
        old = self._endpoints.get(key)
        put = EndpointPut(key, max(1, capacity), last_resort, far)
        if old == put:
            return
        if old is None:
            self._uses[key.target] = self._uses.get(key.target, 0) + 1
            self._dirty_upstreams[key.target] = None
        self._endpoints[key] = put
        self._dirty_endpoints[key] = None

    def delete_endpoint(self, key: EndpointKey) -> None:
        if self._endpoints.pop(key, None) is None:
            return
        left = self._uses[key.target] - 1
        if left:
            self._uses[key.target] = left
        else:
            del self._uses[key.target]
            self._dirty_upstreams[key.target] = None
        self._dirty_endpoints[key] = None

    def set_route(self, pattern: str, route: RoutePut | None) -> None:
        if self._routes.get(pattern) == route:
            return
        if route is None:
            del self._routes[pattern]
        else:
            self._routes[pattern] = route
        self._dirty_routes[pattern] = None

    def set_service(self, name: str, traffic: Traffic) -> None:
        """What holds for all endpoints and routes of a service."""
        put = ServicePut(name, traffic)
        if traffic == Traffic():
            if self._services.pop(name, None) is None:
                return
        elif self._services.get(name) == put:
            return
        else:
            self._services[name] = put
        self._dirty_services[name] = None

    # ------------------------------------------------------------------ what is

    @property
    def attached(self) -> bool:
        return self._attached

    @property
    def settled(self) -> bool:
        """The engine confirmed everything that was wished so far."""
        return self._attached and self._outstanding is None and not self._has_work()

    @property
    def epoch(self) -> int:
        return self._epoch

    def route(self, pattern: str) -> RoutePut | None:
        return self._routes.get(pattern)

    @property
    def patterns(self) -> Iterable[str]:
        """Of all routes that are wanted."""
        return self._routes

    def address(self, target: str) -> str:
        known = self._upstreams.get(target)
        return known.address if known is not None else ""

    def wanted(self, key: EndpointKey) -> bool:
        return key in self._endpoints

    def applied(self, key: EndpointKey) -> bool:
        return key in self._applied and key in self._endpoints

    def present(self, key: EndpointKey) -> bool:
        """Something may be in flight. As long as it is not known what the engine has from before, anything may be."""
        return self.has(key) or not self.contents_known

    def has(self, key: EndpointKey) -> bool:
        """The engine was sent it, and it may be in flight there."""
        return key in self._sent or key in self._draining or key in self._applied

    @property
    def contents_known(self) -> bool:
        """It is known what the engine has."""
        return self.synced and self._keep_until is None

    def routable(self, key: EndpointKey) -> bool:
        """The engine may still send new requests to it: what it was told last is not known to be in force."""
        if key in self._sent or key in self._applied or self._draining.get(key, 0) > self._confirmed:
            return True
        return not self.contents_known

    @property
    def empty(self) -> bool:
        """Nothing is wanted, nothing may be in flight."""
        return not (self._endpoints or self._sent or self._draining or self._applied)

    def raise_epoch(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def size(self) -> int:
        return len(self._endpoints) + len(self._routes) + len(self._sent) + len(self._draining)

    # ------------------------------------------------------------------ engine

    def on_attached(self, event: EngineAttached, now: float, keep_s: float, *, unsure: bool = False) -> list[ClaimKey]:
        """A connection to the engine. Everything is sent again as one replacing delta.

        `keep_s`: when this control cannot know what the engine's endpoints are for (`unsure`: its state file was lost, or is
        an older copy), nothing is deleted for that long, so that children and parents can report first what is there.
        """
        touched = {key.claim for key in (*self._sent, *self._draining, *self._applied)}
        same = event.boot_id == self._boot_id
        in_flight = {key for key, _ in event.draining}
        if same:
            unanswered = self._outstanding or self._unanswered
            if unanswered is not None and unanswered.epoch <= event.epoch:  # it was applied, only its answer was lost
                self._applied.update(
                    endpoint.key for endpoint in unanswered.put_endpoints if endpoint.key in self._sent
                )
            # Deletions that the engine carried out are over unless it names them; the others come with the replacement.
            left = {key: epoch for key, epoch in self._draining.items() if epoch > event.epoch or key in in_flight}
            upcoming = max(self._epoch, event.epoch) + 1  # the replacement is what takes them out
            left.update({key: upcoming for key in self._applied if key not in self._endpoints})
            self._applied &= set(self._endpoints)
        else:
            left = dict.fromkeys(in_flight, 0)  # the deletion was of any epoch before
            self._applied.clear()
        self._draining = {key: epoch for key, epoch in left.items() if key not in self._endpoints}
        self._boot_id = event.boot_id
        self._sent.clear()
        self._sent_routes.clear()
        self._sent_upstreams.clear()
        self._sent_services.clear()
        self._outstanding = self._unanswered = None
        self._attached = True
        self._replace = True
        self.synced = self.synced or not (event.endpoints or event.draining)
        self._epoch = max(self._epoch, event.epoch)
        self._confirmed = event.epoch
        cold = event.endpoints > 0 and unsure
        self._keep_until = now + keep_s if cold else None
        return sorted(touched | {key.claim for key in self._draining})

    def refresh(self) -> None:
        """The next delta says everything."""
        self._replace = True

    def on_lost(self) -> None:
        self._attached = False
        self._unanswered = self._outstanding or self._unanswered
        self._outstanding = None
        self._replace = True

    def keep(self, until: float) -> None:
        """Deletes nothing before `until` (seconds on the monotonic clock)."""
        self._keep_until = until

    @property
    def keep_until(self) -> float | None:
        return self._keep_until

    def _has_work(self) -> bool:
        return bool(
            self._replace
            or self._dirty_endpoints
            or self._dirty_routes
            or self._dirty_upstreams
            or self._dirty_services
        )

    def next_delta(self, now: float) -> Apply | None:
        if not self._attached or self._outstanding is not None or not self._has_work() or now < self._retry_at:
            return None
        if self._replace and (self._keep_until is None or now >= self._keep_until):
            delta = self._whole()
        else:
            delta = self._difference()
        if delta is None:
            return None
        self._outstanding = delta
        return delta

    def _whole(self) -> Apply:
        self._epoch += 1
        self._replace = False
        self._keep_until = None
        self._clear_dirty()
        gone = [key for key in self._applied if key not in self._endpoints]
        for key in gone:
            self._applied.discard(key)
            self._draining[key] = self._epoch
        self._sent = dict(self._endpoints)
        self._sent_routes = dict(self._routes)
        self._sent_upstreams = {key: self._upstreams[key] for key in self._uses}
        self._sent_services = dict(self._services)
        for key in self._endpoints:
            self._draining.pop(key, None)
        return Apply(
            self._epoch,
            True,
            tuple(self._sent_upstreams[key] for key in sorted(self._sent_upstreams)),
            tuple(self._endpoints[key] for key in sorted(self._endpoints, key=_endpoint_order)),
            tuple(self._routes[pattern] for pattern in sorted(self._routes)),
            put_services=tuple(self._services[name] for name in sorted(self._services)),
            left_out=tuple(key for key, epoch in self._draining.items() if epoch > self._confirmed),
        )

    def _difference(self) -> Apply | None:
        put_endpoints: list[EndpointPut] = []
        delete_endpoints: list[EndpointKey] = []
        for key in self._dirty_endpoints:
            wanted = self._endpoints.get(key)
            if wanted is not None and self._sent.get(key) != wanted:
                put_endpoints.append(wanted)
            elif wanted is None and key in self._sent:
                delete_endpoints.append(key)
        put_routes: list[RoutePut] = []
        delete_routes: list[str] = []
        for pattern in self._dirty_routes:
            route = self._routes.get(pattern)
            if route is not None and self._sent_routes.get(pattern) != route:
                put_routes.append(route)
            elif route is None and pattern in self._sent_routes:
                delete_routes.append(pattern)
        put_upstreams: list[UpstreamPut] = []
        delete_upstreams: list[str] = []
        for name in self._dirty_upstreams:
            target = self._upstreams.get(name) if name in self._uses else None
            if target is not None and self._sent_upstreams.get(name) != target:
                put_upstreams.append(target)
            elif target is None and name in self._sent_upstreams:
                delete_upstreams.append(name)
        put_services = [
            put
            for name in self._dirty_services
            if (put := self._services.get(name)) != self._sent_services.get(name) and put
        ]
        delete_services = [
            name for name in self._dirty_services if name not in self._services and name in self._sent_services
        ]
        self._clear_dirty()
        services = put_services or delete_services
        if not (
            put_endpoints
            or delete_endpoints
            or put_routes
            or delete_routes
            or put_upstreams
            or delete_upstreams
            or services
        ):
            return None
        self._epoch += 1
        for endpoint in put_endpoints:
            self._sent[endpoint.key] = endpoint
            self._draining.pop(endpoint.key, None)
        for key in delete_endpoints:
            del self._sent[key]
            self._applied.discard(key)
            self._draining[key] = self._epoch
        for route in put_routes:
            self._sent_routes[route.pattern] = route
        for pattern in delete_routes:
            del self._sent_routes[pattern]
        for target in put_upstreams:
            self._sent_upstreams[target.key] = target
        for name in delete_upstreams:
            del self._sent_upstreams[name]
        self._sent_services.update((put.name, put) for put in put_services)
        for name in delete_services:
            del self._sent_services[name]
        return Apply(
            self._epoch,
            False,
            tuple(put_upstreams),
            tuple(put_endpoints),
            tuple(put_routes),
            tuple(delete_endpoints),
            tuple(delete_routes),
            tuple(delete_upstreams),
            put_services=tuple(put_services),
            delete_services=tuple(delete_services),
        )

    def _clear_dirty(self) -> None:
        for name in [name for name in self._dirty_upstreams if name in self._forgotten and name not in self._uses]:
            self._forgotten.discard(name)
            self._upstreams.pop(name, None)
        self._dirty_endpoints.clear()
        self._dirty_routes.clear()
        self._dirty_upstreams.clear()
        self._dirty_services.clear()

    def on_applied(self, epoch: int) -> list[EndpointKey]:
        """The endpoints that it concerns."""
        delta = self._outstanding
        if delta is None or delta.epoch != epoch:
            return []
        self._outstanding = None
        self._confirmed = epoch
        self.synced = self.synced or delta.replace
        touched: dict[EndpointKey, None] = {}
        for endpoint in delta.put_endpoints:
            if endpoint.key in self._sent:
                self._applied.add(endpoint.key)
                touched[endpoint.key] = None
        touched.update(dict.fromkeys((*delta.delete_endpoints, *delta.left_out)))
        return list(touched)

    def on_rejected(self, epoch: int, now: float) -> None:
        """The engine has none of it: say everything again, a little later (what it refused may be taken back)."""
        if self._outstanding is not None and self._outstanding.epoch == epoch:
            self._outstanding = None
            self._replace = True
            self._retry_at = now + RETRY_S

    def on_drained(self, key: EndpointKey, epoch: int) -> bool:
        """Whether it was waited for."""
        if self._draining.get(key, epoch + 1) > epoch:
            return False
        del self._draining[key]
        return True


def _endpoint_order(key: EndpointKey) -> tuple[ClaimKey, str]:
    return key.claim, key.target
