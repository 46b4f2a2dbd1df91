"""The promises that need the whole tree (1, 2 and 3), checked whenever an engine's table or an instance has changed.

They use the engines' tables and the truth about instances, never the state of control.
"""

from __future__ import annotations

from typing import NamedTuple

from sdlb.model.policy import Policy
from sdlb.sim.explore import core
from sdlb.sim.explore.local import Problem, compatible
from sdlb.sim.explore.node import DEAD
from sdlb.sim.explore.state import LAPSED, LEAVING, LIVE, RENEWED, STOPPED, State, Step
from sdlb.sim.explore.world import World

FAULTS = ("engine-crash", "power")


class Serving(NamedTuple):
    """Numbers of the instances that are in their host's engine, and of those that only have requests in flight."""

    endpoints: frozenset[int]
    draining: frozenset[int]


class Promises:
    def __init__(self, world: World) -> None:
        self.world = world
        self._served: dict[tuple[int, int], Serving] = {}
        self._reached: dict[tuple[int, ...], frozenset[tuple[int, str]]] = {}
        scenario = world.scenario
        self._all = scenario.instances
        self._rivals = [
            [
                other
                for other, b in enumerate(self._all)
                if a.service == b.service
                and a.route == b.route
                and not compatible(scenario, a.service, a.version, b.version)
            ]
            for a in self._all
        ]
        self._flips = any(core.flips(Policy.from_json(text.partition(" ")[2])) for text in scenario.policies)
        self._side_by_side = not any(self._rivals)
        self._routes = sorted({each.route for each in self._all})

    def check(self, before: State, after: State, step: Step) -> tuple[State, Problem | None]:
        """`after`, with what is to be remembered; what is broken."""
        world = self.world
        states = world.nodes.states
        called = [n for n in range(world.size) if states[before[n]].hooks != states[after[n]].hooks]
        problem = next((found for node in called if (found := self._alone(after, node)) is not None), None)
        if problem is not None:
            return after, problem
        changed = [n for n in range(world.size) if states[before[n]].engine != states[after[n]].engine]
        if not changed and world.env(before).status == world.env(after).status:
            return after, None
        problem = self._ended(before, after, step) or self._entries(before, after, step)
        problem = problem or self._capacity(before, after)
        for node in changed:
            was, now = self.serving(before, node), self.serving(after, node)
            for instance in sorted(now.endpoints - was.endpoints):
                problem = problem or self._opens(after, node, instance)
                after = self._set_served(after, instance, True)
            for instance in sorted(was.endpoints - now.endpoints):
                if step.kind == "apply":
                    after, found = self._closes(after, node, instance)
                    problem = problem or found
        return after, problem

    # ------------------------------------------------------------------ 1 and 2

    def serving(self, state: State, node: int) -> Serving:
        engine = self.world.nodes.states[state[node]].engine
        known = self._served.get((node, engine))
        if known is None:
            table = self.world.nodes.tables[engine]
            endpoints = [number for key in table.keys() for number in self._instance(node, key)]
            draining = [number for key, _ in table.draining for number in self._instance(node, key)]
            known = self._served[node, engine] = Serving(frozenset(endpoints), frozenset(draining))
        return known

    def _instance(self, node: int, key: tuple[tuple[str, str, str], str]) -> list[int]:
        claim, target = key
        name = target[2:].partition("#")[0] if target.startswith("i:") else ""
        return [
            number
            for number, each in enumerate(self._all)
            if self.world.hosts[number] == node
            and each.id == name
            and (each.service, each.version, each.route) == tuple(claim)
        ]

    def _opens(self, state: State, node: int, instance: int) -> Problem | None:
        env = self.world.env(state)
        for root in range(self.world.size):
            problem = self._alone(state, root) if self.world.nodes.states[state[root]].hooks else None
            if problem is not None:
                return problem
        for other in self._rivals[instance]:
            host = self.world.hosts[other]
            there = self.serving(state, host)
            dead = env.status[other] == STOPPED
            back = self._all[other].version > self._all[instance].version  # it has replaced this version
            presumed = dead or env.status[other] == LAPSED  # its requests in flight are not waited for forever
            endpoint, carrying = other in there.endpoints and not dead, other in there.draining and not presumed
            waiting = env.status[other] == LIVE and env.served >> other & 1 and (back or not self._flips)
            if not (endpoint or carrying or waiting) or not self._accountable(state, node, host):
                continue
            mine, its = self._name(instance), self._name(other)
            if endpoint:
                return Problem(1, f"{mine} gets requests while {its} does")
            state_of = "has requests in flight" if carrying else "has not stopped"
            return Problem(2, f"{mine} gets requests while {its} {state_of}")
        return None

    def _alone(self, state: State, root: int) -> Problem | None:
        """While a hook in the gap runs, no version of its service serves, and no other root runs it."""
        world = self.world
        for effect in world.nodes.gap_hooks(world.nodes.states[state[root]]):
            for node in range(world.size):
                if not self._accountable(state, root, node) and not (self._roots_heard(state, root, node)):
                    continue
                for number in sorted(self.serving(state, node).endpoints):
                    if self._all[number].service == effect.service and world.env(state).status[number] != STOPPED:
                        return Problem(2, f"{self._name(number)} gets requests while the hook {effect.key} runs")
                others = world.nodes.gap_hooks(world.nodes.states[state[node]]) if node != root else []
                if any(other.service == effect.service and other.hook == effect.hook for other in others):
                    return Problem(2, f"two roots run the hook {effect.hook.name} of {effect.service}")
        return None

    def _roots_heard(self, state: State, a: int, b: int) -> bool:
        """Whether both are roots, and no node has lost one of them."""
        world = self.world
        if world.parents(state, a) or world.parents(state, b):
            return False
        return not any(self._silent(state, child, parent) for child, parent in world.pairs)

    def _closes(self, state: State, node: int, instance: int) -> tuple[State, Problem | None]:
        """A live instance is closed in favour of another version only to join a split tree."""
        world = self.world
        env = world.env(state)
        control = world.nodes.states[state[node]].control
        if env.status[instance] != LIVE or control == DEAD:
            return state, None
        known = world.registration(control, instance)
        if known is None or known.state != "waiting" or known.reason_code in ("opening", "asking"):
            return state, None
        state = self._set_served(state, instance, False)
        if self._flips or self._may_have_split(state) or self._told_otherwise(env.done):
            return state, None
        return state, Problem(2, f"{self._name(instance)} is closed although it is alive: {known.reason}")

    def _may_have_split(self, state: State) -> bool:
        """Whether a node was silent for a lease, or left for longer. Decisions of that time are corrected later, which may take long."""
        env, faults = self.world.env(state), self.world.scenario.faults
        lasting = (env.kill, env.cut, env.power) != (faults.kill, faults.cut, faults.power)
        return self.world.scenario.time and (lasting or bool(self._done(env.done, "stop")))

    def _told_otherwise(self, done: int) -> bool:
        """Whether an operator has reported, perhaps wrongly, that a node has stopped, or has denied a compatible pair."""
        return bool(self._done(done, "forget", "policy"))

    def _done(self, done: int, *kinds: str) -> set[int]:
        """The nodes at which an operator has done one of these."""
        actions = enumerate(self.world.scenario.actions)
        return {self.world.owners[n] for n, action in actions if action.kind in kinds and done >> n & 1}

    def _set_served(self, state: State, instance: int, served: bool) -> State:
        world = self.world
        env = world.env(state)
        bits = env.served | 1 << instance if served else env.served & ~(1 << instance)
        if bits == env.served:
            return state
        return (*state[: world.env_at], world.envs.number(env._replace(served=bits)))

    def _name(self, instance: int) -> str:
        each = self._all[instance]
        return f"{each.id} ({each.service}-{each.version} on {each.host})"

    def _silent(self, state: State, child: int, parent: int) -> bool:
        nodes = self.world.nodes
        below, above = (nodes.memories[nodes.states[state[n]].memory] for n in (child, parent))
        return below.silent(parent) or above.silent(child)

    def _accountable(self, state: State, a: int, b: int) -> bool:
        """Whether there is a root that both have been in touch with, lately and without a gap as long as a lease."""
        return a == b or bool(self._above(state, a) & self._above(state, b))

    def _above(self, state: State, node: int) -> set[int]:
        parents = self.world.parents(state, node)
        if not parents:
            return {node}
        near = [parent for parent in parents if not self._silent(state, node, parent)]
        return {root for parent in near for root in self._above(state, parent)}

    # ------------------------------------------------------------------ 3

    def _ended(self, before: State, after: State, step: Step) -> Problem | None:
        """No instance is reported as drained while its engine sends it requests or, before its deadline, while it has requests
        in flight."""
        was, now = self.world.env(before).status, self.world.env(after).status
        if was == now or step.kind in FAULTS:
            return None
        died = self._dies(step)
        for number, status in enumerate(now):
            if status == STOPPED != was[number] and number != died:
                host = self.world.hosts[number]
                there = self.serving(after, host)
                late = step.kind == "time" or self.world.env(before).late >> number & 1
                if number in there.endpoints or (number in there.draining and not late):
                    doing = "gets" if number in there.endpoints else "carries"
                    return Problem(3, f"{self._name(number)} is reported as drained while it {doing} requests")
        return None

    def _capacity(self, before: State, after: State) -> Problem | None:
        """Promise 9: no rollout of a compatible version takes a second host out of service."""
        world = self.world
        env, faults = world.env(after), world.scenario.faults
        if not world.with_roles or not self._side_by_side or (env.engine, env.power) != (faults.engine, faults.power):
            return None
        was, now = self._hosts_out(before), self._hosts_out(after)
        if len(now) > 1 and now > was:
            return Problem(9, f"the rollout takes {' and '.join(sorted(world.names[n] for n in now))} out at once")
        return None

    def _hosts_out(self, state: State) -> set[int]:
        """Hosts with the role without a program that gets requests."""
        world = self.world
        status = world.env(state).status
        return {
            node
            for node in world.with_roles
            if not any(status[n] in (LIVE, LEAVING) for n in self.serving(state, node).endpoints)
        }

    def _dies(self, step: Step) -> int:
        """The instance whose process dies by this step; -1: none."""
        action = self.world.scenario.actions[int(step.arg)] if step.kind == "act" else None
        return action.instance if action is not None and action.kind == "gone" else -1

    def _entries(self, before: State, after: State, step: Step) -> Problem | None:
        """No entry loses its last path to a route while an instance for it could serve."""
        world = self.world
        env, faults = world.env(after), world.scenario.faults
        if env.engine < faults.engine or env.power < faults.power:
            return None  # the step removed endpoints itself; reports about them may still be under way
        lost = {each for each in self.reached(before) - self.reached(after) if not world.parents(after, each[0])}
        if not lost or any(self._silent(after, child, parent) for child, parent in world.pairs):
            return None
        for root, route in sorted(lost):
            able = next((n for n in range(len(self._all)) if self._able(before, after, n, root, route)), None)
            if able is not None:
                name = world.names[root]
                return Problem(3, f"{name} has no path left to {route}, although {self._name(able)} could serve it")
        return None

    def _able(self, before: State, after: State, number: int, root: int, route: str) -> bool:
        """Whether this instance could have served the route at this entry.

        One that served until now could, unless the route had to be closed for an incompatible version; then requests are
        parked. After an instance was asked to leave or has died, an entry need not wait for another one that it did not know,
        and may park requests for one that it knew.
        """
        world = self.world
        status = world.env(after).status
        each, host = self._all[number], world.hosts[number]
        if each.route != route or status[number] not in (LIVE, RENEWED) or root not in self._ways(after, host):
            return False
        late = {n for n, one in enumerate(status) if one == RENEWED and world.env(after).late >> n & 1}
        if number in late:
            return False  # past its deadline a drain is over
        parked = self._parks(after, root, route)
        if LEAVING not in status and STOPPED not in status and not late:
            rivals = any(status[other] == LIVE for other in self._rivals[number])
            return number in self.serving(before, host).endpoints and not (rivals and parked)
        return status[number] == LIVE and self._knew(before, root, number) and not parked

    def _parks(self, state: State, root: int, route: str) -> bool:
        table = self.world.nodes.tables[self.world.nodes.states[state[root]].engine]
        return any(put.pattern == route and put.park_requests_max and not put.recent for put in table.routes)

    def _knew(self, state: State, root: int, instance: int) -> bool:
        """Whether this root's control knew that the instance's version can serve when it sent the delta."""
        nodes = self.world.nodes
        each = self._all[instance]
        known = nodes.known[nodes.states[state[root]].knew]
        return any(tuple(key) == (each.service, each.version, each.route) for key in known)

    def _ways(self, state: State, node: int) -> set[int]:
        """Roots above, on paths without a node that is leaving."""
        if node in self._done(self.world.env(state).done, "stop"):
            return set()
        parents = self.world.parents(state, node)
        return {root for parent in parents for root in self._ways(state, parent)} if parents else {node}

    def reached(self, state: State) -> frozenset[tuple[int, str]]:
        """(root, route) pairs with a path through the engines to an instance whose process is alive."""
        world = self.world
        states = world.nodes.states
        status = world.env(state).status
        roots = [n for n in range(world.size) if not world.parents(state, n)]
        key = (*(states[state[n]].engine for n in range(world.size)), *status, *roots)
        known = self._reached.get(key)
        if known is None:
            known = self._reached[key] = frozenset(
                (root, route) for root in roots for route in self._routes if self._enters(state, root, route)
            )
        return known

    def _enters(self, state: State, root: int, route: str) -> bool:
        nodes = self.world.nodes
        table = nodes.tables[nodes.states[state[root]].engine]
        for put in table.routes:
            if put.pattern == route:
                return any(self._leads(state, root, (put.service, pick.version, route), ()) for pick in put.picks)
        return False

    def _leads(self, state: State, node: int, claim: tuple[str, str, str], seen: tuple[int, ...]) -> bool:
        nodes = self.world.nodes
        status = self.world.env(state).status
        for key in nodes.tables[nodes.states[state[node]].engine].keys():
            if tuple(key.claim) != claim or node in seen:
                continue
            if key.target.startswith("n:"):
                child = nodes.index[key.target[2:]]
                if self._leads(state, child, claim, (*seen, node)):
                    return True
            elif any(status[number] in (LIVE, LEAVING, RENEWED) for number in self._instance(node, key)):
                return True
        return False
