"""Describes a path for people: one numbered sentence for each step, with the changes of the engines."""

from __future__ import annotations

from typing import Any

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Bye, Claim, ClaimKey, DownState, Hello, Refused, Stage, UpState, Welcome
from sdlb.sim.explore import engines
from sdlb.sim.explore.programs import DriverCall
from sdlb.sim.explore.search import Failure
from sdlb.sim.explore.shrink import Replay
from sdlb.sim.explore.state import State, Step
from sdlb.sim.explore.topology import Scenario
from sdlb.sim.explore.world import World


def describe(scenario: Scenario, failure: Failure) -> list[str]:
    serving = ", ".join(_instance(scenario, number) for number in scenario.first)
    lines = [f"{scenario.name}: {scenario.text}; {serving or 'nothing'} serves"]
    if not failure.steps:
        return [*lines, *_end(failure)]
    replay = Replay(scenario)
    world = replay.world
    state = replay.first
    for number, step in enumerate(failure.steps, 1):
        lines.append(f"{number:>3}. {sentence(world, state, step)}")
        result = replay.take(state, step)
        if result is None:
            lines.append("     (cannot be taken)")
            break
        state = result[0]
    return lines + _end(failure)


def _end(failure: Failure) -> list[str]:
    promise = failure.problem.promise
    what = f"promise {promise}" if promise else "a fault in the program"
    where = "" if failure.steps else " while the tree starts"
    return [f"  => {what}{where}: {failure.problem.text}"]


def sentence(world: World, state: State, step: Step) -> str:
    name = world.names[step.owner] if step.owner >= 0 else ""
    match step.kind:
        case "time":
            return "time passes until something is due"
        case "up" | "down":
            queue = state[int(step.arg[0]) + (1 if step.kind == "up" else 2)]
            event = world.nodes.events[world.nodes.queues.head[queue]][1]
            return f"{name} {_event(world, event, world.names[int(step.arg[1])])}"
        case "connect":
            return f"{name} connects to {world.names[int(step.arg[1])]}"
        case "engine":
            own = world.nodes.states[state[step.owner]]
            return f"{name} {_event(world, world.nodes.events[world.nodes.queues.head[own.out]][1], '')}"
        case "hook":
            return f"{name} learns that its hook answered {step.arg}"
        case "driver":
            own = world.nodes.states[state[step.owner]]
            return f"{name} learns the result of {world.nodes.events[world.nodes.queues.head[own.answers]][1].key}"
        case "call":
            own = world.nodes.states[state[step.owner]]
            call: DriverCall = world.nodes.events[world.nodes.queues.head[own.calls]][1]
            return f"the driver of {name} carries out: {call.call} {call.version} in place {call.place}"
        case "apply":
            return f"the engine of {name} applies: {_delta(world, state, step.owner)}"
        case "drained":
            return f"the engine of {name} ends the last request to {_endpoint(step.arg)}"
        case "kill":
            return f"control of {name} is killed"
        case "crash":
            inner, place = step.arg
            return f"control of {name} is killed within this, after part {place + 1}: {sentence(world, state, inner)}"
        case "notice":
            return f"{name} sees that the process of {world.scenario.instances[int(step.arg)].id} has exited"
        case "renew":
            return f"{world.scenario.instances[int(step.arg)].id} repeats its last request to {name}"
        case "start":
            return f"control of {name} starts"
        case "reset" | "cut" | "heal":
            child, parent = world.net.pair_at[int(step.arg)]
            what = {
                "reset": "breaks; both ends notice",
                "cut": "is cut; neither end notices",
                "heal": "can be made again",
            }
            return f"the link of {world.names[child]} to {world.names[parent]} {what[step.kind]}"
        case "engine-crash":
            return f"the engine of {name} crashes and starts again, empty"
        case "detach":
            return f"the connection of {name} to its engine breaks, and is made again"
        case "power":
            return f"{name} loses power"
        case "act":
            return _action(world.scenario, step.arg)
        case _:
            return f"{name} {step.kind}"


def _instance(scenario: Scenario, number: int) -> str:
    each = scenario.instances[number]
    return f"{each.id} ({each.service}-{each.version} on {each.host})"


