"""`sdlb rollout status`, `history` and `show`: how far rollouts are, and what they wait for."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

from sdlb.cli import out
from sdlb.cli.release import warn
from sdlb.cli.status import GATE_STYLES, PHASES, age
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem
from sdlb.sdk.rollout_types import PastRollout, Rollout, RolloutNodes, Rollouts, RolloutSettings
from sdlb.sdk.types import GateProgress, Opening

ENDED = ("done", "undone", "superseded")
STYLES = {"done": "green", "halted": "red", "undone": "yellow", "superseded": "dim"}
BLOCKS_MAX = 20
"""Rollouts in progress that are shown in full; each is one more call."""
SLOTS_MAX = 3
WATCH_S = 1.0
Line = list[out.Piece]


def run(client: Client, args: argparse.Namespace) -> int:
    if not args.watch:
        _show(client, args)
        return 0
    last: object = None
    while True:
        try:
            found = read(client, args.service)
        except Problem as problem:
            if problem.status not in (0, 503) or last is None:
                raise
            out.message(f"sdlb rollout status: {problem.detail}")
            time.sleep(WATCH_S)
            continue
        now = [_changes(each) for each in found.rollouts if _is_active(each)]
        if out.on_terminal():
            sys.stdout.write("\x1b[H\x1b[J")
        if out.on_terminal() or now != last:
            _print(client, args, found)
        if not now:
            return 0
        last = now
        time.sleep(WATCH_S)


def _is_active(rollout: Rollout) -> bool:
    """Or another one that belongs to it."""
    return rollout.state not in ENDED or any(part.state not in ENDED for part in rollout.joint)


def _changes(rollout: Rollout) -> str:
    return progress(rollout) + "".join(part.state for part in rollout.joint)


def read(client: Client, service: str | None) -> Rollouts:
    if service is None:
        return client.rollouts()
    return Rollouts(rollouts=(client.rollout(service),))


def _show(client: Client, args: argparse.Namespace) -> None:
    _print(client, args, read(client, args.service))


def _print(client: Client, args: argparse.Namespace, found: Rollouts) -> None:
    if args.json:
        shown = [{**each.to_dict(), "opening": _opening_data(client, each)} for each in found.rollouts[:BLOCKS_MAX]]
        shown += [{**each.to_dict(), "opening": None} for each in found.rollouts[BLOCKS_MAX:]]
        out.json(shown[0] if args.service is not None else {**found.to_dict(), "rollouts": shown}, compact=args.watch)
        return
    active = [each for each in found.rollouts if each.state not in ENDED or args.service is not None]
    for number, each in enumerate(active[:BLOCKS_MAX]):
        if number:
            out.line("")
        for line in block(each, opening(client, each), time.time()):
            out.line(*line)
    if len(active) > BLOCKS_MAX:
        out.line(f"and {len(active) - BLOCKS_MAX} more in progress; 'sdlb rollout status SERVICE' shows one")
    ended = [each for each in found.rollouts if each not in active]
    if active and ended:
        out.line("")
    out.table(("SERVICE", *HEADERS), [[(each.service, "bold"), *_row(each)] for each in ended])
    if not found.rollouts:
        out.line("no rollouts yet; start one with 'sdlb rollout start SERVICE VERSION'")
    warn(found.unreachable)


def opening(client: Client, rollout: Rollout) -> Opening | None:
    """The gates and the cut-over of the service."""
    if rollout.state in ENDED:
        return None
    try:
        return client.service(rollout.service).services[0].opening
    except (Problem, IndexError):  # no instance has registered yet
        return None


def _opening_data(client: Client, rollout: Rollout) -> dict[str, object] | None:
    found = opening(client, rollout)
    return found.to_dict() if found is not None else None


# ---------------------------------------------------------------------- one rollout


def block(rollout: Rollout, opening: Opening | None, now: float) -> Iterator[Line]:
    """The rollout in a few lines. `now`: Unix time."""
    ended, step = rollout.state in ENDED, rollout.step
    yield [
        (f"{rollout.service} {rollout.before or 'nothing'} -> {rollout.to}", "bold"),
        f"  {rollout.id}  ",
        (rollout.state, STYLES.get(rollout.state, "yellow")),
        f", step {step.number} of {step.of}" if step is not None and step.number and not ended else "",
        f"  by {rollout.by or 'unknown'}, {clock(rollout.started, now)}",
        f"  ended {clock(rollout.ended, now)}" if rollout.ended else "",
        "" if ended else left(rollout, now),
    ]
    if rollout.undoes:
        yield ["undoes    ", rollout.undoes]
    if rollout.joint:
        parts = (
            f"{part.service} {part.before or 'nothing'} -> {part.to} {part.id} {part.state}" for part in rollout.joint
        )
        yield ["together  ", ", then ".join(parts)]
    if rollout.nodes.all or not ended:  # of an earlier rollout it is no longer known
        yield ["nodes     ", nodes(rollout)]
    if not ended:
        yield [
            "capacity  ",
            f"{rollout.capacity.ready:,} of {rollout.capacity.baseline:,}, floor {rollout.capacity.floor:,}",
        ]
        yield from _step_lines(rollout)
        yield from _opening_lines(rollout, opening)
    for node, why in sorted(rollout.failed.items()):
        lines = why.splitlines() or ["no reason given"]
        yield ["failed    ", (f"{node}: {lines[0]}", "red")]
        for line in lines[1:]:
            yield [f"          {line}"]
    if rollout.detail:
        yield ["state     ", (first_line(rollout.detail), STYLES.get(rollout.state, "yellow"))]
    if rollout.next and not ended:
        yield ["next      ", rollout.next]


def first_line(text: str) -> str:
    """The detail of a failure has the last lines of a log, which stand with its node."""
    return text.partition("\n")[0]


def progress(rollout: Rollout) -> str:
    """One line that changes when something happens, and not with every second."""
    why = f": {first_line(rollout.detail)}" if rollout.detail else ""
    out_now = ", ".join(f"{slot.node} {slot.phase}" for slot in rollout.slots[:3])
    count = rollout.nodes
    parts = [f"{count.done} of {some(count.all, 'node')} done"]
    parts += [f"{count.ready} ready"] if count.ready else []
    parts += [f"{count.failed} failed"] if count.failed else []
    parts += [f"{max(count.out, len(rollout.slots))} out ({out_now})"] if out_now else []
    return f"{rollout.service} {rollout.to}  {rollout.id}  {rollout.state}{why}  {', '.join(parts)}"


def some(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or f'{one}s'}"


def nodes(rollout: Rollout) -> str:
    count = rollout.nodes
    parts = [f"{count.done} done"]
    if count.out or rollout.slots:
        parts.append(f"{max(count.out, len(rollout.slots))} out{_slots(rollout)}")
    if count.ready:
        parts.append(f"{count.ready} ready for the cut-over")
    if count.failed:
        parts.append(f"{count.failed} failed")
    go = to_go(count)
    fetched = f" ({count.prepared} fetched)" if go and rollout.state == "preparing" else ""
    if rollout.state not in ENDED:
        parts.append(f"{go} to go{fetched}")
    return f"{count.all}: {', '.join(parts)}"


def to_go(count: RolloutNodes) -> int:
    return max(0, count.all - count.done - count.out - count.failed - count.ready)


def _slots(rollout: Rollout) -> str:
    shown = [
        f"{slot.node} {slot.phase} {age(slot.since_s)}{f', {slot.detail}' if slot.detail else ''}"
        for slot in rollout.slots[:SLOTS_MAX]
    ]
    if len(rollout.slots) > SLOTS_MAX:
        shown.append(f"{len(rollout.slots) - SLOTS_MAX} more")
    return f" ({'; '.join(shown)})" if shown else ""


def _step_lines(rollout: Rollout) -> Iterator[Line]:
    step = rollout.step
    if step is None or step.share is None:
        return
    rest = ""
    if step.number and step.since:
        rest = f", {age(step.left_s)} left" if step.left_s else ", its time is over"
    elif step.number:
        nodes = f"{step.nodes} of the nodes" if step.nodes.endswith("%") else some(int(step.nodes), "node")
        rest = f", once {nodes} {'has' if nodes == '1 node' else 'have'} it"
    share = f"{step.share:g} %" if step.share < 100 else "by its capacity"
    found = rollout.analysis
    total = found.requests + found.requests_old if found is not None else 0
    if found is not None and total:
        rest = f", measured {100 * found.requests / total:.1f} % of {total:,}{rest}"
    yield ["share     ", f"{rollout.to} {share}{rest}"]
    if found is not None:
        style = {"fail": "red", "pass": "green"}.get(found.result, "")
        yield ["analysis  ", (f"{found.result}: " if found.result != "running" else "", style), found.text]


def _opening_lines(rollout: Rollout, opening: Opening | None) -> Iterator[Line]:
    if opening is None:
        return
    if opening.phase and opening.to == rollout.to:
        text, style = PHASES.get(opening.phase, (opening.phase, "yellow"))
        yield ["cut-over  ", (f"{opening.phase}: {opening.detail or text}", style), f", {age(opening.since_s)}"]
    waits = opening.versions.get(rollout.to)
    line: Line = ["gates     "]
    for gate in waits.gates if waits is not None else ():
        line += ["; " if len(line) > 1 else "", *_gate(gate)]
    if len(line) > 1:
        yield line


def _gate(gate: GateProgress) -> Line:
    if gate.state == "open":
        by = f"{', '.join(gate.by)}, " if gate.by else ""
        return [f"{gate.name} ", ("yes", "green"), f" ({by}{age(gate.age_s)} ago)"]
    why = f": {gate.reason}" if gate.reason else f" {age(gate.age_s)}"
    return [f"{gate.name} ", (gate.state, GATE_STYLES.get(gate.state, "yellow")), why]


def left(rollout: Rollout, now: float) -> str:
    """An estimate from the nodes that are done, with its uncertainty: their number counts as random (Poisson)."""
    done, go = rollout.nodes.done, to_go(rollout.nodes) + rollout.nodes.out
    if rollout.state != "rolling" or not done or not go or rollout.started >= now:
        return ""
    if rollout.step is not None and rollout.step.number:  # how long its steps take does not follow from the nodes
        return ""
    spent_s = min((slot.since_s for slot in rollout.slots), default=0.0)  # on the nodes that are out
    each_s, spread = max(0.0, now - rollout.started - spent_s) / done, done**0.5

    def rest(nodes: float) -> str:
        """If so many nodes had been done in that time."""
        return age(max(1.0, go * each_s * done / nodes - spent_s))

    between = f" ({rest(done + spread)} to {rest(done - spread)})" if done > 1 else ""
    return f"  about {rest(done)} left{between}"


def clock(unix_s: float, now: float) -> str:
    """Local time: "12:00", or with the day if that is not today."""
    if not unix_s:
        return "-"
    then = time.localtime(unix_s)
    same = time.strftime("%Y%j", then) == time.strftime("%Y%j", time.localtime(now))
    return time.strftime("%H:%M" if same else "%Y-%m-%d %H:%M", then)


# ---------------------------------------------------------------------- earlier ones

HEADERS = ("ROLLOUT", "BEFORE", "VERSION", "STATE", "BY", "STARTED", "TOOK")


def history(rollout: Rollout, json: bool) -> int:
    past: Sequence[PastRollout] = rollout.history or (rollout,)
    if json:
        out.json({"service": rollout.service, "history": [each.to_dict() for each in past]})
    else:
        out.table(HEADERS, [_row(each) for each in past])
    return 0


def _row(rollout: PastRollout) -> Line:
    took = age(rollout.ended - rollout.started) if rollout.ended else "-"
    state = f"{rollout.state}, undoes {rollout.undoes}" if rollout.undoes else rollout.state
    others = [f"{part.service} {part.id}" for part in rollout.joint if part.id != rollout.id]
    state += f", with {', '.join(others)}" if others else ""
    return [
        rollout.id,
        rollout.before or "-",
        rollout.to,
        (state, STYLES.get(rollout.state, "yellow")),
        rollout.by or "-",
        clock(rollout.started, time.time()),
        took,
    ]


def show(client: Client, rollout: Rollout, json: bool) -> int:
    if json:
        out.json(rollout)
        return 0
    for line in block(rollout, opening(client, rollout), time.time()):
        out.line(*line)
    if rollout.owner:
        out.line(f"owner     {rollout.owner}, term {rollout.term}")
    if rollout.digest:
        out.line(f"digest    {rollout.digest}")
    if rollout.spec is not None:
        for line in _settings(rollout.spec):
            out.line(line)
    return 0


def _settings(spec: RolloutSettings) -> Iterator[str]:
    plain = {key: value for key, value in spec.to_dict().items() if key not in ("step", "analysis")}
    yield "settings  " + ", ".join(f"{key} {_setting(value)}" for key, value in plain.items())
    for number, step in enumerate(spec.step, 1):
        yield f"step {number}    nodes {step.nodes}, share {step.share:g} %, for {age(step.for_s)}"
    if spec.analysis is not None:
        plain = {key: value for key, value in spec.analysis.to_dict().items() if key != "queries" and value != ""}
        names = [query.name for query in spec.analysis.queries]
        yield "analysis  " + ", ".join([*(f"{key} {_setting(value)}" for key, value in plain.items()), *names])


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
