"""One node's part of a rollout, as pure functions: what it has and what the target wants in, what it does next out.

    current -> fetching -> prepared -> queued            the old version serves
    in place:      draining -> stopping -> starting -> verifying -> done
    side by side:  starting -> verifying -> draining -> stopping -> done
    an incompatible version:  ... verifying -> ready (waits for the cut-over) -> done
    starting, verifying --failure or abort--> reverting -> failed, or current

* A node that waits (`_wait`) has no phase of its own making: it follows from what runs here and from the target. A node that moves
  (`_move`) ends its step, whatever becomes of the rollout: the new version runs, or the former one again.
* A *place* is a slot of the driver. It has at most one version, and empties only by a confirmed `stop`: place by place
  run -> drain -> stop -> empty. Another version is started only in an empty place.
* A *slot* is the permission of the rollout's owner to take capacity out. What serves nothing needs none, and neither does
  what the cut-over takes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.model.rollout import (
    CURRENT,
    CUTTING_OVER,
    DONE,
    DRAINING,
    FAIL,
    FAILED,
    FETCHING,
    GIVE_BACK,
    HALTED,
    HOLDING,
    PREPARED,
    QUEUED,
    READY,
    REVERTING,
    ROLLING,
    STARTING,
    STOPPING,
    UNDOING,
    UNDONE,
    UPDATED,
    VERIFYING,
    Rollout,
    RolloutSpec,
    Target,
)

PLACES: Final = ("a", "b")
EMPTY, RUN, DRAIN, STOP = "empty", "run", "drain", "stop"
NONE, ASKED, HELD = "", "asked", "held"
"""States of the slot, besides GIVE_BACK and FAIL: no longer needed, and the owner has not confirmed that yet. ASKED: it may have
been granted."""
TO_COME: Final = (CURRENT, FETCHING, PREPARED, QUEUED, *HOLDING)
"""Phases of a node that its rollout has still to update."""
FLAPS_MAX = 3
END_KNOWN_S = 4.0
"""By then the driver has been asked how a program ended that was not healthy any more."""
STUCK_TRIES = 3
"""Failed calls of `stop`, after which the other place may be used."""
LOG_LINES = 20


class Place(Struct, frozen=True):
    """What shall be in a slot of the driver. RUN: it runs and is registered. DRAIN: it runs until its instance is drained.
    STOP: it is being stopped. `port` 0: not known yet."""

    intent: str = EMPTY
    version: str = ""
    port: int = 0


class Record(Struct, frozen=True):
    """The state of an agent for one service of a role, as it is saved.

    `to`: version that the node is moving to, in the place `new`; "" while it waits. `old`: place of the version that is
    replaced, `back`: that version; "" for none. `rollout`: that of the phase. `began`, `since`: Unix time of the start of the new
    version, and of the phase. `slot`: for `slot_rollout`; `share`: capacity that the node had when it asked. `failed`: attempt of a rollout
    that failed here, `why`: the reason. `prepared`: version whose artifact is here.
    """

    phase: str = CURRENT
    since: float = 0.0
    rollout: str = ""
    to: str = ""
    new: str = ""
    old: str = ""
    back: str = ""
    began: float = 0.0
    flaps: int = 0
    slot: str = NONE
    slot_rollout: str = ""
    slot_term: int = 0
    share: int = 0
    failed: str = ""
    why: str = ""
    prepared: str = ""
    detail: str = ""
    log: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=lambda: dict.fromkeys(PLACES, Place()))

    @property
    def moving(self) -> bool:
        return bool(self.new)

    def with_place(self, name: str, place: Place) -> Record:
        return replace(self, places={**self.places, name: place})

    def running(self) -> dict[str, str]:
        """Version -> place, of what runs and shall go on."""
        return {place.version: name for name, place in self.places.items() if place.intent == RUN}


class Seen(Struct, frozen=True):
    """What is known of a place. `status`: as the driver reports it; "": not known. `fails`: failed calls in a row. `fault`,
    `retry`: of the last `start`. `registered`: its instance is registered, perhaps still draining. `active`: it may serve.
    `up_s`: time for which it has been healthy; None: it is not. `broke`: how often it was healthy or running, and was no more.
    `ended`: how a run of it last ended, where that is known. `lost_s`: since it was last healthy, if the driver has not been
    asked since; else None."""

    status: str = ""
    version: str = ""
    port: int = 0
    fails: int = 0
    fault: str = ""
    detail: str = ""
    retry: bool = False
    log: tuple[str, ...] = ()
    registered: bool = False
    active: bool = False
    up_s: float | None = None
    broke: int = 0
    ended: str = ""
    lost_s: float | None = None

    @property
    def up(self) -> bool:
        return self.up_s is not None

    @property
    def serves(self) -> bool:
        return self.up and self.active


class Fetch(Struct, frozen=True):
    """The last `prepare` that failed."""

    version: str = ""
    detail: str = ""
    retry: bool = False
    log: tuple[str, ...] = ()


class Facts(Struct, frozen=True):
    """`started_s`: Unix time since when this control runs; deadlines do not count the time before. `eligible`: the cursor of the
    rollout has passed this node. `side_by_side`: the role allows two versions at once. `begins`: the
    node may begin a step: it can write to its disk, and is not about to leave."""

    name: str
    target: Target
    wall_s: float
    started_s: float
    eligible: bool
    side_by_side: bool
    begins: bool
    seen: Mapping[str, Seen]
    fetch: Fetch = Fetch()

    @property
    def spec(self) -> RolloutSpec:
        return self.target.rollout.spec if self.target.rollout is not None else RolloutSpec()

    def stuck(self, name: str, place: Place) -> bool:
        """Whether the place does not become empty, so that another one has to do."""
        return place.intent == STOP and self.seen[name].fails >= STUCK_TRIES


class Outcome(Struct):
    """`prepare`: version to fetch now; "": none. `notes`: (code, text, level). `wakes`: times until the record may change by
    itself."""

    record: Record
    prepare: str = ""
    notes: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    wakes: list[float] = field(default_factory=list[float])


def advance(record: Record, facts: Facts) -> Outcome:
    out = Outcome(_without_state(record, _with_places(record, facts.seen), facts.target))
    if record.moving and record.phase in (STARTING, VERIFYING) and facts.seen[record.new].broke:
        out.record = replace(out.record, flaps=record.flaps + facts.seen[record.new].broke)
    for _ in range(16):  # a step may make the next one possible at once
        before = out.record
        out.prepare, out.wakes = "", []
        if before.moving:
            _move(out, facts)
        else:
            _wait(out, facts)
        if out.record == before:
            break
    if out.record.phase != record.phase:
        out.record = replace(out.record, since=facts.wall_s)
    return out


def wanted(target: Target) -> str | None:
    """The version that a node shall have in the end. "": none. None: what it has."""
    rollout = target.active
    if rollout is None:
        undone = target.rollout is not None and target.rollout.state == UNDONE and not target.rollout.before
        return target.settled or ("" if undone else None)
    return rollout.before if rollout.state == UNDOING else rollout.to


def has_to_go_back(record: Record, rollout: Rollout | None, fetch: Fetch) -> bool:
    """Whether an undo of the rollout has to do something here. One that cannot fetch the former version does nothing for now."""
    if rollout is None or (fetch.version and fetch.version == rollout.before):
        return False
    there = (place.version for place in record.places.values() if place.intent != EMPTY)
    return record.rollout == rollout.id and (record.moving or rollout.to in there)


# ---------------------------------------------------------------------- places


def _with_places(record: Record, seen: Mapping[str, Seen]) -> Record:
    for name in PLACES:
        place, now = record.places[name], seen[name]
        there = now.status in ("running", "pausing", "stopping")
        match place.intent:
            case "empty" if there:  # this agent has lost its state
                place = Place(STOP if now.status == "stopping" else RUN, now.version, now.port)
            case "run" if now.status == "running":
                place = Place(RUN, now.version or place.version, now.port or place.port)
            case "drain" if not now.registered:
                place = replace(place, intent=STOP)
            case _:
                pass
        if place != record.places[name]:
            record = record.with_place(name, place)
    return record


def _without_state(before: Record, record: Record, target: Target) -> Record:
    """An agent that finds programs of which it knows nothing may have had a slot. It gives that back once it has the target."""
    if any(before.places[name].intent == EMPTY != record.places[name].intent for name in PLACES) and not record.slot:
        record = replace(record, slot=GIVE_BACK, slot_rollout="")
    if record.slot != GIVE_BACK or record.slot_rollout or target.rollout is None:
        return record
    active = target.active
    if active is None:
        return replace(record, slot=NONE)
    return replace(record, slot_rollout=active.id, slot_term=active.term)


def emptied(record: Record, name: str, log: tuple[str, ...] = ()) -> Record:
    """The driver has confirmed that nothing runs there. `log`: the last lines of what ran."""
    if log and record.phase == REVERTING and record.detail and name == record.new:
        record = replace(record, log=log[-LOG_LINES:])  # it may have exited since the driver was last asked
    return record.with_place(name, Place()) if record.places[name].intent == STOP else record


def next_call(place: Place, seen: Seen) -> str:
    """What to ask the driver. A program that runs but is not healthy is asked for again and again: it may have exited.
    One that was not healthy for a moment, too."""
    match place.intent:
        case "stop":
            return "stop"
        case "run" if seen.status in ("absent", "stopped"):
            return "start"
        case "run" if seen.status != "running" or not seen.up or seen.lost_s is not None:
            return "state"
        case "empty" if not seen.status:
            return "state"
        case _:
            return ""


def _retire(out: Outcome, name: str) -> None:
    place = out.record.places[name]
    if place.intent == RUN:
        out.record = out.record.with_place(name, replace(place, intent=DRAIN))


# ---------------------------------------------------------------------- waiting


def _wait(out: Outcome, facts: Facts) -> None:
    """The phase of a node that is not on its way, and the beginning of a step."""
    record, rollout = out.record, facts.target.rollout
    if rollout is not None and record.rollout != rollout.id:
        out.record = record = replace(record, rollout=rollout.id, phase=CURRENT, detail="", log=())
    phase, begin = _decide(out, facts)
    if begin is not None:
        _begin(out, facts, begin)
        return
    record = out.record
    returning = record.slot in (GIVE_BACK, FAIL)
    queued = phase == QUEUED and rollout is not None and record.slot_rollout == rollout.id
    if record.slot == HELD or (record.slot == ASKED and not queued):
        out.record = replace(record, slot=GIVE_BACK)
    elif not returning or phase in (DRAINING, STOPPING):
        out.record = replace(record, phase=phase)


def _decide(out: Outcome, facts: Facts) -> tuple[str, str | None]:
    """(phase, version to move to now, if any)."""
    record, target = out.record, facts.target
    version, active = wanted(target), target.active
    occupied = [name for name, place in record.places.items() if place.intent != EMPTY]
    if version is None:
        return CURRENT, None
    if not version:
        for name in occupied:
            _retire(out, name)
        return (_leaving(out.record, occupied) if occupied else CURRENT), None
    here = record.running().get(version)
    if here is not None:
        others = [name for name in occupied if name != here and not facts.stuck(name, record.places[name])]
        if not others:
            return _arrived(target, version), None
        other = others[0]
        if record.places[other].intent != RUN:
            return _leaving(record, others), None
        if active is None or active.state in (CUTTING_OVER, UNDOING):
            if not facts.seen[here].up and facts.seen[other].serves:
                return READY, None
            _retire(out, other)
            return DRAINING, None
        if active.incompatible:
            return READY, None
    return _next_step(out, facts, version, occupied)


def _leaving(record: Record, names: list[str]) -> str:
    return DRAINING if any(record.places[name].intent == DRAIN for name in names) else STOPPING


def _arrived(target: Target, version: str) -> str:
    active, last = target.active, target.rollout
    if active is None:
        return UPDATED if last is not None and last.state == DONE and last.to == version else CURRENT
    if active.state == UNDOING:
        return CURRENT
    return READY if active.incompatible and active.state != CUTTING_OVER else UPDATED


def _next_step(out: Outcome, facts: Facts, version: str, occupied: list[str]) -> tuple[str, str | None]:
    """The way to a version that is not here, or not alone."""
    record, active, last = out.record, facts.target.active, facts.target.rollout
    if not occupied and _takes_part_from(record, facts.target):
        assert active is not None
        version = active.before  # a node without any version: it takes part in the rollout from here on
    elif last is not None and (
        (record.failed == last.attempt and version == last.to) or (occupied and _is_given_up(last, version))
    ):
        for name in occupied if last.one_way else ():
            _retire(out, name)
        return FAILED, None
    mandatory = active is None or version != active.to  # no step of the rollout
    if record.prepared != version:
        if not mandatory and active is not None and active.state == HALTED:
            return CURRENT, None
        return _fetch(out, facts, version, mandatory=mandatory)
    running = list(record.running().values())
    if occupied and not running:
        free = [name for name, place in record.places.items() if place.intent == EMPTY]
        stuck = all(facts.stuck(name, record.places[name]) for name in occupied)
        if not (stuck and free and facts.side_by_side):
            return _leaving(record, occupied), None
    if len(running) > 1 and version not in record.running():  # remains of a rollout that another one superseded
        spare = min(running, key=lambda name: (facts.seen[name].serves, facts.seen[name].up))
        _retire(out, spare)
        return DRAINING, None
    if not _may_begin(active, facts, occupied, version):
        return PREPARED, None
    held = record.slot == HELD and last is not None and record.slot_rollout == last.id
    if _needs_slot(record, active, facts, occupied, version) and not held:
        return QUEUED, None
    return record.phase, version


def _takes_part_from(record: Record, target: Target) -> bool:
    """Whether a node without any version first gets the one that the rollout replaces. Not if it has failed with it."""
    active = target.active
    if active is None or not active.before or active.state == CUTTING_OVER:
        return False
    return not any(each.attempt == record.failed and each.to == active.before for each in target.history)


def _fetch(out: Outcome, facts: Facts, version: str, *, mandatory: bool) -> tuple[str, str | None]:
    record, failed = out.record, facts.fetch
    if failed.version == version:
        since = max(record.since, facts.started_s) if record.phase == FETCHING else facts.wall_s
        late = facts.wall_s >= since + facts.spec.progress_s
        if not mandatory and (not failed.retry or late):
            _note_failure(out, facts, version, failed.detail, failed.log)
            return FAILED, None
        out.record = replace(record, detail=failed.detail, log=failed.log)
    out.prepare = version
    return FETCHING, None


def _may_begin(active: Rollout | None, facts: Facts, occupied: list[str], version: str) -> bool:
    if not facts.begins:
        return False
    if active is None or active.state == CUTTING_OVER or (not occupied and version == active.before):
        return True
    return active.state in (ROLLING, UNDOING) and facts.eligible


def _needs_slot(record: Record, active: Rollout | None, facts: Facts, occupied: list[str], version: str) -> bool:
    if active is None:
        serves = any(seen.serves for seen in facts.seen.values())
        return serves and _free_place(record, facts) is None
    if active.state == CUTTING_OVER:
        return False
    return bool(occupied) or version == active.to


def _free_place(record: Record, facts: Facts) -> str | None:
    """The place for a version beside the one that runs. None: it has to take its place."""
    rollout = facts.target.rollout
    free = [name for name, place in record.places.items() if place.intent == EMPTY]
    mode = facts.spec.side_by_side
    if not free or not facts.side_by_side or mode == "never":
        return None
    if facts.target.active is None:
        return free[0]
    if facts.target.active.state == CUTTING_OVER:
        return None
    return free[0] if mode == "always" or (rollout is not None and rollout.incompatible) else None


def goes_beside(record: Record, facts: Facts) -> bool:
    """Whether the next version starts beside the one that runs, so that the step takes nothing out of service."""
    return _free_place(record, facts) is not None


def _begin(out: Outcome, facts: Facts, version: str) -> None:
    record = out.record
    running = record.running()
    there = running.pop(version, None)
    old = next(iter(running.values()), "")
    empty = [name for name, place in record.places.items() if place.intent == EMPTY]
    new = there or (_free_place(record, facts) if old else empty[0]) or old
    back = record.places[old].version if old else ""
    share = record.share if record.slot == HELD else 0
    record = replace(
        record, to=version, new=new, old=old, back=back, began=facts.wall_s, flaps=0, share=share, detail="", log=()
    )
    if new == old:
        record = replace(record.with_place(old, replace(record.places[old], intent=DRAIN)), phase=DRAINING)
    else:
        record = replace(record if there else record.with_place(new, Place(RUN, version)), phase=STARTING)
    out.record = record


# ---------------------------------------------------------------------- moving


def _move(out: Outcome, facts: Facts) -> None:
    record = out.record
    if record.phase != REVERTING and not _is_wanted(record, facts.target):
        if record.slot != HELD and facts.seen[record.new].serves and record.places[record.new].version == record.to:
            _end(out)  # it goes back as a step of its own, with a slot
            return
        out.record = record = replace(record, phase=REVERTING, began=facts.wall_s, detail="")
    if record.phase in (STARTING, VERIFYING) and record.places[record.new].version != record.to:
        _end(out)  # the driver has something else there: the state of this agent is an older copy
        return
    match record.phase:
        case "starting":
            _start(out, facts)
        case "verifying":
            _verify(out, facts)
        case "reverting":
            _revert(out, facts)
        case _:
            _empty(out, facts)


def _is_wanted(record: Record, target: Target) -> bool:
    if target.active is not None and not record.back and record.to == target.active.before:
        return True  # it had no version at all
    return wanted(target) in (record.to, None)


def _empty(out: Outcome, facts: Facts) -> None:
    """Draining and stopping: in place before the new version is started, else when it is verified."""
    record = out.record
    place, new = record.places[record.old], record.places[record.new]
    if place.intent in (DRAIN, STOP):
        phase = DRAINING if place.intent == DRAIN else STOPPING
        out.record = record = replace(record, phase=phase, detail=facts.seen[record.old].detail)
        if not facts.stuck(record.old, place):
            return
        if record.new == record.old:
            free = [name for name, each in record.places.items() if each.intent == EMPTY]
            if not free or not facts.side_by_side:
                return
            out.record = record = replace(record, new=free[0])
            new = record.places[record.new]
    if new.intent == RUN:
        _finish(out, facts)
        return
    record = record.with_place(record.new, Place(RUN, record.to))
    out.record = replace(record, phase=STARTING, began=facts.wall_s, detail="")


def _start(out: Outcome, facts: Facts) -> None:
    record, seen = out.record, facts.seen[out.record.new]
    if seen.status in ("running", "pausing"):
        out.record = replace(record, phase=VERIFYING, detail="")
    elif seen.fault and not seen.retry:
        _fail(out, facts, seen.detail, seen.log)
    elif _has_time(out, facts):
        out.record = replace(record, detail=seen.detail)
    else:
        _fail(out, facts, seen.detail or f"it did not start within {facts.spec.progress_s:g} s", seen.log)


def _verify(out: Outcome, facts: Facts) -> None:
    record, seen = out.record, facts.seen[out.record.new]
    soak_s = facts.spec.soak_s if _is_step(record, facts.target) else 0.0
    if record.flaps >= FLAPS_MAX and not seen.ended and seen.lost_s is not None and seen.lost_s < END_KNOWN_S:
        out.wakes.append(END_KNOWN_S - seen.lost_s)  # its driver may know why
        return
    if record.flaps >= FLAPS_MAX:
        _fail(out, facts, f"it did not stay healthy: {seen.ended or seen.detail}", seen.log)
        return
    if seen.up_s is None:
        if not _has_time(out, facts):
            _fail(out, facts, f"it was not healthy within {facts.spec.progress_s:g} s: {seen.detail}", seen.log)
        return
    if seen.up_s < soak_s:
        out.wakes.append(soak_s - seen.up_s)
        return
    old = record.places[record.old] if record.old else Place()
    if record.new == record.old or old.intent != RUN or _waits_for_cut_over(facts.target.active):
        _finish(out, facts)
    elif _cuts_over(facts.target.active) or seen.active or not facts.seen[record.old].serves:
        _retire(out, record.old)
        out.record = replace(out.record, phase=DRAINING)


def _waits_for_cut_over(active: Rollout | None) -> bool:
    return active is not None and active.incompatible and active.state not in (CUTTING_OVER, UNDOING)


def _cuts_over(active: Rollout | None) -> bool:
    """Whether the new version turns active only when the old one has stopped. Else it serves first: a gate or the policy may bar it."""
    return active is not None and active.incompatible


def _is_step(record: Record, target: Target) -> bool:
    """Whether this is the step of a rollout: its failure is one of the rollout, and the node goes back."""
    active, last = target.active, target.rollout
    if active is None:
        return last is not None and _is_given_up(last, record.to)
    return active.state != UNDOING and record.to == active.to


def _is_given_up(last: Rollout, version: str) -> bool:
    """Whether the nodes that are left without the version of the service keep what they have."""
    return last.of_rest and last.state == UNDONE and version == last.to


def _has_time(out: Outcome, facts: Facts) -> bool:
    left_s = max(out.record.began, facts.started_s) + facts.spec.progress_s - facts.wall_s
    if left_s > 0:
        out.wakes.append(left_s)
    return left_s > 0


def _fail(out: Outcome, facts: Facts, detail: str, log: tuple[str, ...]) -> None:
    record = out.record
    if _is_step(record, facts.target):
        _note_failure(out, facts, record.to, detail, log)
        back = "" if facts.target.rollout is not None and facts.target.rollout.one_way else record.back
        out.record = replace(out.record, phase=REVERTING, began=facts.wall_s, back=back)
    else:  # there is nothing better to go back to: it is tried on and on
        out.record = replace(record, began=facts.wall_s, flaps=0, detail=detail, log=log[-LOG_LINES:])


def _note_failure(out: Outcome, facts: Facts, version: str, detail: str, log: tuple[str, ...]) -> None:
    record, last = out.record, facts.target.rollout
    failed = last.attempt if last is not None else ""
    out.record = replace(record, failed=failed, why=detail, detail=detail, log=log[-LOG_LINES:])
    text = f"{facts.target.service}-{version} failed on {facts.name}: {detail}"
    out.notes.append(("node-failed", text, "error"))


def _revert(out: Outcome, facts: Facts) -> None:
    """The version that was there before runs again, and the new one is gone. The new one stays until then if it is healthy."""
    record = out.record
    last, back = facts.target.rollout, record.back
    failed = last is not None and record.failed == last.attempt
    new = record.places[record.new]
    name = next((n for n, each in record.places.items() if back and each.version == back and each.intent != EMPTY), "")
    if back and not name:
        empty = [each for each in (record.old, *PLACES) if record.places[each].intent == EMPTY]
        alone = all(each.intent == EMPTY for each in record.places.values())
        leaving = facts.stuck(record.new, new) or (record.old != record.new and record.old in empty)
        if empty and (alone or (facts.side_by_side and leaving)):
            name = empty[0]
            record = record.with_place(name, Place(RUN, back))
    elif name and record.places[name].intent == DRAIN:
        record = record.with_place(name, replace(record.places[name], intent=RUN))
    seen = facts.seen[name] if name and record.places[name].intent == RUN else Seen()
    out.record = record
    keeps = back and name and not failed and not seen.up and facts.seen[record.new].up
    if new.version == record.to and name != record.new and not keeps:
        _retire(out, record.new)
        new = out.record.places[record.new]
    gone = name == record.new or new.intent == EMPTY or facts.stuck(record.new, new)
    served_nothing = not record.share and seen.status == "running"
    if not gone or not (not back or seen.up or served_nothing or not _has_time(out, facts)):
        return
    if failed and back:
        out.notes.append(("node-reverted", f"{facts.name} runs {facts.target.service}-{back} again", "warning"))
    _end(out, FAIL if failed else GIVE_BACK)


def _finish(out: Outcome, facts: Facts) -> None:
    active, name = facts.target.active, f"{facts.target.service}-{out.record.to}"
    text = f"{facts.name} runs {name}"
    if active is not None and active.incompatible and active.state == ROLLING:
        text = f"{name} is ready on {facts.name} and waits for the cut-over"
    out.notes.append(("node-updated", text, "info"))
    out.record = replace(out.record, detail="", log=())
    _end(out)


def _end(out: Outcome, what: str = GIVE_BACK) -> None:
    record = out.record
    slot = what if record.slot == HELD else record.slot
    out.record = replace(record, to="", new="", old="", back="", flaps=0, slot=slot)
