"""Explains where a request that enters at this node would go, and why not elsewhere, by the engine's current table."""

from __future__ import annotations

from typing import Any

from sdlb.core.effects import RoutePut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.core.share import percentages
from sdlb.core.slot import Source
from sdlb.core.state import State
from sdlb.model.request_target import ENCODED_SLASH
from sdlb.model.route import Pattern

OTHERS_MAX = 20
REFUSED = "malformed-request"
NOT_READY = "no capacity: its instances are unhealthy or draining"
NO_CAPACITY = "has no capacity"
PRIORITIES = {
    "even": "priority even: by capacity",
    "higher": "priority higher: the highest with free capacity",
    "lower": "priority lower: the lowest with free capacity",
    "share": "priority share: by percentages",
}


def explain(state: State, host: str, path: str, public: bool) -> dict[str, Any]:
    """The answer of `/v1/explain`; docs/reference/api.md describes its keys.

    `host`, `path`: canonical (`model/request_target.py`). `public`: the entry has the hardened preset.
    """
    matched, others = _match(state, host, path)
    answer = _empty(state, host, path) | {"others": others}
    serving = next((text for text in matched if state.table.route(text) is not None), None)
    route = state.table.route(serving) if serving is not None else None
    if serving is None or route is None:
        if _serves_host(state, host):
            return {**answer, "status": 404, "reason_code": "no-route", "reason": "no claim matches"}
        return {**answer, "status": 421, "reason_code": "wrong-host", "reason": "no claim has this host"}
    why = _ambiguous(state, host, path, serving, public)
    if why:
        return {**answer, "status": 400, "reason_code": REFUSED, "reason": why}
    place = matched.index(serving)
    others += [
        _other(state, text, f"more specific than {serving}, but it has never served") for text in matched[:place]
    ]
    others += [_other(state, text, f"less specific than {serving}") for text in matched[place + 1 :]]
    versions = _versions(state, route)
    targets = _targets(state, route, {v["version"] for v in versions if v["chosen"]})
    answer |= {
        "route": serving,
        "service": route.service,
        "rule": rule(Pattern.parse(serving)),
        "versions": versions,
        "targets": targets,
        "version": next((v["version"] for v in versions if v["chosen"]), ""),
    }
    if any(target["chosen"] for target in targets):
        return answer
    waits = "; ".join(f"{v['version']} is {v['why']}" for v in versions if v["why"] and not v["chosen"])
    why = f": {waits}" if waits else ""
    if route.park_requests_max:
        expected = "the route served recently" if route.recent else "an instance is expected"
        reason = f"parked for up to {route.park_timeout_s:g} s: no instance is ready, and {expected}{why}"
        return {**answer, "reason_code": "parked", "reason": reason}
    return {**answer, "status": 503, "reason_code": "nothing-ready", "reason": f"no instance is ready{why}"}


def refused(state: State, host: str, path: str, why: str) -> dict[str, Any]:
    """The answer for a request that the engine refuses with 400, whatever is claimed."""
    return _empty(state, host, path) | {
        "status": 400,
        "reason_code": REFUSED,
        "reason": f"the request is refused: it {why}",
    }


def _empty(state: State, host: str, path: str) -> dict[str, Any]:
    return {
        "node": state.settings.name,
        "host": host,
        "path": path,
        "route": "",
        "service": "",
        "version": "",
        "rule": "",
        "status": 0,
        "reason_code": "",
        "reason": "",
        "versions": [],
        "targets": [],
        "others": [],
    }


def _ambiguous(state: State, host: str, path: str, serving: str, public: bool) -> str:
    """Why the path is refused although a route matches: the instance may read it as a path of another route. "": it is not."""
    route = state.table.route(serving)
    service = route.service if route is not None else ""
    encoded = public and ENCODED_SLASH in path
    if encoded and state.policy(service).traffic.path.encoded_slash != "keep":
        return f"the path has an encoded slash, and the policy of {service} does not allow it (path.encoded_slash)"
    if path.startswith("//") and not Pattern.parse(serving).path.startswith("//"):
        matched, _ = _match(state, host, "/" + path.lstrip("/"))
        if next((text for text in matched if state.table.route(text) is not None), None) != serving:
            return "the path begins with several slashes, and with one of them it would match another route"
    return ""


