"""`sdlb rollout plan SERVICE VERSION --lose NODE`: the rollout, played in the simulator on today's tree while nodes are lost.

It runs in this process, with what the root that would own the rollout knows of its tree. Nothing in the tree is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import to_builtins

from sdlb.cli.release import warn
from sdlb.cli.rollout_status import some
from sdlb.cli.status import age
from sdlb.model.policy_layers import covers
from sdlb.model.rollout import RolloutSpec
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import RolloutPlan

if TYPE_CHECKING:
    from sdlb.sim.forecast import Forecast

SHOWN_MAX = 5


def forecasts(client: Client, plan: RolloutPlan, lose: Sequence[str]) -> list[Forecast]:
    """The first without a loss. Raises Problem."""
    from sdlb.sim import forecast

    tree, found = plan.tree, client.policies()
    if tree is None or plan.settings is None:
        raise Problem(
            BASE + "plan-refused", 409, "a root of an earlier release does not report its tree; upgrade it first"
        )
    warn(found.unreachable)
    known = {entry.name: entry.document for entry in found.policies if covers(entry.name, plan.service)}
    groups = [forecast.Group(each.parents, each.hosts, each.nodes, each.capacity, each.zones) for each in tree.groups]
    played = forecast.Tree(
        tree.root,
        tree.roots,
        tuple(groups),
        tree.routes,
        plan.service,
        plan.before,
        plan.to,
        msgspec.convert(plan.settings.to_dict(), RolloutSpec),
        tree.side_by_side,
        known,
        tree.beat_s,
        tree.lease_s,
        tree.fence_s,
    )
    try:
        return forecast.forecasts(played, lose)
    except ValueError as error:
        raise Problem(BASE + "plan-refused", 409, str(error)) from None


def lines(found: Sequence[Forecast], nodes: int) -> Iterator[str]:
    from sdlb.sim.forecast import worst

    for each in found:
        yield _line(each)
    last = worst(found)
    if last.stuck:
        more = f" and {len(last.stuck) - SHOWN_MAX} more" if len(last.stuck) > SHOWN_MAX else ""
        yield f"without the new version at the end: {', '.join(last.stuck[:SHOWN_MAX])}{more}"
    if last.played < nodes:
        yield f"played with {last.played} of {some(nodes, 'node')}, in the same proportions"


def _line(each: Forecast) -> str:
    where = f"{', '.join(each.lost)} lost {each.at}" if each.lost else "nothing lost"
    why = f" ({each.why.splitlines()[0]})" if each.why else ""
    gap = (
        f", no version serves for {age(each.gap_s) if each.gap_s >= 1 else f'{each.gap_s:.2f} s'}" if each.gap_s else ""
    )
    below = ", below the floor" if each.lowest < each.floor else ""
    capacity = f"lowest capacity {each.lowest:,} of {each.baseline:,}, floor {each.floor:,}{below}"
    return f"{where}: it {each.result}{why} after about {age(each.took_s)}; {capacity}{gap}"


def data(found: Sequence[Forecast]) -> list[dict[str, Any]]:
    return [{key: value for key, value in to_builtins(each).items() if key != "moments"} for each in found]
