"""`/metrics`: the node's metrics in the Prometheus text format (version 0.0.4).

A root with 10,000 services has a quarter of a million lines. They are made in slices (`node.reads`), and other work
goes on in between; so a page is not a snapshot, but each line is correct when it is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from msgspec import Struct

from sdlb.core.view import View
from sdlb.model.canary import HEAD_BUCKETS_S
from sdlb.node.journal import Journal
from sdlb.node.lists import Lists
from sdlb.node.loop import NodeLoop
from sdlb.node.metric_texts import FAMILIES, TEXTS, engine_kind
from sdlb.node.openapi import version
from sdlb.node.reads import Pace
from sdlb.node.sites import SiteWatch
from sdlb.seams.engine import (
    LATENCY_BUCKETS_MS,
    EngineStats,
    GroupTotals,
    InstanceTotals,
    UpstreamTotals,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LINES_AT_ONCE = 500
ALERTS = (
    *(("error", code) for code in ("internal-error", "state-not-written", "decisions-wait", "guarded", "service-lost")),
    *(("warning", code) for code in ("service-gone", "instance-never-healthy", "instance-unhealthy", "claim-refused")),
    *(("warning", code) for code in ("claim-waiting", "engine-lost")),
)
"""Events that deserve an alert: their counters exist from the start."""
HEAD_BOUNDS = (*(f"{bound:.6g}" for bound in HEAD_BUCKETS_S), "+Inf")
BOUNDS = (*(f"{ms / 1000:g}" for ms in LATENCY_BUCKETS_MS), "+Inf")

Totals = TypeVar("Totals")
Sample = tuple[str, float]
"""The text after the family's name (suffix and labels), and the value."""


class Family(Struct, frozen=True):
    name: str
    kind: str
    text: str
    samples: Iterable[Sample]


async def render(loop: NodeLoop, stats: EngineStats, journal: Journal, sites: SiteWatch) -> AsyncIterator[bytes]:
    """The page in parts. A family without samples is left out."""
    lines: list[str] = []
    pace = Pace(loop.quiet)
    tree = _tree(Lists(loop.balancer.view))
    groups, upstreams = await _groups(loop.balancer.view, stats, pace), await _upstreams(stats, pace)
    engine = _engine(stats, groups, upstreams)
    for family in chain(
        _node(loop, journal), tree, _sites(sites), engine
    ):  # lazily: each family is made when it is written
        await pace.pause()
        if family is None:
            continue
        head = f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
        for labels, value in family.samples:
            lines.append(f"{head}{family.name}{labels} {_number(value)}\n")
            head = ""
            if len(lines) >= LINES_AT_ONCE:
                yield "".join(lines).encode()
                lines.clear()
            await pace.pause()
    yield "".join(lines).encode()


def _number(value: float) -> str:
    return str(int(value)) if value % 1 == 0 else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _inner(**labels: str) -> str:
    return ",".join([f'{name}="{_escape(value)}"' for name, value in labels.items()])


def _labels(**labels: str) -> str:
    return f"{{{_inner(**labels)}}}"


def _family(name: str, samples: Iterable[Sample]) -> Family:
    known = FAMILIES[name]
    return Family(name, known.kind, known.text, samples)


def _one(name: str, value: float) -> Family:
    return _family(name, [("", value)])


# ------------------------------------------------------------------ control


def _node(loop: NodeLoop, journal: Journal) -> Iterator[Family]:
    balancer = loop.balancer
    info = _labels(node=balancer.settings.name, version=version(), root=str(balancer.settings.is_root).lower())
    yield _family("sdlb_node_info", [(info, 1)])
    yield _one("sdlb_node_ready", loop.ready()[0])
    yield _one("sdlb_node_guarded", balancer.view.guarded())
    yield _one("sdlb_node_cut_off", balancer.view.cut_off())
    yield _one("sdlb_state_written", loop.writes)
    yield _one("sdlb_decisions_wait", loop.held is not None)
    yield _one("sdlb_effects_held", loop.held or 0)
    yield _one("sdlb_internal_errors_total", loop.errors)
    all_counts = {**dict.fromkeys(ALERTS, 0), **journal.counts}
    counts = [(_labels(level=level, code=code), count) for (level, code), count in sorted(all_counts.items())]
    yield _family("sdlb_events_total", counts)
    yield _one("sdlb_log_lines_dropped_total", journal.dropped)
    sizes = [(_labels(what=what), count) for what, count in balancer.view.sizes().items()]
    yield _family("sdlb_entries", sizes)