def rule(pattern: Pattern) -> str:
    """How a pattern matches, in words: "exact host, prefix /catalog"."""
    host = "any host" if pattern.host == "*" else "wildcard host" if pattern.host.startswith("*") else "exact host"
    path = f"prefix {pattern.path[:-1]}" if pattern.path.endswith("*") else "exact path"
    return f"{host}, {path}"


def _match(state: State, host: str, path: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The patterns that match, the most specific first, and some of those that match only the host."""
    matched: list[tuple[Pattern, str]] = []
    others: list[dict[str, Any]] = []
    for text in sorted({*state.by_route, *state.table.patterns}):
        pattern = Pattern.parse(text)
        if pattern.matches(host, path):
            matched.append((pattern, text))
        elif len(others) < OTHERS_MAX and pattern.matches_host(host):
            others.append(_other(state, text, "the path does not match"))
    matched.sort(key=lambda m: m[0].specificity, reverse=True)
    return [text for _, text in matched], others


def _serves_host(state: State, host: str) -> bool:
    """Whether the engine has a route for this host. If not, it answers 421."""
    return any(Pattern.parse(text).matches_host(host) for text in state.table.patterns)


def _other(state: State, text: str, why: str) -> dict[str, Any]:
    route = state.table.route(text)
    names = sorted({key.service for key in state.by_route.get(text, ())})
    return {"route": text, "service": route.service if route is not None else ", ".join(names), "why": why}


def _versions(state: State, route: RoutePut) -> list[dict[str, Any]]:
    """All versions that claim the route: first those that may get the request, then the others with the reason why not."""
    keys = {key.version: key for key in sorted(state.by_route.get(route.pattern, ())) if key.service == route.service}
    ready = {pick.version: _ready(state, keys[pick.version]) for pick in route.picks if pick.version in keys}
    shares = percentages(route.picks, ready)
    why = PRIORITIES[state.policy(route.service).priority]
    versions: list[dict[str, Any]] = []
    for pick in route.picks:
        chosen = pick.version in shares
        text = why if chosen else NOT_READY if not ready.get(pick.version) else "only when the others are full"
        versions.append({"version": pick.version, "chosen": chosen, "tier": pick.tier, "why": text})
        versions[-1]["share"] = shares.get(pick.version, 0.0)
    for version, key in keys.items():
        if version not in ready:
            permit = state.slots[key].permit
            text = f"{permit.state}: {permit.reason}" if str(permit.reason) else permit.state
            versions.append({"version": version, "chosen": False, "tier": 0, "share": 0.0, "why": text})
    return sorted(versions, key=lambda v: (not v["chosen"], v["tier"]))


def _ready(state: State, key: ClaimKey) -> int:
    """Capacity that the engine has confirmed."""
    sources = state.slots[key].sources.values()
    return sum(s.claim.capacity for s in sources if state.table.applied(EndpointKey(key, s.target)))


def _targets(state: State, route: RoutePut, chosen: set[str]) -> list[dict[str, Any]]:
    targets: list[dict[str, Any]] = []
    for key in sorted(state.by_route.get(route.pattern, ())):
        if key.service != route.service or not state.slots[key].active:
            continue
        sources = sorted(state.slots[key].sources.values(), key=lambda s: s.target)
        serving = any(not s.suspect and _why_not(state, key, s) == "" for s in sources)
        for source in sources:
            why = _why_not(state, key, source)
            if not why and source.suspect and serving:
                why = "its node is silent: used only if no other endpoint can serve"
            if not why and key.version not in chosen:
                why = "its version is not chosen"
            targets.append(
                {
                    "version": key.version,
                    "name": source.target,
                    "kind": "node" if source.child else "instance",
                    "address": state.table.address(source.target),
                    "capacity": source.claim.capacity,
                    "hosts": list(source.claim.hosts),
                    "chosen": not why,
                    "why": why,
                }
            )
    return targets


def _why_not(state: State, key: ClaimKey, source: Source) -> str:
    if source.claim.leaving:
        return "is draining"
    if not state.table.applied(EndpointKey(key, source.target)):
        return "the engine has not confirmed it" if source.claim.capacity else NO_CAPACITY
    return "" if source.claim.capacity or source.suspect else NO_CAPACITY
