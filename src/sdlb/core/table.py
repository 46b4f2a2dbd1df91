"""The engine's table: the desired state, what was sent, and what the engine has confirmed.

The core sets the desired state (`put_endpoint`, `delete_endpoint`, `set_route`). `next_delta` puts the difference to what
was last sent into one `Apply`. Only one delta is under way at a time, so a burst of changes becomes one delta, whose cost is
that of the changes. The states of an endpoint:

    wanted --Apply--> sent --Applied--> applied --deleted, Apply, Applied--> draining --Drained--> gone

`present` is true from sent until gone: requests may be in flight. `applied` is true while new requests can use it.
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
        self._endpoints: dict[EndpointKey, EndpointPut] = {}  # desired
        self._routes: dict[str, RoutePut] = {}  # desired
        self._upstreams: dict[str, UpstreamPut] = {}  # of all sources, also of those without an endpoint now
        self._forgotten: set[str] = set()  # upstreams without a source, to be removed with their last endpoint
        self._uses: dict[str, int] = {}  # upstream -> number of its desired endpoints
        self._sent: dict[EndpointKey, EndpointPut] = {}
        self._applied: set[EndpointKey] = set()
        self._draining: dict[EndpointKey, int] = {}  # -> epoch of the deletion
        self._sent_routes: dict[str, RoutePut] = {}
        self._sent_upstreams: dict[str, UpstreamPut] = {}
        self._dirty_endpoints: dict[EndpointKey, None] = {}
        self._dirty_routes: dict[str, None] = {}
        self._dirty_upstreams: dict[str, None] = {}
        self._services: dict[str, ServicePut] = {}  # desired
        self._sent_services: dict[str, ServicePut] = {}
        self._dirty_services: dict[str, None] = {}
        self._attached = False
        self._confirmed = 0  # the last epoch that the engine has confirmed
        self.synced = False  # the engine has confirmed a whole table of this control
        self._boot_id: str = ""
        self._replace = False
        self._outstanding: Apply | None = None
        self._unanswered: Apply | None = None  # outstanding when the connection was lost
        self._keep_until: float | None = None
        self._blind: bool = (
            False  # the replacing delta `_blind_epoch` deletes endpoints that this control does not know
        )
        self._blind_epoch = 0
        self._retry_at = 0.0

    # ------------------------------------------------------------------ desired state

    def set_upstream(self, key: str, is_node: bool, address: str, protocol: str = "http1") -> None:
        target = UpstreamPut(key, is_node, address, protocol)
        self._forgotten.discard(key)
        if self._upstreams.get(key) != target:
            self._upstreams[key] = target
            self._dirty_upstreams[key] = None

    def forget_upstream(self, key: str) -> None:
        """The source of the upstream was removed."""
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
        """Sets what applies to all endpoints and routes of a service. Default settings are not sent."""
        put = ServicePut(name, traffic)
        if traffic == Traffic():
            if self._services.pop(name, None) is None:
                return
        elif self._services.get(name) == put:
            return
        else:
            self._services[name] = put
        self._dirty_services[name] = None

    # ------------------------------------------------------------------ current state

    @property
    def attached(self) -> bool:
        return self._attached

    @property
    def settled(self) -> bool:
        """The engine has confirmed the whole desired state."""
        return self._attached and self._outstanding is None and not self._has_work()

    @property
    def epoch(self) -> int:
        return self._epoch

    def route(self, pattern: str) -> RoutePut | None:
        return self._routes.get(pattern)

    @property
    def patterns(self) -> Iterable[str]:
        """The patterns of all desired routes."""
        return self._routes

    def address(self, target: str) -> str:
        known = self._upstreams.get(target)
        return known.address if known is not None else ""

    def wanted(self, key: EndpointKey) -> bool:
        return key in self._endpoints

    def applied(self, key: EndpointKey) -> bool:
        return key in self._applied and key in self._endpoints

    def in_force(self, key: EndpointKey) -> bool:
        """Whether new requests can use it. It may be about to be deleted, but its deletion was not sent."""
        return key in self._applied

    def present(self, key: EndpointKey) -> bool:
        """Whether requests may be in flight. True for every key as long as it is not known what the engine has."""
        return self.has(key) or not self.contents_known

    def has(self, key: EndpointKey) -> bool:
        """Whether the endpoint was sent to the engine and requests may be in flight there."""
        return key in self._sent or key in self._draining or key in self._applied

    @property
    def contents_known(self) -> bool:
        """Whether it is known what the engine has."""
        return self.synced and self._keep_until is None and not self._blind

    @property
    def blind(self) -> bool:
        """Whether unknown endpoints were deleted, and it is not known yet what they have in flight."""
        return self._blind

    def deleted_unknown(self, epoch: int) -> bool:
        """Whether this delta has deleted unknown endpoints. Their requests in flight are known when the engine attaches again."""
        return self._blind and epoch == self._blind_epoch

    def routable(self, key: EndpointKey) -> bool:
        """Whether the engine may still send new requests to it, because its deletion is not confirmed."""
        if key in self._sent or key in self._applied or self._draining.get(key, 0) > self._confirmed:
            return True
        return not self.contents_known

    @property
    def draining(self) -> Iterable[EndpointKey]:
        """Deleted endpoints that may have requests in flight, including those that another control deleted."""
        return self._draining

    @property
    def empty(self) -> bool:
        """No endpoint is desired, and nothing may be in flight."""
        return not (self._endpoints or self._sent or self._draining or self._applied)

    def raise_epoch(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def size(self) -> int:
        return len(self._endpoints) + len(self._routes) + len(self._sent) + len(self._draining)

    # ------------------------------------------------------------------ engine

    def on_attached(
        self, event: EngineAttached, now: float, keep_s: float, *, unsure: bool = False, closing: bool = False
    ) -> list[ClaimKey]:
        """Handles a connection to the engine: the whole table is sent as one replacing delta. Returns the affected claim keys.

        `unsure`: this control cannot know the engine's endpoints, because its state was lost or is an older copy. Then nothing
        is deleted for `keep_s`, so that children and parents can report first. `closing`: the last control had decided deletions
        that the engine may not have got.
        """
        touched = {key.claim for key in (*self._sent, *self._draining, *self._applied)}
        same = event.boot_id == self._boot_id
        in_flight = {key for key, _ in event.draining}
        if same:
            unanswered = self._outstanding or self._unanswered
            if (
                unanswered is not None and unanswered.epoch <= event.epoch
            ):  # it was applied, and only the answer was lost
                self._applied.update(
                    endpoint.key for endpoint in unanswered.put_endpoints if endpoint.key in self._sent
                )
            # Deletions that the engine has applied are complete unless it reports them. The others follow with the new delta.
            left = {key: epoch for key, epoch in self._draining.items() if epoch > event.epoch or key in in_flight}
            upcoming = max(self._epoch, event.epoch) + 1  # the replacing delta deletes them
            left.update({key: upcoming for key in self._applied if key not in self._endpoints})
            if self._blind:
                left.update({key: 0 for key in in_flight if key not in left})  # deleted in an unknown earlier epoch
            self._applied &= set(self._endpoints)
        else:
            left = dict.fromkeys(in_flight, 0)  # deleted in an unknown earlier epoch
            self._applied.clear()
        # Desired endpoints are included, because they may be deleted again before the replacing delta is sent.
        self._draining = left
        # If the deletion of what is unknown was lost, the replacing delta that follows has it again.
        self._blind = self._blind and same and event.epoch < self._blind_epoch
        if closing and event.endpoints:
            self._blind, self._blind_epoch = True, max(self._epoch, event.epoch) + 1
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
        self._keep_until = now + keep_s if cold else self._keep_until if same else None
        if self._keep_until is not None and not cold:
            self._send_again(event.epoch)
        return sorted(touched | {key.claim for key in self._draining})

    def _send_again(self, epoch: int) -> None:
        """Makes the next delta all that is desired, although it replaces nothing, and the deletions after `epoch`, which were lost."""
        self._dirty_endpoints.update(dict.fromkeys(self._endpoints))
        self._dirty_routes.update(dict.fromkeys(self._routes))
        self._dirty_upstreams.update(dict.fromkeys(self._uses))
        self._dirty_services.update(dict.fromkeys(self._services))
        for key in [key for key, deleted in self._draining.items() if deleted > epoch]:
            del self._draining[key]
            self._sent[key] = EndpointPut(key, 1)
            self._dirty_endpoints[key] = None

    def refresh(self) -> None:
        """Makes the next delta the whole table."""
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
        if self._blind or self._keep_until is not None:
            self._blind, self._blind_epoch = True, self._epoch
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
        """Handles EngineApplied. Returns the endpoints that changed."""
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
        """The engine applied no part of the delta. Sends everything again after RETRY_S; the bad entry may be gone by then."""
        if self._outstanding is not None and self._outstanding.epoch == epoch:
            self._outstanding = None
            self._replace = True
            self._retry_at = now + RETRY_S

    def on_drained(self, key: EndpointKey, epoch: int) -> bool:
        """Handles EngineDrained. Returns whether the endpoint was draining."""
        if self._draining.get(key, epoch + 1) > epoch:
            return False
        del self._draining[key]
        return True


def _endpoint_order(key: EndpointKey) -> tuple[ClaimKey, str]:
    return key.claim, key.target
