"""The whole tree as one tuple of numbers, and the steps that lead from one to the next.

    (node, node, ..., link, up queue, down queue, link, ..., environment)

Every step belongs to one node: it reads that node's queues and appends to the queues of its neighbours. Only the passing of
time concerns all nodes. It happens when no other step is possible.
"""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.sim.explore import core
from sdlb.sim.explore.links import Links
from sdlb.sim.explore.local import Problem
from sdlb.sim.explore.node import DEAD, Nodes, Out, Result, is_beat
from sdlb.sim.explore.state import (
    KINDS,
    LAPSED,
    LEAVING,
    LIVE,
    NEW,
    RENEWED,
    STOPPED,
    Broken,
    Env,
    Link,
    State,
    Step,
)
from sdlb.sim.explore.tables import Interned
from sdlb.sim.explore.topology import Scenario

FIRST_ROUNDS_MAX = 40


class World:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario: Scenario = scenario
        self.names = tuple(scenario.tree)
        self.nodes = Nodes(scenario, self.names)
        self.size = len(self.names)
        index = self.nodes.index
        pairs = [(name, parent) for name, parents in scenario.tree.items() for parent in parents]
        pairs += [pair for pair in scenario.wider if pair not in pairs]
        self.pairs = [(index[child], index[parent]) for child, parent in pairs]
        self.net = Links(self.nodes, self.pairs)
        self.links = self.net.table
        self.envs: Interned[Env] = Interned()
        self.env_at = self.size + 3 * len(self.pairs)
        self.hosts = [index[instance.host] for instance in scenario.instances]
        self.with_roles = {index[name] for name in scenario.roles}
        self.owners = [index[action.node] for action in scenario.actions]
        self.victims = {index[name] for name in scenario.faults.at or self.names}
        self.groups = [tuple(index[name] for name in names) for names in scenario.alike]
        self._takers = {
            kind: getattr(self, "_take_" + kind.replace("-", "_")) for kind in (*KINDS, "register", "order")
        }
        self._specs = [instance.spec() for instance in scenario.instances]
        self._forgetful = {self.owners[n] for n, action in enumerate(scenario.actions) if action.kind == "restore"}
        self._first_disks: list[int] = []  # of each node

    # ------------------------------------------------------------------ the start

    def first(self) -> State:
        """The tree is up and the first instances serve. No faults until then."""
        nodes, index = self.nodes, self.nodes.index
        state = [nodes.first(n, tuple(index[p] for p in self.scenario.tree[name])) for n, name in enumerate(self.names)]
        for _ in self.pairs:
            state += [self.links.number(Link()), 0, 0]
        faults = self.scenario.faults
        status = (NEW,) * len(self._specs)
        env = Env(0, faults.kill, faults.reset, faults.cut, faults.engine, faults.power, faults.detach, status, 0)
        now: State = (*state, self.envs.number(env))
        for node in range(self.size):
            now = self.sure(now, Step("start", node))
        now = self.calm(now)
        for text in self.scenario.policies:
            for node in range(self.size):
                if not self.parents(now, node):
                    now = self.calm(self.sure(now, Step("order", node, core.policy_put(text))))
        if self.scenario.roles:
            now = self._first_rollout(now)
        for number in self.scenario.first:
            now = self.calm(self.sure(now, Step("register", self.hosts[number], number)))
        if self.scenario.time:
            for _ in range(3):
                now = self.calm(self.sure(now, Step("time", -1)))
        self._first_disks = [nodes.states[now[node]].disk for node in range(self.size)]
        env = self.env(now)._replace(alike=(1 << len(self.groups)) - 1)
        return (*now[: self.env_at], self.envs.number(env))

    def _first_rollout(self, now: State) -> State:
        """All hosts with the role run the first version."""
        root = next(node for node in range(self.size) if not self.parents(now, node))
        for version in self.scenario.releases:
            now = self.calm(self.sure(now, Step("order", root, core.release(version))))
        now = self.calm(self.sure(now, Step("order", root, core.rollout(f"start {self.scenario.releases[0]}"))))
        for _ in range(FIRST_ROUNDS_MAX):
            target = core.target(self.nodes.control(self.nodes.states[now[root]].control))
            if target is not None and target.active is None:
                return now
            now = self.calm(self.sure(now, Step("time", -1)))
        raise AssertionError("the first rollout is never done")

    def sure(self, state: State, step: Step) -> State:
        after, problem = self.take(state, step)
        if problem is not None:
            raise Broken(problem)
        return after

    def calm(self, state: State) -> State:
        """Delivers all pending messages in one order, without faults."""
        for _ in range(2000):
            step = next(iter(self.calm_steps(state)), None)
            if step is None:
                return state
            state = self.sure(state, step)
        raise AssertionError("the tree never becomes idle")

    # ------------------------------------------------------------------ parts

    def env(self, state: State) -> Env:
        return self.envs[state[self.env_at]]

    def alive(self, state: State, node: int) -> bool:
        return self.nodes.states[state[node]].control != DEAD

    def parents(self, state: State, node: int) -> tuple[int, ...]:
        return self.nodes.states[state[node]].parents

    def _connectable(self, state: State, at: int, child: int, parent: int) -> bool:
        own = self.nodes.states[state[child]]
        if not own.dials & ~own.waits & 1 << parent:
            return False
        link = self.links[state[at]]
        return not link.child and not link.blocked and self.alive(state, parent)

    # ------------------------------------------------------------------ which steps there are

    def node_steps(self, state: State, node: int) -> list[Step]:
        """Steps in which control of this node handles pending messages."""
        own = self.nodes.states[state[node]]
        steps: list[Step] = []
        if own.control == DEAD:
            return steps
        for at, child in self.net.as_parent[node]:
            if state[at + 1]:
                steps.append(Step("up", node, (at, child)))
        for at, parent in self.net.as_child[node]:
            if state[at + 2]:
                steps.append(Step("down", node, (at, parent)))
            elif own.dials and self._connectable(state, at, node, parent):
                steps.append(Step("connect", node, (at, parent)))
        if own.out:
            steps.append(Step("engine", node))
        if own.answers:
            steps.append(Step("driver", node))
        if own.hooks:
            steps += [Step("hook", node, answer) for answer in self.scenario.answers]
        status = self.env(state).status
        if STOPPED in status:
            for number, each in enumerate(status):
                mine = self.hosts[number] == node and not self.scenario.instances[number].place
                if each == STOPPED and mine and self._still_known(own.control, number):
                    steps.append(Step("notice", node, number))
        if node in self._forgetful:
            for number, each in enumerate(status):
                if self.hosts[number] == node and self._asks_again(own.control, number, each):
                    steps.append(Step("renew", node, number))
        return steps

    def _asks_again(self, control: int, number: int, status: int) -> bool:
        """Whether its node has lost its registration or its drain. Programs then repeat their request."""
        known = self.registration(control, number)
        if status == LIVE:
            return known is None
        return status == LEAVING and known is not None and known.state not in ("draining", "drained")

    def _still_known(self, control: int, number: int) -> bool:
        """Whether it is registered at its node, but its process has exited."""
        known = self.registration(control, number)
        return known is not None and known.current

    def registration(self, control: int, number: int) -> core.Registration | None:
        """Of an instance, at its host."""
        spec = self._specs[number]
        key = (spec.service, spec.version, spec.routes[0])
        return next((r for r in self.nodes.reports(control).values() if r.id == spec.id and r.key == key), None)

    def engine_steps(self, state: State, node: int) -> list[Step]:
        own = self.nodes.states[state[node]]
        steps: list[Step] = []
        if own.pending >= 0:
            steps.append(Step("apply", node))
        if own.calls:
            steps.append(Step("call", node))
        for key, _ in self.nodes.tables[own.engine].draining:
            steps.append(Step("drained", node, key))
        return steps

    def calm_steps(self, state: State) -> list[Step]:
        """Steps that must happen before time can pass. Draining requests may take longer, so they come last."""
        steps = [step for node in range(self.size) for step in self.node_steps(state, node)]
        steps += [step for node in range(self.size) for step in self.engine_steps(state, node)]
        return steps

    def at_rest(self, state: State) -> bool:
        """Whether no message is pending. Requests may still drain."""
        states = self.nodes.states
        busy = (states[state[n]].pending >= 0 or states[state[n]].calls for n in range(self.size))
        return not any(busy) and not any(self.node_steps(state, n) for n in range(self.size))

    def outside_steps(self, state: State, node: int) -> list[Step]:
        """Steps of operators, programs and faults at this node."""
        env = self.env(state)
        own = self.nodes.states[state[node]]
        steps: list[Step] = []
        spared = node not in self.victims
        for number, action in enumerate(self.scenario.actions):
            ready = not env.done >> number & 1 and all(env.done >> other & 1 for other in action.after)
            if ready and self.owners[number] == node and own.control != DEAD:
                steps.append(Step("act", node, number))
        if own.control == DEAD:
            steps.append(Step("start", node))
        elif env.kill and not spared:
            steps.append(Step("kill", node))
            steps += self._crashes(state, node)
        for at, _ in self.net.as_child[node]:
            link = self.links[state[at]]
            if env.reset and link.child and not spared:
                steps.append(Step("reset", node, at))
            if env.cut and not link.blocked and link.child and not spared:
                steps.append(Step("cut", node, at))
            if link.blocked:
                steps.append(Step("heal", node, at))
        if env.engine and not spared:
            steps.append(Step("engine-crash", node))
        if env.detach and not spared and own.attached:
            steps.append(Step("detach", node))
        if env.power and not spared and own.control != DEAD:
            steps.append(Step("power", node))
        return steps

    def _crashes(self, state: State, node: int) -> list[Step]:
        steps: list[Step] = []
        for step in self.node_steps(state, node):
            if step.kind == "notice":
                continue
            event = self._event_of(state, step)
            for place in range(self.nodes.step(node, state[node], event).cuts):
                steps.append(Step("crash", node, (step, place)))
        return steps

    def _event_of(self, state: State, step: Step) -> int:
        queues = self.nodes.queues
        match step.kind:
            case "up":
                return queues.head[state[int(step.arg[0]) + 1]]
            case "down":
                return queues.head[state[int(step.arg[0]) + 2]]
            case "connect":
                return self.nodes.event("connect", step.arg[1])
            case "hook":
                return self.nodes.event("hook", step.arg)
            case "driver":
                return self.nodes.event("driver")
            case _:
                return self.nodes.event("engine")

    # ------------------------------------------------------------------ taking one

    def take(self, state: State, step: Step) -> tuple[State, Problem | None]:
        new = list(state)
        problem = self._takers[step.kind](new, step)
        env = self.envs[new[self.env_at]]
        if env.alike and step.kind != "time":
            self._tell_apart(new, env, self.involved(step))
        return tuple(new), problem

    def involved(self, step: Step) -> tuple[int, ...]:
        """The nodes that a step is about."""
        if step.kind in ("up", "down", "connect"):
            return step.owner, step.arg[1]
        if step.kind in ("reset", "cut", "heal"):
            return self.net.pair_at[int(step.arg)]
        return self.involved(step.arg[0]) if step.kind == "crash" else (step.owner,)

    def _tell_apart(self, new: list[int], env: Env, nodes: tuple[int, ...]) -> None:
        alike = env.alike
        for number, group in enumerate(self.groups):
            if any(node in group for node in nodes):
                alike &= ~(1 << number)
        if alike != env.alike:
            new[self.env_at] = self.envs.number(env._replace(alike=alike))

    def _local(self, new: list[int], node: int, event: int) -> Result:
        result = self.nodes.step(node, new[node], event)
        new[node] = result.node
        return result

    def _then(self, new: list[int], node: int, result: Result) -> Problem | None:
        for out in result.outs:
            self.net.send(new, node, out.kind, out.to, out.message)
        self._after(new, node)
        return result.broken

    def _after(self, new: list[int], node: int) -> None:
        if self.nodes.states[new[node]].control == DEAD:  # it has left
            self.net.dies(new, node)
        self._note_stopped(new, node)
        self._note_programs(new, node)

    def _take_up(self, new: list[int], step: Step) -> Problem | None:
        return self._deliver(new, step.owner, step.arg[0], 1)

    def _take_down(self, new: list[int], step: Step) -> Problem | None:
        return self._deliver(new, step.owner, step.arg[0], 2)

    def _deliver(self, new: list[int], node: int, at: int, side: int) -> Problem | None:
        queues = self.nodes.queues
        event = queues.head[new[at + side]]
        new[at + side] = queues.rest[new[at + side]]
        self.net.ends(new, at, event)
        return self._then(new, node, self._local(new, node, event))

    def _take_connect(self, new: list[int], step: Step) -> Problem | None:
        at, parent = step.arg
        self.net.connect(new, at)
        return self._then(new, step.owner, self._local(new, step.owner, self.nodes.event("connect", parent)))

    def _take_engine(self, new: list[int], step: Step) -> Problem | None:
        return self._then(new, step.owner, self._local(new, step.owner, self.nodes.event("engine")))

    def _take_hook(self, new: list[int], step: Step) -> Problem | None:
        return self._then(new, step.owner, self._local(new, step.owner, self.nodes.event("hook", step.arg)))

    def _take_driver(self, new: list[int], step: Step) -> Problem | None:
        return self._then(new, step.owner, self._local(new, step.owner, self.nodes.event("driver")))

    def _take_call(self, new: list[int], step: Step) -> Problem | None:
        problem = self._local(new, step.owner, self.nodes.event("call")).broken
        self._note_programs(new, step.owner)
        return problem

    def _take_notice(self, new: list[int], step: Step) -> Problem | None:
        """Production looks after the process ids that it has on record."""
        return self._tell(new, step.owner, ev.InstanceGone(self._specs[int(step.arg)].id, "its process is gone"))

    def _take_renew(self, new: list[int], step: Step) -> Problem | None:
        spec = self._specs[int(step.arg)]
        if self.envs[new[self.env_at]].status[int(step.arg)] == LEAVING:
            return self._tell(new, step.owner, ev.InstanceRemove(spec.id, 1e12))
        return self._tell(new, step.owner, ev.InstancePut(spec))

    def _take_apply(self, new: list[int], step: Step) -> Problem | None:
        return self._local(new, step.owner, self.nodes.event("apply")).broken

    def _take_drained(self, new: list[int], step: Step) -> Problem | None:
        return self._local(new, step.owner, self.nodes.event("drained", step.arg)).broken

    def _take_start(self, new: list[int], step: Step) -> Problem | None:
        parents = self.nodes.states[new[step.owner]].parents
        return self._then(new, step.owner, self._local(new, step.owner, self.nodes.event("start", parents)))

    def _take_time(self, new: list[int], step: Step) -> Problem | None:
        """Most of a lease passes, in two halves; only the first one if it causes messages or actions."""
        for _ in range(2):
            problem, busy = self._half(new)
            if problem is not None or busy:
                return problem
        return None

    def _half(self, new: list[int]) -> tuple[Problem | None, bool]:
        """Heartbeats arrive on every working link. Other messages are queued."""
        outs: list[tuple[int, Out]] = []
        problem = None
        for node in range(self.size):
            for event in (self.nodes.tick, *self._renewals(new, node)):
                result = self._local(new, node, event)
                problem = problem or result.broken
                outs += [(node, out) for out in result.outs]
        late: list[tuple[int, Out]] = []
        for node, out in outs:
            if out.message < 0 or not is_beat(self.nodes.messages[out.message]):
                late.append((node, out))
                continue
            to, event = self.net.beat(new, node, out)
            if to >= 0:
                result = self._local(new, to, event)
                problem = problem or result.broken
                late += [(to, each) for each in result.outs]
        for node, out in late:
            self.net.send(new, node, out.kind, out.to, out.message)
        for node in range(self.size):
            self._after(new, node)
        return problem, bool(late) or not self.at_rest(tuple(new))

    def _renewals(self, new: list[int], node: int) -> list[int]:
        """Instances with a lease renew at this node, once in each half."""
        status = self.envs[new[self.env_at]].status
        return [
            self.nodes.event("handle", ev.InstancePut(spec))
            for number, spec in enumerate(self._specs)
            if spec.ttl_s and self.hosts[number] == node and status[number] == LIVE and self._lives(new, node)
        ]

    def _lives(self, new: list[int], node: int) -> bool:
        return self.nodes.states[new[node]].control != DEAD

    # ------------------------------------------------------------------ misfortune

    def _spend(self, new: list[int], fault: str) -> None:
        env = self.envs[new[self.env_at]]
        new[self.env_at] = self.envs.number(env._replace(**{fault: getattr(env, fault) - 1}))

    def _take_kill(self, new: list[int], step: Step) -> Problem | None:
        self._spend(new, "kill")
        self._local(new, step.owner, self.nodes.event("kill"))
        self.net.dies(new, step.owner)

    def _take_crash(self, new: list[int], step: Step) -> Problem | None:
        """Killed in the middle of a step: part of its effects were carried out."""
        inner, place = step.arg
        self._spend(new, "kill")
        event = self._event_of(tuple(new), inner)
        if inner.kind == "connect":
            self.net.connect(new, inner.arg[0])
        elif inner.kind in ("up", "down"):
            at = inner.arg[0] + (1 if inner.kind == "up" else 2)
            new[at] = self.nodes.queues.rest[new[at]]
            self.net.ends(new, inner.arg[0], event)
        result = self._local(new, step.owner, self.nodes.event("crash", event, place))
        for out in result.outs:
            self.net.send(new, step.owner, out.kind, out.to, out.message)
        self.net.dies(new, step.owner)
        return result.broken

    def _take_reset(self, new: list[int], step: Step) -> Problem | None:
        self._spend(new, "reset")
        child, parent = self.net.pair_at[int(step.arg)]
        self.net.child_lets_go(new, step.arg, child, parent)
        event = self.nodes.event("handle", ev.ParentClosed(self.names[parent], "reset"))
        return self._then(new, child, self._local(new, child, event))

    def _take_cut(self, new: list[int], step: Step) -> Problem | None:
        self._spend(new, "cut")
        link = self.links[new[step.arg]]
        new[step.arg] = self.links.number(link._replace(deaf_up=True, deaf_down=True, blocked=True))
        new[step.arg + 2] = 0

    def _take_heal(self, new: list[int], step: Step) -> Problem | None:
        new[step.arg] = self.links.number(self.links[new[step.arg]]._replace(blocked=False))

    def _take_engine_crash(self, new: list[int], step: Step) -> Problem | None:
        self._spend(new, "engine")
        return self._local(new, step.owner, self.nodes.event("engine-crash")).broken

    def _take_detach(self, new: list[int], step: Step) -> Problem | None:
        self._spend(new, "detach")
        return self._local(new, step.owner, self.nodes.event("detach")).broken

    def _take_power(self, new: list[int], step: Step) -> Problem | None:
        """The link is cut, and neither end notices."""
        self._spend(new, "power")
        self._local(new, step.owner, self.nodes.event("power"))
        self.net.dies(new, step.owner, noticed=False)
        env = self.envs[new[self.env_at]]
        status = tuple(
            STOPPED if self.hosts[n] == step.owner and each != NEW else each for n, each in enumerate(env.status)
        )
        new[self.env_at] = self.envs.number(env._replace(status=status))

    # ------------------------------------------------------------------ instances and operators

    def _take_act(self, new: list[int], step: Step) -> Problem | None:
        env = self.envs[new[self.env_at]]
        new[self.env_at] = self.envs.number(env._replace(done=env.done | 1 << step.arg))
        action = self.scenario.actions[int(step.arg)]
        node = step.owner
        match action.kind:
            case "put":
                return self._take_register(new, Step("register", node, action.instance))
            case "remove":
                self._set(new, action.instance, LEAVING)
                return self._tell(new, node, ev.InstanceRemove(self._specs[action.instance].id, 1e12))
            case "gone":
                self._set(new, action.instance, STOPPED)
                return self._tell(new, node, ev.InstanceGone(self._specs[action.instance].id, "exit code 1"))
            case "forget":
                return self._tell(new, node, ev.ForgetChild(action.subject))
            case "policy":
                return self._tell(new, node, core.policy_put(action.subject))
            case "approve":
                return self._tell(new, node, core.approve(action.subject))
            case "promote":
                return self._tell(new, node, core.promote(action.subject))
            case "rollout":
                return self._tell(new, node, core.rollout(action.subject))
            case "lapse":
                self._set(new, action.instance, LAPSED)
                return None
            case "stop":
                return self._tell(new, node, ev.Stop(1e12))
            case "move" | "restore":
                self._local(new, node, self.nodes.event("kill"))
                self.net.dies(new, node)
                parents = tuple(self.nodes.index[parent] for parent in action.parents)
                if action.kind == "restore":
                    self._local(new, node, self.nodes.event("restore", self._first_disks[node]))
                    parents = self.nodes.states[new[node]].parents
                return self._then(new, node, self._local(new, node, self.nodes.event("start", parents)))
            case _:
                raise AssertionError(action)

    def _take_order(self, new: list[int], step: Step) -> Problem | None:
        return self._tell(new, step.owner, step.arg)

    def _tell(self, new: list[int], node: int, event: ev.Event) -> Problem | None:
        return self._then(new, node, self._local(new, node, self.nodes.event("handle", event)))

    def _take_register(self, new: list[int], step: Step) -> Problem | None:
        spec = self._specs[int(step.arg)]
        for number, other in enumerate(self._specs):
            if other.id == spec.id and number != step.arg and self.envs[new[self.env_at]].status[number] == LIVE:
                self._set(new, number, RENEWED)
        self._set(new, step.arg, LIVE)
        return self._tell(new, step.owner, ev.InstancePut(spec))

    def _set(self, new: list[int], instance: int, status: int) -> None:
        env = self.envs[new[self.env_at]]
        changed = tuple(status if n == instance else each for n, each in enumerate(env.status))
        new[self.env_at] = self.envs.number(env._replace(status=changed))

    def _waits_for_engine(self, new: list[int], node: int, control: int, number: int) -> bool:
        """Whether a node that was restored answers for an instance that it does not know only when its engine is done."""
        done, actions = self.envs[new[self.env_at]].done, enumerate(self.scenario.actions)
        name = self.names[node]
        restored = any(done >> at & 1 and each.kind == "restore" and each.node == name for at, each in actions)
        return restored and self.nodes.may_carry(control, self._specs[number].id)

    def _note_stopped(self, new: list[int], node: int) -> None:
        """An instance that asked to leave, or was replaced, exits when its node reports that it is drained."""
        status = self.envs[new[self.env_at]].status
        if LEAVING not in status and RENEWED not in status:
            return
        control = self.nodes.states[new[node]].control
        if control == DEAD:
            return
        for number, each in enumerate(status):
            if each not in (LEAVING, RENEWED) or self.hosts[number] != node or self.scenario.instances[number].place:
                continue
            known = self.registration(control, number)
            if known is None and each == LEAVING and self._waits_for_engine(new, node, control, number):
                continue  # its request to leave is not answered yet
            if known is None:
                self._set(new, number, STOPPED)
            elif known.late:
                env = self.envs[new[self.env_at]]
                new[self.env_at] = self.envs.number(env._replace(late=env.late | 1 << number))

    def _note_programs(self, new: list[int], node: int) -> None:
        """A program of a driver lives from its registration until the driver has ended it, and is to leave while it drains."""
        if node not in self.with_roles:
            return
        own = self.nodes.states[new[node]]
        running = self.nodes.programs[own.programs].running()
        for number, each in enumerate(self.scenario.instances):
            if not each.place or self.hosts[number] != node:
                continue
            before = self.envs[new[self.env_at]].status[number]
            status = before
            if running.get(each.place) != each.version:
                status = STOPPED if before in (LIVE, LEAVING) else before
            elif own.control != DEAD:
                known = self.registration(own.control, number)
                if known is not None and known.current and known.state not in ("draining", "drained"):
                    status = LIVE
                elif before == LIVE:
                    status = LEAVING
            if status != before:
                self._set(new, number, status)