def _tree(view: Lists) -> Iterator[Family | None]:
    """Yields None where the caller may pause."""
    for kind, links in (("parent", view.parent_links()), ("child", view.child_links())):
        rows = [(_labels(**{kind: link.name, "state": link.state}), 1.0) for link in links]
        yield _family(f"sdlb_{kind}_link", rows)
        silent = [(_labels(**{kind: link.name}), link.silent_s) for link in links]
        yield _family(f"sdlb_{kind}_silent_seconds", silent)
    states: Counter[str] = Counter()
    for instance_id in view.instance_ids():
        if (found := view.instance(instance_id)) is not None:
            states[found["state"]] += 1
        yield None
    yield _family("sdlb_instances", _by_state(states))
    versions = (
        (_labels(service=name, version=each["version"], state=each["state"]), float(each["instances"]))
        for name in view.service_names()
        for each in (view.service(name) or {"versions": ()})["versions"]
    )
    yield _family("sdlb_version_instances", versions)
    claims = _by_state(Counter(view.claim_states()))
    yield _family("sdlb_claims", claims)


def _sites(sites: SiteWatch) -> Iterator[Family]:
    views = sites.views()
    ends = [(_labels(site=view["site"]), view["not_after_s"]) for view in views if view["not_after_s"]]
    yield _family("sdlb_certificate_not_after_seconds", ends)
    begins = [(_labels(site=view["site"]), view["not_before_s"]) for view in views if view["not_before_s"]]
    yield _family("sdlb_certificate_not_before_seconds", begins)
    errors = [(_labels(site=view["site"]), bool(view["reason_code"])) for view in views]
    yield _family("sdlb_site_error", errors)
    yield _family("sdlb_acme_orders_total", [(_labels(result=result), count) for result, count in sites.orders.items()])
    ordered = [(_labels(site=view["site"]), view["acme"]) for view in views if view["acme"] is not None]
    yield _family("sdlb_acme_error", [(labels, bool(acme["error"])) for labels, acme in ordered])
    yield _family("sdlb_acme_next_try_seconds", [(labels, acme["next_try_s"]) for labels, acme in ordered])


def _by_state(counts: Counter[str]) -> list[Sample]:
    return [(_labels(state=state), count) for state, count in sorted(counts.items())]


# ------------------------------------------------------------------ engine

GRPC_CODES = 17
NONE = GroupTotals()
_OF_GROUPS: tuple[tuple[str, Callable[[GroupTotals], int]], ...] = (
    ("sdlb_requests_total", lambda group: group.requests),
    ("sdlb_failed_total", lambda group: group.failed),
    ("sdlb_retries_total", lambda group: group.retries),
    ("sdlb_parked_total", lambda group: group.parked),
)
_OF_TARGETS: tuple[tuple[str, Callable[[UpstreamTotals], int]], ...] = (
    ("sdlb_target_requests_total", lambda target: target.requests),
    ("sdlb_target_failures_total", lambda target: target.failures),
    ("sdlb_target_connects_total", lambda target: target.connects),
    ("sdlb_target_connect_failures_total", lambda target: target.connect_failures),
    ("sdlb_target_in_flight", lambda target: target.in_flight),
    ("sdlb_target_idle_connections", lambda target: target.idle_connections),
)


async def _groups(view: View, stats: EngineStats, pace: Pace) -> list[tuple[str, GroupTotals]]:
    """The labels and totals of every claimed version, and of each service without one. All exist from the start, so that
    a first failure is an increase."""
    labelled: list[tuple[str, GroupTotals]] = []
    claimed: set[tuple[str, str]] = set()
    for name in view.service_names():
        for each in ("", *view.version_names(name)):
            claimed.add((name, each))
            labelled.append((_inner(service=name, version=each), stats.groups.get((name, each), NONE)))
        await pace.pause()
    for name, each in sorted(stats.groups.keys() - claimed):
        labelled.append((_inner(service=name, version=each), stats.groups[name, each]))
        await pace.pause()
    return labelled