def _action(scenario: Scenario, number: int) -> str:
    action = scenario.actions[number]
    match action.kind:
        case "put":
            return f"{action.node} registers {_instance(scenario, action.instance)}"
        case "remove":
            return f"{_instance(scenario, action.instance)} asks {action.node} to leave"
        case "gone":
            return f"the process of {_instance(scenario, action.instance)} dies"
        case "move":
            return f"{action.node} is stopped and starts again below {', '.join(action.parents) or 'no parent'}"
        case "stop":
            return f"an operator stops {action.node}"
        case "restore":
            return f"{action.node} is stopped and starts with an older copy of its state folder"
        case "lapse":
            return f"{_instance(scenario, action.instance)} is not renewed any more"
        case "forget":
            return f"an operator reports to {action.node} that {action.subject} has stopped"
        case "rollout":
            return f"at {action.node}: rollout {action.subject}"
        case "approve" | "promote":
            return f"at {action.node}: {action.kind} {action.subject}"
        case _:
            return f"an operator sets at {action.node} the policy {action.subject}"


def _event(world: World, event: Any, peer: str) -> str:
    match event:
        case ev.ChildConnected(_, hello):
            return f"receives Hello from {hello.node}, incarnation {hello.incarnation}"
        case ev.ChildMessage(_, message) | ev.ParentMessage(_, message):
            return f"receives from {peer}: {_message(message)}"
        case ev.ChildClosed() | ev.ParentClosed():
            return f"learns that its link with {peer} is closed"
        case ev.EngineAttached(boot_id, epoch, endpoints):
            return f"attaches to its engine ({boot_id}, {endpoints} endpoints)" if epoch else "attaches to its engine"
        case ev.EngineApplied():
            return "learns that its engine has applied a delta"
        case ev.EngineDrained(key):
            return f"learns that {_endpoint(key)} is drained"
        case ev.EngineLost():
            return "loses its engine"
        case _:
            return str(event)


def _message(message: Any) -> str:
    parts: list[str] = []
    match message:
        case UpState():
            parts = [_claim(claim) for claim in message.claims]
            parts += [f"{_key(key)} is withdrawn ({cause.name.lower()})" for key, cause in message.withdrawn]
            parts += [doc.id for doc in message.docs]
        case DownState():
            for verdict in message.verdicts:
                why = f" ({verdict.reason})" if verdict.reason else ""
                parts.append(f"{_key(verdict.key)} is {verdict.state}, generation {verdict.generation}{why}")
            parts += [f"{_key(ack.key)} is drained above" for ack in message.drained]
            parts += [doc.id for doc in message.docs]
        case Hello():
            return "hello"
        case Welcome():
            return "welcome"
        case Refused(code):
            return f"refused ({code})"
        case Bye():
            return "bye"
        case _:
            return str(message)
    full = "all there is: " if message.full else ""
    return full + ("; ".join(parts) or "nothing")


def _claim(claim: Claim) -> str:
    words = [f"capacity {claim.capacity}"]
    words += [claim.stage.name.lower()] if claim.stage is not Stage.WAITING else []
    words += ["leaving"] if claim.leaving else []
    words += ["opening"] if claim.opening else []
    return f"{_key(claim.key)}, {', '.join(words)}"


def _key(key: ClaimKey) -> str:
    return f"{key.service}-{key.version}"


def _endpoint(key: ev.EndpointKey) -> str:
    return f"{key.target} for {_key(key.claim)}"


def _delta(world: World, state: State, node: int) -> str:
    own = world.nodes.states[state[node]]
    table = world.nodes.tables[own.engine]
    delta: ef.Apply = world.nodes.messages[own.pending]
    try:
        after = engines.apply(table, delta)
    except Exception as problem:
        return str(problem)
    old, new = set(table.keys()), set(after.keys())
    parts = [f"+ {_endpoint(key)}" for key in sorted(new - old)] + [f"- {_endpoint(key)}" for key in sorted(old - new)]
    for route in after.routes:
        if route not in table.routes:
            picks = ", ".join(f"{route.service}-{pick.version}" for pick in route.picks)
            parts.append(f"{route.pattern} to {picks or 'nothing'}{' or parked' if route.park_requests_max else ''}")
    return "; ".join(parts) or "no change of endpoints"
