"""Which parent gets the report of a service (`reports.py`), so that no root counts a node twice.

A node reports a service to the first of its parents, in the order of its node file, that is connected and leads to the root that
owns the rollout of the service. Without a rollout, this is the first root by name, which gets the next one. A parent that is
itself cut off from all roots is the last choice.

A parent drops the reports of a child when their link closes, or with an empty report. A root above may count them for a lease
longer, if it hears nothing more of that parent. So before a node reports to another parent that leads to the same root, it waits
for a lease and a heartbeat, unless a new link to the former parent is up. Meanwhile that root takes the node's capacity for
missing, which is safe. Where such a wait is necessary, a parent that comes back is no reason to change. Parents that lead to
different roots are independent.

A node that has just started does not know what it has reported before, so it treats all its parents as former ones. A second
fault on the way up that begins during the wait is not covered: a root may then count the node twice until a lease expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sdlb.core.reports import minor
from sdlb.core.uplink import Phase
from sdlb.model.rollout import RoleReport

if TYPE_CHECKING:
    from sdlb.core.state import State
    from sdlb.core.uplink import Uplink

Report = tuple[str, bytes]
MESSAGE_BYTES_MAX: Final = 1 << 22
"""Of the reports in one message. The rest follows with the next message."""


class Reporting:
    def __init__(self, state: State, links: dict[str, Uplink]) -> None:
        self._state = state
        self._links = links
        self._ordered = [links[parent] for parent in dict.fromkeys(state.settings.parents)]
        self._waiting: dict[str, None] = {}  # services that may still be counted through a former parent
        self._moved_until = 0.0  # this node may be counted through a parent that is no longer configured until then

    # ------------------------------------------------------------------ what changes the choice

    def start(self, now: float) -> None:
        for uplink in self._links.values():
            uplink.counts_until = now + self._hold_s

    def moved(self) -> None:
        """The node file named another parent before."""
        self._moved_until = self._state.now + self._hold_s

    def closed(self, uplink: Uplink) -> None:
        if uplink.reported:
            uplink.reported.clear()
            uplink.counts_until = self._state.now + self._hold_s
        self.review()

    def review(self) -> None:
        """A link or the path of a parent has changed: any service may get another parent, or need not wait any more."""
        self._state.reports.unsent.update(dict.fromkeys(self._state.reports.services()))

    def check(self) -> None:
        """The time of a former parent is over."""
        self._state.reports.unsent.update(self._waiting)
        self._waiting.clear()

    @property
    def _hold_s(self) -> float:
        return self._state.settings.lease_s + self._state.settings.beat_s

    # ------------------------------------------------------------------ what is sent

    def due(self, damped: bool) -> dict[str, list[Report]]:
        """The reports to send now, by parent."""
        reports = self._state.reports
        if self._links:
            reports.changed.clear()  # only a root decides by it
        out: dict[str, list[Report]] = {parent: [] for parent in self._links}
        sizes = dict.fromkeys(self._links, 0)
        services, reports.unsent = reports.unsent, {}
        for service in services:
            chosen, total = self._parent(service), reports.total(service)
            for uplink in self._links.values():
                if service in uplink.reported and (uplink is not chosen or total == RoleReport()):
                    del uplink.reported[service]
                    uplink.counts_until = self._state.now + self._hold_s
                    out[uplink.parent].append((service, b""))
            if chosen is None or total == RoleReport():
                continue
            old = chosen.reported.get(service)
            if old == total:
                continue
            if old is None and self._is_counted_elsewhere(chosen):
                self._waiting[service] = None
            elif (damped and old is not None and minor(old, total)) or sizes[chosen.parent] > MESSAGE_BYTES_MAX:
                reports.unsent[service] = None
            else:
                body = reports.body(service)
                sizes[chosen.parent] += len(body)
                out[chosen.parent].append((service, body))
                chosen.reported[service] = total
        return out

    def _parent(self, service: str) -> Uplink | None:
        owner = self._owner(service)
        able = [u for u in self._ordered if u.phase is Phase.UP and (not owner or owner in u.path.root_ids)]
        able = [u for u in able if u.no_say_since is None or u.is_root] or able
        if not able:
            return None
        if not owner:  # the root that will own the next rollout
            first = min((root for u in able for root in u.path.roots), default="")
            able = [u for u in able if first in u.path.roots] or able
        return next((u for u in able if service in u.reported and _share_a_root(u, able[0])), able[0])

    def _owner(self, service: str) -> str:
        """Id of the root that owns the rollout of the service. Empty: there is none in progress."""
        target = self._state.targets.get(service)
        active = target.active if target is not None else None
        return active.owner_id if active is not None else ""

    def _is_counted_elsewhere(self, chosen: Uplink) -> bool:
        """Whether a root above `chosen` may still count this node through another parent. Sets a timer for when that ends."""
        former = [u.counts_until for u in self._links.values() if u is not chosen and _share_a_root(u, chosen)]
        until = max([self._moved_until, *former])
        if self._state.now < until:
            self._state.set_timer(until, "reports")
        return self._state.now < until


def _share_a_root(one: Uplink, other: Uplink) -> bool:
    """Whether a root may be above both. What is above a parent that was never connected is not known."""
    if one is not other and one.node_id and one.node_id == other.node_id:
        return False  # two addresses of one node: it has dropped the link to the older one
    return one is other or not one.path.root_ids or not set(one.path.root_ids).isdisjoint(other.path.root_ids)