async def _upstreams(stats: EngineStats, pace: Pace) -> list[tuple[str, UpstreamTotals]]:
    labelled: list[tuple[str, UpstreamTotals]] = []
    for name, totals in sorted(stats.upstreams.items(), key=lambda item: item[0]):
        labelled.append((_labels(target=name), totals))
        await pace.pause()
    return labelled


def _of_each(name: str, labelled: Iterable[tuple[str, Totals]], value: Callable[[Totals], float]) -> Family:
    return _family(name, ((labels, value(totals)) for labels, totals in labelled))


def _braced(inner: Iterable[tuple[str, Totals]]) -> Iterator[tuple[str, Totals]]:
    return ((f"{{{labels}}}", totals) for labels, totals in inner)


def _engine(
    stats: EngineStats, groups: Sequence[tuple[str, GroupTotals]], upstreams: Sequence[tuple[str, UpstreamTotals]]
) -> Iterator[Family]:
    yield _one("sdlb_engine_attached", stats.attached)
    ends = [("", stats.identity_not_after_s)] if stats.identity_not_after_s else []
    yield _family("sdlb_identity_not_after_seconds", ends)
    for name, value in _OF_GROUPS:
        yield _of_each(name, _braced(groups), value)
    status = ((inner, group.status) for inner, group in groups)
    yield _by_class("sdlb_responses_total", status)
    calls = (
        (f'{{{inner},code="{index if index < GRPC_CODES else "none"}"}}', count)
        for inner, group in groups
        for index, count in enumerate(group.grpc_status)
    )
    yield _family("sdlb_grpc_responses_total", calls)
    buckets = (sample for inner, group in groups if group.latency for sample in _histogram(inner, group))
    yield _family("sdlb_request_seconds", buckets)
    yield from _instances(groups)
    for name, value_of in _OF_TARGETS:
        yield _of_each(name, upstreams, value_of)
    ejected = [(_labels(target=name), 1) for name in sorted(stats.ejected)]
    yield _family("sdlb_target_ejected", ejected)
    for name, value in sorted({**dict.fromkeys(TEXTS, 0), **stats.counters}.items()):  # the engine sends what changes
        text = TEXTS.get(name, f"The engine's {name.replace('_', ' ')}.")
        yield Family(f"sdlb_engine_{name}", engine_kind(name), text, [("", value)])


_OF_INSTANCES: tuple[tuple[str, Callable[[InstanceTotals], int]], ...] = (
    ("sdlb_instance_requests_total", lambda each: each.requests),
    ("sdlb_instance_broken_total", lambda each: each.broken),
    ("sdlb_instance_unreached_total", lambda each: each.unreached),
)


def _instances(groups: Sequence[tuple[str, GroupTotals]]) -> Iterator[Family]:
    """Counted by the engine that sends to the instance: the version's own results, not those of nodes above."""
    totals = [(inner, group.at_instances) for inner, group in groups if group.at_instances is not None]
    for name, value in _OF_INSTANCES:
        yield _of_each(name, _braced(totals), value)
    answers = ((inner, each.answers) for inner, each in totals)
    yield _by_class("sdlb_instance_responses_total", answers)
    heads = (sample for inner, each in totals for sample in _buckets(inner, HEAD_BOUNDS, each.heads, each.head_us_sum))
    yield _family("sdlb_instance_head_seconds", heads)


def _by_class(name: str, counts: Iterable[tuple[str, Iterable[int]]]) -> Family:
    samples = (
        (f'{{{inner},class="{index}xx"}}', count) for inner, each in counts for index, count in enumerate(each, 1)
    )
    return _family(name, samples)


def _histogram(inner: str, group: GroupTotals) -> Iterator[Sample]:
    return _buckets(inner, BOUNDS, group.latency, group.latency_us_sum)


def _buckets(inner: str, bounds: Sequence[str], counts: Iterable[int], us_sum: int) -> Iterator[Sample]:
    so_far = 0
    for bound, count in zip(bounds, counts, strict=False):
        so_far += count
        yield f'_bucket{{{inner},le="{bound}"}}', so_far
    yield f"_sum{{{inner}}}", us_sum / 1e6
    yield f"_count{{{inner}}}", so_far
