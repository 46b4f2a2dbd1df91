"""Promise 5: from every state without pending messages, the tree reaches what its live instances and its policy imply.

The remaining steps run in one order without faults: stopped controls start, cut links heal, requests end, and time passes
until a round changes nothing. The expected state is computed from the instances alone.
"""

from __future__ import annotations

from typing import Any

from sdlb.core.messages import ACTIVE, REFUSED, ClaimKey
from sdlb.core.state import text_of
from sdlb.model.policy import Policy
from sdlb.model.rollout import HALTED, PAUSED
from sdlb.sim.explore import core
from sdlb.sim.explore.local import DEFAULT, Problem, compatible
from sdlb.sim.explore.node import DEAD
from sdlb.sim.explore.state import LEAVING, LIVE, RENEWED, State, Step
from sdlb.sim.explore.world import World

ROUNDS_MAX = 40  # of half a lease to a lease each
TIME = Step("time", -1)
RESTS = (HALTED, PAUSED)  # states in which a rollout waits for a person


class Unsettled(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class Convergence:
    def __init__(self, world: World) -> None:
        self.world = world
        self.checked = 0
        self._known: dict[State, Problem | None] = {}
        self._trees: dict[int, dict[str, Any]] = {}
        self._claims: dict[int, tuple[dict[ClaimKey, str], dict[ClaimKey, str]]] = {}

    def check(self, state: State) -> Problem | None:
        self.checked += 1
        path: list[State] = []
        try:
            verdict = self._follow(state, path)
        except Unsettled as end:
            verdict = end.problem
        self._known.update(dict.fromkeys(path, verdict))
        return verdict

    def _follow(self, state: State, path: list[State]) -> Problem | None:
        for _ in range(ROUNDS_MAX):
            state = self._calm(self._mend(state))  # what has left meanwhile is started again, too
            if state in self._known:
                return self._known[state]
            path.append(state)
            after, problem = self.world.take(state, TIME)
            if problem is not None:
                return problem
            if after == state:
                return self._implied(state)
            state = after
        return Problem(5, f"the tree does not settle in {ROUNDS_MAX} rounds without faults")

    def _mend(self, state: State) -> State:
        for node in range(self.world.size):
            if self.world.nodes.states[state[node]].control == DEAD:
                state = self._take(state, Step("start", node))
        for at in self.world.net.pair_at:
            if self.world.links[state[at]].blocked:
                state = self._take(state, Step("heal", self.world.net.pair_at[at][0], at))
        return state

    def _calm(self, state: State) -> State:
        for _ in range(2000):
            step = next(iter(self.world.calm_steps(state)), None)
            if step is None:
                return state
            state = self._take(state, step)
        raise Unsettled(Problem(5, "messages go round without end"))

    def _take(self, state: State, step: Step) -> State:
        after, problem = self.world.take(state, step)
        if problem is not None:
            raise Unsettled(problem)
        return after

    # ------------------------------------------------------------------ what must hold

    def _implied(self, state: State) -> Problem | None:
        world = self.world
        status = world.env(state).status
        live: dict[ClaimKey, list[int]] = {}
        for number, each in enumerate(world.scenario.instances):
            if status[number] == LIVE:
                live.setdefault(ClaimKey(each.service, each.version, each.route), []).append(number)
            elif status[number] in (LEAVING, RENEWED):
                what = "asked to leave" if status[number] == LEAVING else f"of version {each.version} was replaced"
                return Problem(5, f"{each.id} {what} and is never drained")
        problem = None
        for node in range(world.size):
            problem = problem or self._well(state, node)
        roots = [node for node in range(world.size) if not world.parents(state, node)]
        for root in roots:
            below = {
                key: [n for n in numbers if root in self._roots(state, world.hosts[n])] for key, numbers in live.items()
            }
            problem = problem or self._decisions(state, root, {key: found for key, found in below.items() if found})
        for node in range(world.size):
            problem = problem or self._table(state, node, live)
        if world.with_roles:
            problem = problem or next((found for root in roots if (found := self._rolled(state, root))), None)
        return problem

    def _rolled(self, state: State, root: int) -> Problem | None:
        """Promise 9: the rollout is over or waits for a person; no node holds a slot; hosts run what it says."""
        world = self.world
        control = world.nodes.control(world.nodes.states[state[root]].control)
        target = core.target(control)
        assert target is not None and target.rollout is not None
        rollout = target.rollout
        name = f"{rollout.id} to {rollout.to}"
        if not rollout.ended and rollout.state not in RESTS:
            return Problem(9, f"{name} stays {rollout.state} at {world.names[root]}: {rollout.detail}")
        if slots := core.open_slots(control):
            return Problem(9, f"{name} is {rollout.state}, and {', '.join(slots)} still has its slot")
        for node in sorted(world.with_roles):
            runs = sorted(world.nodes.programs[world.nodes.states[state[node]].programs].running().values())
            may = [target.settled] if rollout.ended else [rollout.before, rollout.to]
            many = len(runs) > 1 and not (
                rollout.incompatible and not rollout.ended
            )  # the new version waits beside the old one
            if not runs or many or not set(runs) <= set(may) - set(world.scenario.bad):
                text = f"{name} is {rollout.state}, and {world.names[node]} runs {', '.join(runs) or 'nothing'}"
                return Problem(9, text)
        return None

    def _tree(self, state: State, node: int) -> dict[str, Any]:
        control = self.world.nodes.states[state[node]].control
        if control not in self._trees:
            live = self.world.nodes.control(control)
            self._trees[control] = core.tree(live)
            self._claims[control] = core.claim_states(live), core.claim_reasons(live)
        return self._trees[control]

    def _well(self, state: State, node: int) -> Problem | None:
        world = self.world
        tree = self._tree(state, node)
        name = world.names[node]
        if tree["guarded"] or tree["cut_off"] or not tree["ready"]:
            return Problem(5, f"{name} is not ready: {tree['detail']}, guarded={tree['guarded']}")
        there = {child["name"] for child in tree["children"]}
        here = {child["name"] for child in tree["children"] if child["state"] == "connected"}
        ought = {world.names[n] for n in range(world.size) if node in world.parents(state, n)}
        if here != ought or there != ought:
            return Problem(5, f"{name} is connected to {sorted(here)} and knows {sorted(there)}, not {sorted(ought)}")
        lost = [parent["address"] for parent in tree["parents"] if parent["state"] != "connected"]
        if lost:
            return Problem(5, f"{name} is not connected to {lost}")
        return None

    def _roots(self, state: State, node: int) -> set[int]:
        parents = self.world.parents(state, node)
        return {root for parent in parents for root in self._roots(state, parent)} if parents else {node}

    def _decisions(self, state: State, root: int, live: dict[ClaimKey, list[int]]) -> Problem | None:
        world = self.world
        name = world.names[root]
        self._tree(state, root)
        states, reasons = self._claims[world.nodes.states[state[root]].control]
        if set(states) != set(live):
            ghosts, unheard = sorted(set(states) - set(live)), sorted(set(live) - set(states))
            return Problem(5, f"{name} knows of {_texts(ghosts)}, not there; and does not know of {_texts(unheard)}")
        for route in sorted({key.route for key in live}):
            holders = {key.service for key in live if key.route == route and states[key] != REFUSED}
            if len(holders) != 1:
                return Problem(5, f"{route} is held by {sorted(holders)} at {name}")
        for service in sorted({key.service for key in live}):
            mine = [key for key in live if key.service == service and states[key] != REFUSED]
            active = {key.version for key in mine if states[key] == ACTIVE}
            if mine and not active:
                return Problem(5, f"{name}: no version of {service} is active ({reasons[mine[0]]})")
            policy = self._policy(state, service)
            for key in mine:
                rivals = [v for v in sorted(active) if not compatible(world.scenario, service, v, key.version, policy)]
                if states[key] == ACTIVE and rivals:
                    return Problem(5, f"{name}: {key.version} and {rivals[0]} of {service} are both active")
                newest = states[key] != ACTIVE and all(v < key.version for v in rivals)
                if rivals and newest and core.flips(policy) and not self._may_be_reverted(state, reasons[key]):
                    return Problem(5, f"{name}: {text_of(key)} could have replaced {rivals[0]}: {reasons[key]}")
                if states[key] != ACTIVE and not rivals:
                    return Problem(5, f"{name}: {text_of(key)} waits although nothing blocks it: {reasons[key]}")
        return None

    def _may_be_reverted(self, state: State, reason: str) -> bool:
        """Whether the version waits because its cut-over was reverted, after a fault or by its hook; or because the old version
        served again while it was silent."""
        env, faults = self.world.env(state), self.world.scenario.faults
        happened = (env.kill, env.cut, env.power) != (faults.kill, faults.cut, faults.power)
        if "only when it is promoted" in reason:
            return happened
        late = "it took longer" in reason  # a lease, of which half passes at once, is longer than requests are parked
        return "reverted" in reason and (happened or late or "no" in self.world.scenario.answers)

    def _policy(self, state: State, service: str) -> Policy:
        """The one that was set last."""
        policy, done = DEFAULT, self.world.env(state).done
        for text in self.world.scenario.policies:
            name, _, document = text.partition(" ")
            policy = Policy.from_json(document) if name == service else policy
        for number, action in enumerate(self.world.scenario.actions):
            name, _, document = action.subject.partition(" ")
            if action.kind == "policy" and name == service and done >> number & 1:
                policy = Policy.from_json(document)
        return policy

    def _table(self, state: State, node: int, live: dict[ClaimKey, list[int]]) -> Problem | None:
        """Its engine has exactly the endpoints that lead to an instance whose version is active at its roots."""
        world = self.world
        table = world.nodes.tables[world.nodes.states[state[node]].engine]
        have = set(table.keys())
        ought: set[tuple[ClaimKey, str]] = set()
        for key, numbers in live.items():
            for number in numbers:
                host = world.hosts[number]
                if all(self._active(state, root, key) for root in self._roots(state, host)):
                    ought |= {(key, target) for at, target in self._way(state, host, number) if at == node}
        got = {(key.claim, self._plain(key.target)) for key in have}
        if got != ought:
            extra, missing = sorted(got - ought), sorted(ought - got)
            return Problem(5, f"the engine of {world.names[node]} has {extra} too much and lacks {missing}")
        picked = {(put.service, pick.version, put.pattern) for put in table.routes for pick in put.picks}
        lacking = sorted(key for key, _ in ought if tuple(key) not in picked)
        if lacking:
            return Problem(5, f"the engine of {world.names[node]} has no route to {text_of(lacking[0])}")
        return None

    @staticmethod
    def _plain(target: str) -> str:
        return target.partition("#")[0]

    def _active(self, state: State, root: int, key: ClaimKey) -> bool:
        self._tree(state, root)
        states, _ = self._claims[self.world.nodes.states[state[root]].control]
        return states.get(key) == ACTIVE

    def _way(self, state: State, host: int, number: int) -> list[tuple[int, str]]:
        world = self.world
        way = [(host, f"i:{world.scenario.instances[number].id}")]
        todo = [host]
        while todo:
            node = todo.pop()
            for parent in world.parents(state, node):
                way.append((parent, f"n:{world.names[node]}"))
                todo.append(parent)
        return way


def _texts(keys: list[ClaimKey]) -> str:
    return ", ".join(f"{key.service}-{key.version}" for key in keys) or "nothing"
