"""What users see of the certificates that the node orders: in `/v1/sites`, `sdlb status` and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

DAY_S = 86_400


class SiteFacts(Struct, frozen=True):
    """`why`: of the last failed order. `next_try_s`: Unix time of the next order. `orderer`: the entry that orders for it; "":
    this node. `not_after_s` 0: there is no certificate yet. `revoked`: it still serves with a certificate that was revoked."""

    hosts: tuple[str, ...]
    why: str
    next_try_s: float
    ordering: bool
    orderer: str
    not_after_s: float
    revoked: bool = False


def with_acme(views: list[dict[str, Any]], facts: Mapping[str, SiteFacts], now_s: float) -> list[dict[str, Any]]:
    """`views` with the key `acme`, and one more view for each site that has no certificate yet."""
    known = {str(view["site"]) for view in views}
    result = [{**view, **_added(view, facts.get(str(view["site"])), now_s)} for view in views]
    return result + [_without_certificate(key, each, now_s) for key, each in facts.items() if key not in known]


def _added(view: Mapping[str, Any], facts: SiteFacts | None, now_s: float) -> dict[str, Any]:
    if facts is None:
        return {}
    found: dict[str, Any] = {"acme": _acme(facts, now_s)}
    if facts.why and not facts.ordering:
        left = _span(facts.not_after_s - now_s)
        text = f"its certificate has {left} left, and no new one was issued: {facts.why}; {_next(facts, now_s)}"
        found["warnings"] = [*view["warnings"], text]
    if facts.revoked:
        then = "another one is being ordered" if facts.ordering else _next(facts, now_s)
        text = f"its certificate is revoked: clients that check this refuse it; {then}"
        found["warnings"] = [*found.get("warnings", view["warnings"]), text]
    return found


def _without_certificate(key: str, facts: SiteFacts, now_s: float) -> dict[str, Any]:
    failed = bool(facts.why) and not facts.ordering
    reason = f"it has no certificate yet: {facts.why}; {_next(facts, now_s)}" if failed else ""
    return {
        "site": key,
        "hosts": list(facts.hosts),
        "state": "refused" if failed else "waiting",
        "reason_code": "certificate-not-issued" if failed else "",
        "reason": reason,
        "not_after_s": 0,
        "warnings": [],
        "acme": _acme(facts, now_s),
    }


def _acme(facts: SiteFacts, now_s: float) -> dict[str, Any]:
    return {
        "ordered_by": facts.orderer,
        "ordering": facts.ordering,
        "next_try_s": int(max(facts.next_try_s, now_s)),
        "error": facts.why,
        "revoked": facts.revoked,
    }


def _next(facts: SiteFacts, now_s: float) -> str:
    if facts.orderer and not facts.revoked:
        return f"{facts.orderer} orders for it"
    return f"the next attempt is in {_span(max(0.0, facts.next_try_s - now_s))}"


def _span(seconds: float) -> str:
    """ "5 s", "12 min", "5 h", "12 days"."""
    for size, unit in ((DAY_S, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(0.0, seconds))} s"
