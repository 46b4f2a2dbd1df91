"""Which parent gets the report of a service (`reports.py`), so that no root counts a node twice.

A node reports a service to the first of its parents, in the order of its node file, that is connected and leads to the root that owns
the rollout of the service. A parent that is itself cut off from all roots is the last choice. A parent drops the reports of a child
when their link closes. Before a node reports to another parent, the former one must have dropped its report:

* it has confirmed an empty report, or
* a new link to it is up, which starts without reports, or
* a lease and a heartbeat have passed since the link broke: then it has noticed, and its own report has arrived above.

A node that has just started does not know what it has reported before, so it treats all parents in this way. Two parents that lead
to different roots are independent: no root counts the node through both. So for a moment a node may count nowhere, but never
twice; a root then takes its capacity for missing, which is safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sdlb.core.messages import TARGET
from sdlb.core.reports import minor
from sdlb.core.uplink import Phase
from sdlb.model.rollout import RoleReport, read_target

if TYPE_CHECKING:
    from sdlb.core.messages import Doc
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
        self._waiting: dict[str, None] = {}  # services that a former parent may still count
        self._owners: dict[
            str, tuple[Doc, str]
        ] = {}  # service -> its target, and the id of the root that owns the rollout
        self._moved_until = 0.0  # a parent that is no longer configured may count this node until then

    @property
    def _hold_s(self) -> float:
        return self._state.settings.lease_s + self._state.settings.beat_s

    # ------------------------------------------------------------------ what changes the choice

    def start(self, now: float) -> None:
        for uplink in self._links.values():
            uplink.counts_until = now + self._hold_s

    def moved(self) -> None:
        """The node file named another parent before."""
        self._moved_until = self._state.now + self._hold_s

    def closed(self, uplink: Uplink, now: float) -> None:
        if uplink.reported or uplink.retracted:
            uplink.counts_until = now + self._hold_s
            uplink.reported.clear()
            uplink.retracted.clear()
        self.review()

    def review(self) -> None:
        """A link or the path of a parent has changed: any service may get another parent."""
        unsent = self._state.reports.unsent
        unsent.update(dict.fromkeys(self._state.reports.services()))

    def check(self) -> None:
        """A former parent may have dropped its report now."""
        self._state.reports.unsent.update(self._waiting)
        self._waiting.clear()

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
            chosen = self._parent(service)
            for uplink in self._links.values():
                if uplink is not chosen and service in uplink.reported:
                    self._retract(uplink, service)
                    out[uplink.parent].append((service, b""))
            total = reports.total(service)
            old = None if chosen is None else chosen.reported.get(service)
            if chosen is None or (old or RoleReport()) == total:
                continue
            if old is None and self._counted_elsewhere(service, chosen):
                self._waiting[service] = None
            elif (damped and old is not None and minor(old, total)) or sizes[chosen.parent] > MESSAGE_BYTES_MAX:
                reports.unsent[service] = None
            else:
                body = reports.body(service)
                sizes[chosen.parent] += len(body)
                out[chosen.parent].append((service, body))
                if body:
                    chosen.reported[service] = total
                else:
                    self._retract(chosen, service)
        return out

    def _retract(self, uplink: Uplink, service: str) -> None:
        del uplink.reported[service]
        uplink.retracted[service] = 0
        if (
            uplink.no_say_since is not None
        ):  # the nodes above it may not get its report, and count on until its lease expires
            uplink.counts_until = self._state.now + self._hold_s

    def _parent(self, service: str) -> Uplink | None:
        owner = self._owner(service)
        able = [u for u in self._ordered if u.phase is Phase.UP and (not owner or owner in u.path.root_ids)]
        return next((u for u in able if u.no_say_since is None or u.is_root), able[0] if able else None)

    def _owner(self, service: str) -> str:
        """Id of the root that owns the rollout of the service. Empty: there is none in progress."""
        doc = self._state.policies.docs.get(f"{TARGET}/{service}")
        if doc is None:
            self._owners.pop(service, None)
            return ""
        known = self._owners.get(service)
        if known is None or known[0] is not doc:
            target = read_target(doc.body)
            active = None if target is None else target.active
            known = self._owners[service] = doc, "" if active is None else active.owner_id
        return known[1]

    def _counted_elsewhere(self, service: str, chosen: Uplink) -> bool:
        """Whether a root may still count the report through another parent. Sets a timer for when that ends."""
        now, until = self._state.now, self._moved_until
        counted = False
        for uplink in self._links.values():
            if uplink is chosen or not _share_a_root(uplink, chosen):
                continue
            counted = counted or service in uplink.retracted
            until = max(until, uplink.counts_until)
        if now < until:
            self._state.set_timer(until, "reports")
        return counted or now < until


def _share_a_root(one: Uplink, other: Uplink) -> bool:
    """Whether a root may be above both. What is above a parent that was never connected is not known."""
    if one.node_id and one.node_id == other.node_id:
        return False  # two addresses of one node, which has dropped the older link
    return not one.path.root_ids or not set(one.path.root_ids).isdisjoint(other.path.root_ids)
