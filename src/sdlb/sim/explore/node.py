"""The steps of a single node, without its neighbours. Each (node state, event) is computed once and cached.

A node state is a tuple of numbers: control (a frozen `Balancer`), disk, engine, the delta under way to the engine, the engine's
events under way to control, the memory of the checks, the configured parents, the parents that it wants to reach.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Beat, ClaimKey, Hello, Refused
from sdlb.sim.engine import BadDelta
from sdlb.sim.explore import copies, core, engines
from sdlb.sim.explore.canon import Canon
from sdlb.sim.explore.disks import Disk
from sdlb.sim.explore.local import Memory, Problem, after_event, after_restart, check_step, next_tick
from sdlb.sim.explore.programs import DriverCall, Programs, call_of
from sdlb.sim.explore.tables import Interned, Queues
from sdlb.sim.explore.topology import Scenario

DEAD = -1


class NodeState(NamedTuple):
    control: int
    disk: int
    engine: int
    pending: int  # a delta; -1: none
    out: int  # queue of the engine's events
    memory: int
    parents: tuple[int, ...]
    dials: int  # bits of parents
    knew: int  # of an entry: what it knew could serve when it sent that delta
    starts: int  # of control, for its nonce
    waits: int  # bits of parents that are not dialled before time has passed
    hooks: int  # queue of the hooks that control waits for
    attached: bool  # what control sends reaches this engine, not one that has crashed
    programs: int  # that the driver runs
    calls: int  # queue of the driver's calls
    answers: int  # queue of its results


class Out(NamedTuple):
    """What leaves the node. `kind`: "up" (to parent `to`), "down" (on link `to`), "hangup" (`to`: parent), "drop" (link)."""

    kind: str
    to: int
    message: int = -1


class Result(NamedTuple):
    node: int
    outs: tuple[Out, ...]
    broken: Problem | None
    cuts: int  # places within the step where a crash makes a difference
    visible: bool  # the engine's table is another


class Nodes:
    def __init__(self, scenario: Scenario, names: tuple[str, ...]) -> None:
        self.names = names
        self.scenario = scenario
        self.index = {name: number for number, name in enumerate(names)}
        self.states: Interned[NodeState] = Interned()
        self.disks: Interned[Disk] = Interned()
        self.tables: Interned[engines.Table] = Interned()
        self.memories: Interned[Memory] = Interned()
        self.programs: Interned[Programs] = Interned()
        self.known: Interned[frozenset[ClaimKey]] = Interned()
        self.known.number(frozenset())
        self.messages: Interned[Any] = Interned()
        self.events: Interned[Any] = Interned()
        self.queues = Queues()
        self.controls: list[bytes] = []
        self.misses = 0
        self._control_numbers: dict[bytes, int] = {}
        self._canon = Canon()
        self._results: dict[tuple[int, int], Result] = {}
        self._handled: dict[tuple[int, int], tuple[int, tuple[Any, ...], Problem | None]] = {}
        self._facts: dict[int, dict[str, core.Registration]] = {}
        self.tick = self.events.number(("tick",))
        self.power = scenario.faults.power > 0
        pairs = [(name, parent) for name, parents in scenario.tree.items() for parent in parents]
        self._neighbours = [frozenset(self.index[c] for c, p in pairs if p == name) for name in names]  # children
        below = {name: {name} for name in names}
        for _ in names:
            for child, parent in pairs:
                below[parent] |= below[child]
        self._twins = frozenset(
            (self.index[a], self.index[b]) for a in names for b in names if a != b and below[a] & below[b]
        )

    # ------------------------------------------------------------------ controls

    def control(self, number: int) -> core.Control:
        """A copy of its own."""
        return copies.copy(self.controls[number])

    def _keep(self, control: core.Control) -> int:
        digest = self._canon.digest(control)
        known = self._control_numbers.get(digest)
        if known is None:
            known = self._control_numbers[digest] = len(self.controls)
            self.controls.append(copies.keep(control))
        return known

    def reports(self, control: int) -> dict[str, core.Registration]:
        """target -> the instance as its node reports it"""
        known = self._facts.get(control)
        if known is None:
            known = self._facts[control] = core.registrations(self.control(control))
        return known

    def may_carry(self, control: int, instance_id: str) -> bool:
        return self.control(control).view.may_carry(instance_id)

    # ------------------------------------------------------------------ steps

    def first(self, node: int, parents: tuple[int, ...]) -> int:
        state = NodeState(
            DEAD,
            self.disks.number(Disk({}, {})),
            self.tables.number(engines.Table()),
            -1,
            0,
            self.memories.number(Memory.empty(len(self.names))),
            parents,
            dials=0,
            knew=0,
            starts=0,
            waits=0,
            hooks=0,
            attached=False,
            programs=self.programs.number(Programs()),
            calls=0,
            answers=0,
        )
        return self.states.number(state)

    def step(self, node: int, state: int, event: int) -> Result:
        key = (state * len(self.names) + node, event)
        known = self._results.get(key)
        if known is None:
            self.misses += 1
            known = self._results[key] = self._step(node, self.states[state], self.events[event])
        return known

    def event(self, *parts: Any) -> int:
        return self.events.number(parts)

    def _step(self, node: int, state: NodeState, event: Any) -> Result:
        match event[0]:
            case "handle":
                return self._handle(node, state, event[1])
            case "tick":
                return self._tick(node, state)
            case "engine":  # the head of its events
                head: ev.Event = self.events[self.queues.head[state.out]][1]
                return self._handle(node, state._replace(out=self.queues.rest[state.out]), head)
            case "hook":
                return self._handle(
                    node, state._replace(hooks=self.queues.rest[state.hooks]), self._done_with(state, event[1])
                )
            case "driver":
                result: ev.Event = self.events[self.queues.head[state.answers]][1]
                return self._handle(node, state._replace(answers=self.queues.rest[state.answers]), result)
            case "call":
                return self._call(state)
            case "connect":
                return self._connect(node, state, event[1])
            case "crash":  # in the middle of another event
                return self._crash_within(node, state, event[1], event[2])
            case "kill":
                return self._done(self._killed(state))
            case "start":
                return self._start(node, state, event[1])
            case "restore":  # event[1]: a disk; what the node decided since then is forgotten with it
                memory = self.memories[state.memory]._replace(acted=())
                return self._done(state._replace(disk=event[1], memory=self.memories.number(memory)))
            case "apply":
                return self._apply(state)
            case "drained":
                return self._drained(state, event[1])
            case "engine-crash":
                return self._engine_crash(state)
            case "detach":
                return self._detach(state)
            case "power":
                return self._power_cut(state)
            case _:
                raise AssertionError(event)

    def _done(self, state: NodeState, broken: Problem | None = None, visible: bool = False) -> Result:
        return Result(self.states.number(state), (), broken, 0, visible)

    # ------------------------------------------------------------------ control

    def _handled_by(self, state: NodeState, what: Any) -> tuple[int, tuple[Any, ...], Problem | None]:
        """The control state and the effects after an event."""
        key = (state.control, self.events.number(("core", what)))
        known = self._handled.get(key)
        if known is None:
            control = self.control(state.control)
            problem = None
            effects: list[ef.Effect] = []
            try:
                effects = control.tick() if what == "tick" else control.handle(what)
            except Exception as error:  # a bug of the core is a finding like any other
                problem = Problem(0, f"{type(error).__name__}: {error}")
            number = self._keep(control) if problem is None else state.control
            kept = tuple(each for each in effects if not isinstance(each, ef.Note | ef.Changed | ef.Answered))
            known = self._handled[key] = number, kept, problem
        return known

    def _handle(self, node: int, state: NodeState, what: ev.Event) -> Result:
        control, effects, problem = self._handled_by(state, what)
        state = self._taken(state, what)
        memory = after_event(self.memories[state.memory], self.names, what, self._twins)
        return self._carry_out(node, state, control, effects, memory, problem)

    def _done_with(self, state: NodeState, answer: str) -> ev.Event:
        """The event for the first hook that control waits for."""
        effect: ef.RunHook = self.events[self.queues.head[state.hooks]][1]
        return ev.HookDone(effect.key, answer)

    def gap_hooks(self, state: NodeState) -> list[ef.RunHook]:
        """Those that run while nothing serves."""
        effects: list[ef.RunHook] = [self.events[number][1] for number in self.queues.items(state.hooks)]
        return [effect for effect in effects if effect.hook.at == "gap" and effect.replaces]

    def _taken(self, state: NodeState, what: ev.Event) -> NodeState:
        match what:
            case ev.EngineAttached():
                return state._replace(attached=True)
            case ev.ParentMessage(parent, Refused()):  # retried every few seconds, in vain until time passes
                return state._replace(waits=state.waits | 1 << self.index[parent])
            case _:
                return state

    def _tick(self, node: int, state: NodeState) -> Result:
        memory = next_tick(self.memories[state.memory], self._around(node, state))
        disk = self.disks.number(self.disks[state.disk].flush())
        state = state._replace(disk=disk, waits=0)
        if state.control == DEAD:
            return self._done(state._replace(memory=self.memories.number(memory)))
        control, effects, problem = self._handled_by(state, "tick")
        return self._carry_out(node, state, control, effects, memory, problem)

    def _around(self, node: int, state: NodeState) -> frozenset[int]:
        """The neighbours that it should hear: its parents, and children with claims."""
        moved = {child for child, _ in self.memories[state.memory].heard}
        return self._neighbours[node] | set(state.parents) | moved

    def _connect(self, node: int, state: NodeState, parent: int) -> Result:
        what = ev.ParentConnected(self.names[parent], f"10.0.0.{1 + node}:80")
        return self._handle(node, state._replace(dials=state.dials & ~(1 << parent)), what)

    def _start(self, node: int, state: NodeState, parents: tuple[int, ...]) -> Result:
        disk = self.disks[state.disk]
        saved = disk.read()
        incarnation = int(saved.pop("node/incarnation", 0)) + 1
        disk = disk.write({"node/incarnation": incarnation}, True)
        addresses = tuple(self.names[parent] for parent in parents)
        problem = None
        effects: list[ef.Effect] = []
        number = DEAD
        try:
            nonce = f"{self.names[node]}.{state.starts}"
            roles = (self.scenario.role(),) if self.names[node] in self.scenario.roles else ()
            control, effects = core.start(self.names[node], incarnation, nonce, addresses, saved, roles)
            number = self._keep(control)
        except Exception as error:
            problem = Problem(0, f"start: {type(error).__name__}: {error}")
        attached = self.events.number(("handle", engines.attached(self.tables[state.engine])))
        state = state._replace(
            disk=self.disks.number(disk),
            pending=-1,
            knew=0,
            out=self.queues.of((attached,)),
            parents=parents,
            dials=0,
            waits=0,
            starts=state.starts + 1,
            attached=False,
        )
        memory = after_restart(self.memories[state.memory])
        return self._carry_out(node, state, number, tuple(effects), memory, problem)

    def _carry_out(
        self,
        node: int,
        state: NodeState,
        control: int,
        effects: tuple[Any, ...],
        memory: Memory,
        problem: Problem | None,
        upto: int | None = None,
    ) -> Result:
        if problem is None:
            memory, problem = check_step(self, node, state, control, effects, memory)
        disk, pending, dials, knew = self.disks[state.disk], state.pending, state.dials, state.knew
        outs: list[Out] = []
        places: list[int] = []
        before = ""
        stopped = False
        again = False
        hooks, calls = state.hooks, state.calls
        for number, effect in enumerate(effects[:upto]):
            kind = "net"
            match effect:
                case ef.Persist(puts, durable):
                    disk = disk.write(puts, durable or not self.power)
                    kind = "disk"
                case ef.Apply():
                    if state.attached:
                        pending = self.messages.number(effect)
                        knew = self._knows(state, memory)
                    kind = "engine"
                case ef.AttachAgain():
                    again = True
                case ef.Dial(parent):
                    dials |= 1 << self.index[parent]
                    kind = before
                case ef.ToParent(parent, message):
                    outs.append(Out("up", self.index[parent], self.messages.number(message)))
                case ef.ToChild(link, message):
                    outs.append(Out("down", link, self.messages.number(message)))
                case ef.HangUp(parent):
                    outs.append(Out("hangup", self.index[parent]))
                case ef.DropChild(link):
                    outs.append(Out("drop", link))
                case ef.RunHook():
                    hooks = self.queues.put(hooks, self.events.number(("hook", effect)))
                    kind = before
                case ef.RunDriver():
                    calls = self.queues.put(calls, self.events.number(("call", call_of(effect))))
                    kind = "driver"
                case ef.Stopped():
                    stopped = True
                    kind = before
                case ef.Reincarnate(incarnation):
                    disk = disk.write({"node/incarnation": incarnation}, True)
                    kind = "disk"
                case _:
                    kind = before
            if before and kind != before:
                places.append(number)
            before = kind
        after = state._replace(
            control=control,
            disk=self.disks.number(disk),
            pending=pending,
            knew=knew,
            memory=self.memories.number(memory),
            dials=dials,
            hooks=hooks,
            calls=calls,
        )
        if again:
            after = self._detached(after)
        if stopped:  # its engine ends with it
            ended = self.tables.number(engines.crashed(self.tables[after.engine]))
            after = self._killed(after)._replace(engine=ended, pending=-1, knew=0)
        elif upto is not None:
            after = self._killed(after)
        self._places = places
        return Result(self.states.number(after), tuple(outs), problem, len(places), False)

    def _knows(self, state: NodeState, memory: Memory) -> int:
        return 0 if state.parents else self.known.number(frozenset(key for _, key in memory.heard))

    def _crash_within(self, node: int, state: NodeState, event: int, place: int) -> Result:
        """As `event`, up to its `place`-th change from disk to engine to links; then control is killed."""
        self._step(node, state, self.events[event])
        upto = self._places[place]
        inner = self.events[event]
        if inner[0] == "engine":
            head = self.events[self.queues.head[state.out]][1]
            state = state._replace(out=self.queues.rest[state.out])
            inner = ("handle", head)
        elif inner[0] == "hook":
            answer = self._done_with(state, str(inner[1]))
            state = state._replace(hooks=self.queues.rest[state.hooks])
            inner = ("handle", answer)
        elif inner[0] == "driver":
            result = self.events[self.queues.head[state.answers]][1]
            state = state._replace(answers=self.queues.rest[state.answers])
            inner = ("handle", result)
        elif inner[0] == "connect":
            state = state._replace(dials=state.dials & ~(1 << int(inner[1])))
            inner = ("handle", ev.ParentConnected(self.names[int(inner[1])], f"10.0.0.{1 + node}:80"))
        control, effects, problem = self._handled_by(state, inner[1])
        state = self._taken(state, inner[1])
        memory = after_event(self.memories[state.memory], self.names, inner[1], self._twins)
        return self._carry_out(node, state, control, effects, memory, problem, upto)

    def _killed(self, state: NodeState) -> NodeState:
        return state._replace(control=DEAD, out=0, dials=0, waits=0, hooks=0, attached=False, calls=0, answers=0)

    # ------------------------------------------------------------------ driver

    def _call(self, state: NodeState) -> Result:
        call: DriverCall = self.events[self.queues.head[state.calls]][1]
        after, result = self.programs[state.programs].carry_out(call, self.scenario.bad)
        answers = self.queues.put(state.answers, self.events.number(("handle", result)))
        state = state._replace(
            programs=self.programs.number(after), calls=self.queues.rest[state.calls], answers=answers
        )
        return self._done(state, visible=True)

    # ------------------------------------------------------------------ engine

    def _apply(self, state: NodeState) -> Result:
        table = self.tables[state.engine]
        delta: ef.Apply = self.messages[state.pending]
        try:
            new = engines.apply(table, delta)
        except BadDelta as problem:
            text = f"control sent its engine a delta that it must refuse: {problem}"
            return self._done(state._replace(pending=-1, knew=0), Problem(0, text))
        out = state.out
        if state.control != DEAD:
            out = self.queues.put(out, self.events.number(("handle", ev.EngineApplied(delta.epoch))))
        state = state._replace(engine=self.tables.number(new), pending=-1, knew=0, out=out)
        return self._done(state, visible=True)

    def _drained(self, state: NodeState, key: ev.EndpointKey) -> Result:
        epoch = dict(self.tables[state.engine].draining)[key]
        table = engines.drained(self.tables[state.engine], key)
        out = state.out
        if state.control != DEAD:
            out = self.queues.put(out, self.events.number(("handle", ev.EngineDrained(key, epoch))))
        return self._done(state._replace(engine=self.tables.number(table), out=out), visible=True)

    def _engine_crash(self, state: NodeState) -> Result:
        table = engines.crashed(self.tables[state.engine])
        out = 0
        if state.control != DEAD:
            lost = self.events.number(("handle", ev.EngineLost()))
            out = self.queues.of((lost, self.events.number(("handle", engines.attached(table)))))
        state = state._replace(engine=self.tables.number(table), pending=-1, knew=0, out=out, attached=False)
        return self._done(state, visible=True)

    def _detach(self, state: NodeState) -> Result:
        return self._done(self._detached(state))

    def _detached(self, state: NodeState) -> NodeState:
        attached = self.events.number(("handle", engines.attached(self.tables[state.engine])))
        out = self.queues.of((self.events.number(("handle", ev.EngineLost())), attached))
        return state._replace(pending=-1, knew=0, out=out, attached=False)

    def _power_cut(self, state: NodeState) -> Result:
        state = self._killed(state)
        table = engines.crashed(self.tables[state.engine])
        disk = self.disks[state.disk].power_cut()
        programs = self.programs.number(self.programs[state.programs].power_cut())
        state = state._replace(
            engine=self.tables.number(table), pending=-1, knew=0, disk=self.disks.number(disk), programs=programs
        )
        return self._done(state, visible=True)


def is_beat(message: Any) -> bool:
    return isinstance(message, Beat)


def is_hello(message: Any) -> bool:
    return isinstance(message, Hello)
