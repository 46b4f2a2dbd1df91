"""The desired table and an engine, interrupted anywhere: in the end the engine has the desired state. An endpoint that
was in the engine, or draining there, always counted as present."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdlb.core.effects import Apply, RoutePut, ServicePut, UpstreamPut
from sdlb.core.events import EndpointKey, EngineAttached, EngineDrained
from sdlb.core.messages import ClaimKey
from sdlb.core.table import RETRY_S, Table
from sdlb.model.traffic import Traffic
from sdlb.sim.engine import Engine

CLAIMS = [ClaimKey("catalog", version, "example.com/*") for version in ("1.0.0", "2.0.0")]
TARGETS = ["i:a", "i:b", "n:rack"]
KEYS = st.builds(EndpointKey, st.sampled_from(CLAIMS), st.sampled_from(TARGETS))
ADDRESSES = st.sampled_from(["10.0.0.1:80", "10.0.0.2:80"])
ROUTES = st.sampled_from(["example.com/*", "example.com/a*"])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = Table(1 << 32)
        self.targets = {target: UpstreamPut(target, target.startswith("n:"), "10.0.0.1:80") for target in TARGETS}
        for target in self.targets.values():
            self.table.set_upstream(target.key, target.is_node, target.address)
        self.engine = Engine()
        self.wanted: dict[EndpointKey, int] = {}
        self.routes: dict[str, RoutePut] = {}
        self.services: dict[str, ServicePut] = {}
        self.outstanding: Apply | None = None
        self.untold: list[EngineDrained] = []
        self._attach()

    # ------------------------------------------------------------------ control

    def _next(self) -> None:
        delta = self.table.next_delta(self.now)
        if delta is not None:
            assert self.outstanding is None, "two deltas at once"
            self.outstanding = delta

    def _attach(self) -> None:
        engine = self.engine
        endpoints = sum(len(group) for group in engine.groups.values())
        draining = tuple((key, engine.in_flight.get(key, 0)) for key in engine.draining)
        self.table.on_attached(EngineAttached(engine.boot_id, engine.epoch, endpoints, draining), self.now, 0.0)
        self.outstanding = None
        self.untold = []
        self._next()

    @rule(name=st.sampled_from(["catalog", "cart"]), timeout_s=st.sampled_from([0.0, 1.0, 2.0]))
    def set_service(self, name: str, timeout_s: float) -> None:
        traffic = Traffic(timeout_s=timeout_s)
        self.services[name] = ServicePut(name, traffic)
        if traffic == Traffic():
            del self.services[name]
        self.table.set_service(name, traffic)
        self._next()

    @rule()
    def join(self) -> None:
        """A second process joins: the whole table is sent again."""
        self.table.refresh()
        self._next()

    @rule(key=KEYS, capacity=st.integers(1, 3))
    def want(self, key: EndpointKey, capacity: int) -> None:
        self.wanted[key] = capacity
        self.table.put_endpoint(key, capacity)
        self._next()

    @rule(key=KEYS)
    def unwant(self, key: EndpointKey) -> None:
        self.wanted.pop(key, None)
        self.table.delete_endpoint(key)
        self._next()

    @rule(name=st.sampled_from(TARGETS), address=ADDRESSES, protocol=st.sampled_from(["http1", "h2c"]))
    def target_changes(self, name: str, address: str, protocol: str) -> None:
        changed = self.targets[name] = UpstreamPut(name, name.startswith("n:"), address, protocol)
        self.table.set_upstream(changed.key, changed.is_node, changed.address, changed.protocol)
        self._next()

    @rule(pattern=ROUTES, service=st.sampled_from(["catalog", "shop"]) | st.none())
    def set_route(self, pattern: str, service: str | None) -> None:
        route = RoutePut(pattern, service, ()) if service else None
        if route is None:
            self.routes.pop(pattern, None)
            if self.table.route(pattern) is None:
                return
        else:
            self.routes[pattern] = route
        self.table.set_route(pattern, route)
        self._next()

    # ------------------------------------------------------------------ engine

    @precondition(lambda self: self.outstanding is not None)
    @rule()
    def apply(self) -> None:
        delta, self.outstanding = self.outstanding, None
        assert delta is not None
        self.engine.apply(delta)
        self.table.on_applied(delta.epoch)
        self.untold += self.engine.drained()
        self._next()

    @precondition(lambda self: self.outstanding is not None)
    @rule()
    def reject(self) -> None:
        delta, self.outstanding = self.outstanding, None
        assert delta is not None
        self.table.on_rejected(delta.epoch, self.now)
        self.now += RETRY_S
        self._next()

    @rule(key=KEYS)
    def request_begins(self, key: EndpointKey) -> None:
        if key.target in self.engine.groups.get(key.claim, {}):
            self.engine.begin(key)

    @rule(key=KEYS)
    def request_ends(self, key: EndpointKey) -> None:
        self.engine.end(key)
        self.untold += self.engine.drained()

    @precondition(lambda self: self.untold)
    @rule()
    def tell_drained(self) -> None:
        event = self.untold.pop(0)
        self.table.on_drained(event.key, event.epoch)
        self._next()

    @rule(arrived=st.booleans())
    def connection_is_lost(self, arrived: bool) -> None:
        """What was on its way may have arrived; the answer has not."""
        if self.outstanding is not None and arrived:
            self.engine.apply(self.outstanding)
            self.engine.drained()
        self.outstanding = None
        self.table.on_lost()
        self._attach()

    @rule()
    def engine_restarts(self) -> None:
        self.engine.crash()
        self.table.on_lost()
        self.engine.up = True
        self._attach()

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def what_the_engine_has_is_present(self) -> None:
        for key in [*self.engine.endpoints(), *self.engine.draining]:
            assert self.table.present(key)

    @invariant()
    def what_can_be_used_is_there(self) -> None:
        for key in self.wanted:
            if self.table.applied(key):
                assert key.target in self.engine.groups.get(key.claim, {})

    def teardown(self) -> None:
        for key in list(self.engine.in_flight):
            while key in self.engine.in_flight:
                self.request_ends(key)
        for _ in range(20):
            if self.outstanding is not None:
                self.apply()
            while self.untold:
                self.tell_drained()
        assert self.table.settled
        have = {EndpointKey(c, t): m.capacity for c, group in self.engine.groups.items() for t, m in group.items()}
        assert have == self.wanted
        assert self.engine.routes == self.routes
        assert self.engine.services == self.services
        assert self.engine.targets == {key.target: self.targets[key.target] for key in self.wanted}
        assert not any(
            self.table.present(EndpointKey(c, t)) for c in CLAIMS for t in TARGETS if EndpointKey(c, t) not in have
        )


TestTable = Machine.TestCase
TestTable.settings = settings(stateful_step_count=40)
