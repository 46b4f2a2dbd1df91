"""Which root may take nodes out, when several own a rollout: one after the other, so that `nodes_out_max` holds for all rollouts.

A rollout *claims* its turn while it takes nodes out or wants to, and its target says since when (`Rollout.turn_s`). The oldest claim is
first, and rollouts of other owners wait until it is given up. A new claim is later than all that its owner knows.

Documents take any time, so a claim counts once every other root *agrees* to it (Ricart and Agrawala 1981). A root agrees when none of its
own claims is older and no node is out for its own rollouts, and says so in a document of its own. From then on it knows the claim and
waits for it if that is older than its own. A root that joins late with a clock that is behind has an older claim than one that takes nodes
out: so no root agrees to anything while a node is out for it.

A lost root is not asked. A lost owner keeps its claim until its rollout is adopted, or has ended. Rollouts of one owner need no turns: it
counts their nodes together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from sdlb.core.rollout_rules import Owned
from sdlb.model.rollout import DONE, READY, ROLLING, UNDOING, UPDATED, RoleReport, Rollout

UNHEARD = "to agree first"
"""How the objection ends if roots do not agree yet."""
STEP_S = 0.001
"""By which a claim is later than the last one, if the clock of its root is behind."""

Claims = Mapping[str, tuple[str, float]]
"""Service -> rollout and time of a claim."""


def claimed(
    rollout: Rollout, owned: Owned, report: RoleReport, others: Sequence[Rollout], wall_s: float, *, late: bool = False
) -> Rollout:
    """With its claim as it should be. `others`: rollouts of other owners. `late`: it is done, and a node that was away asks."""
    if rollout.ended and rollout.state != DONE:
        return rollout
    if owned.slots or _wants(rollout, report) or late:
        latest = max((each.turn_s for each in others), default=0.0)
        return rollout if rollout.turn_s else replace(rollout, turn_s=max(wall_s, latest + STEP_S))
    return replace(rollout, turn_s=0.0)


def _wants(rollout: Rollout, report: RoleReport) -> bool:
    if rollout.state == ROLLING:
        over = report.count(rollout.id, READY, UPDATED) + report.failures(rollout)
        return not rollout.step_since and over < report.nodes
    return rollout.state == UNDOING


def _place(rollout: Rollout) -> tuple[float, str, str]:
    """Two roots may give the same id."""
    return rollout.turn_s or float("inf"), rollout.id, rollout.owner_id


def objection(rollout: Rollout, others: Sequence[Rollout], missing: Sequence[str]) -> str:
    """Why the rollout may not take capacity out now, because of those of other owners. `missing`: names of roots that do not
    agree yet."""
    first = min((each for each in others if each.turn_s), key=_place, default=None)
    if first is not None and _place(first) < _place(rollout):
        adopt = f"; if {first.owner} is lost, adopt {first.id}" if first.state != DONE else ""
        return f"{first.id} of {first.owner} takes nodes out first{adopt}"
    return f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} {UNHEARD}" if missing else ""


def agreed(others: Mapping[str, Rollout], mine: Sequence[tuple[Rollout, bool]]) -> Claims:
    """The claims that this root agrees to, of `others` by service. `mine`: its own rollouts, and whether a node is out for them."""
    if any(out for _, out in mine):
        return {}
    oldest = min((_place(each) for each, _ in mine if each.turn_s), default=None)
    claims = ((service, each) for service, each in sorted(others.items()) if each.turn_s)
    return {service: (each.id, each.turn_s) for service, each in claims if oldest is None or _place(each) < oldest}


def turns_body(claims: Claims) -> bytes:
    return msgspec.json.encode(claims)


def agrees(body: bytes, service: str, rollout: Rollout) -> bool:
    """Whether a root with this document agrees to the claim."""
    try:
        claims = msgspec.json.decode(body, type=dict[str, tuple[str, float]])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return rollout.turn_s > 0 and claims.get(service) == (rollout.id, rollout.turn_s)
