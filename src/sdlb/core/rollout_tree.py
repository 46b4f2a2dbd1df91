"""The tree below a root as far as the root knows it, to play a rollout in the simulator (`sdlb.sim.forecast`).

A root knows its children and what they sum up (promise 7), not every node: groups of hosts, with some of their names.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.reports import Reports
    from sdlb.core.state import State


def rollout_tree(
    state: State, children: Children, reports: Reports, service: str, version: str, *, alone: bool
) -> dict[str, Any]:
    """Where `version` runs. `groups`: hosts below the same children; `parents` empty: they are children themselves. `hosts`: names of some
    of their `nodes`; `zones`: zone -> nodes in it, in proportion. `alone`: some of them cannot run two versions side by side."""
    groups: dict[object, dict[str, Any]] = {}
    routes: dict[str, None] = {}
    for key in sorted(state.by_service.get(service, ())):
        if key.version != version:
            continue
        routes[key.route] = None
        for target, source in sorted(state.slots[key].sources.items()):
            claim = source.claim
            direct = not source.child or claim.hosts == (source.child,)
            name = source.child or state.settings.name
            place = name if direct else claim.hosts_digest or name
            known = groups.setdefault(place, {"parents": [], "hosts": [], "nodes": 0, "capacity": 0})
            known["hosts"] = sorted({*known["hosts"], *((name,) if direct else claim.hosts)})
            known["nodes"] = max(known["nodes"], 1 if direct else max(claim.count, len(claim.hosts)))
            known["capacity"] = max(known["capacity"], claim.capacity)
            if not direct and name not in known["parents"] and target.startswith("n:"):
                known["parents"].append(name)
    for known in groups.values():
        through = [*known["parents"], *("" if name == state.settings.name else name for name in known["hosts"])]
        zones: Counter[str] = Counter()
        for name in through:
            zones.update(reports.zones(name, service))
        known["zones"] = dict(zones)
    names = children.root_names
    others = [names.get(root, root) for root in children.other_roots()]
    return {
        "root": state.settings.name,
        "roots": sorted({state.settings.name, *others}),
        "groups": list(groups.values()),
        "routes": list(routes),
        "side_by_side": not alone,
        "beat_s": state.settings.beat_s,
        "lease_s": state.settings.lease_s,
        "fence_s": state.settings.fence_s,
    }
