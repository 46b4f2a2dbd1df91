"""`/metrics`: what this node knows, in the Prometheus text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sdlb.core.balancer import Balancer
from sdlb.node.journal import Journal
from sdlb.node.loop import NodeLoop
from sdlb.node.openapi import version
from sdlb.seams.engine import LATENCY_BUCKETS_MS, Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
Sample = tuple[Labels, float]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


class Page:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        """One family; without samples it is left out."""
        lines = [
            f"{name}{_labels(labels)} {value:g}" if value % 1 else f"{name}{_labels(labels)} {int(value)}"
            for labels, value in samples
        ]
        if lines:
            self.lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]

    def histogram(self, name: str, text: str, rows: Iterable[tuple[Labels, list[int], float]]) -> None:
        """`rows`: labels, counts by bucket (the last is +Inf), sum in seconds."""
        lines: list[str] = []
        for labels, counts, total_s in rows:
            so_far = 0
            for bound, count in zip([f"{ms / 1000:g}" for ms in LATENCY_BUCKETS_MS] + ["+Inf"], counts, strict=False):
                so_far += count
                lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {so_far}")
            lines += [f"{name}_sum{_labels(labels)} {total_s:.6f}", f"{name}_count{_labels(labels)} {so_far}"]
        if lines:
            self.lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines]

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"


def render(loop: NodeLoop, figures: Figures, journal: Journal) -> str:
    page = Page()
    _node(page, loop, journal)
    _tree(page, loop.balancer)
    _engine(page, figures)
    return str(page)


def _node(page: Page, loop: NodeLoop, journal: Journal) -> None:
    balancer = loop.balancer
    tree = balancer.tree()
    info = {"node": balancer.settings.name, "version": version(), "root": str(balancer.settings.is_root).lower()}
    page.add("sdlb_node_info", "gauge", "The node; always 1.", [(info, 1)])
    page.add(
        "sdlb_node_ready", "gauge", "1 when the node serves and a parent is in touch.", [({}, balancer.ready()[0])]
    )
    page.add("sdlb_node_guarded", "gauge", "1 while too many leases ran out at once.", [({}, bool(tree["guarded"]))])
    page.add("sdlb_node_cut_off", "gauge", "1 while no parent is in touch.", [({}, bool(tree["cut_off"]))])
    page.add("sdlb_state_written", "gauge", "0 while the state cannot be written.", [({}, loop.writes)])
    page.add("sdlb_internal_errors_total", "counter", "Faults of control itself.", [({}, loop.errors)])
    counts = [({"level": level, "code": code}, count) for (level, code), count in sorted(journal.counts.items())]
    page.add("sdlb_events_total", "counter", "Events by level and code.", counts)
    sizes = [({"what": what}, count) for what, count in balancer.sizes().items()]
    page.add("sdlb_entries", "gauge", "Entries that control holds.", sizes)


def _tree(page: Page, balancer: Balancer) -> None:
    tree: dict[str, Any] = balancer.tree()
    for kind, key in (("parent", "parents"), ("child", "children")):
        rows = [({kind: str(each["name"] or each["address"]), "state": str(each["state"])}, 1.0) for each in tree[key]]
        page.add(f"sdlb_{kind}_link", "gauge", f"Links by {kind} and state.", rows)
        silent = [({kind: str(each["name"] or each["address"])}, float(each["silent_s"])) for each in tree[key]]
        page.add(f"sdlb_{kind}_silent_seconds", "gauge", f"Since the {kind} was last heard.", silent)
    states: dict[str, int] = {}
    for instance in tree["instances"]:
        states[instance["state"]] = states.get(instance["state"], 0) + 1
    page.add(
        "sdlb_instances",
        "gauge",
        "Instances of this host by state.",
        [({"state": s}, n) for s, n in sorted(states.items())],
    )
    versions: list[Sample] = []
    claims: dict[str, int] = {}
    for service in balancer.services():
        for each in service["versions"]:
            labels = {"service": service["service"], "version": each["version"], "state": each["state"]}
            versions.append((labels, each["instances"]))
            for claim in each["claims"]:
                claims[claim["state"]] = claims.get(claim["state"], 0) + 1
    page.add("sdlb_version_instances", "gauge", "Instances below this node by version and its state.", versions)
    page.add(
        "sdlb_claims", "gauge", "Claims at this node by state.", [({"state": s}, n) for s, n in sorted(claims.items())]
    )


def _engine(page: Page, figures: Figures) -> None:
    page.add("sdlb_engine_attached", "gauge", "1 while control is attached to its engine.", [({}, figures.attached)])
    groups = [({"service": s, "version": v}, f) for (s, v), f in sorted(figures.groups.items())]
    status = [
        ({**labels, "class": f"{index + 1}xx"}, float(count))
        for labels, each in groups
        for index, count in enumerate(each.status)
    ]
    page.add("sdlb_requests_total", "counter", "Requests by service and version.", [(x, f.requests) for x, f in groups])
    page.add("sdlb_responses_total", "counter", "Responses by class of status.", status)
    page.add(
        "sdlb_failed_total",
        "counter",
        "Requests that the engine answered 502, 503 or 504.",
        [(x, f.failed) for x, f in groups],
    )
    page.add("sdlb_retries_total", "counter", "Tries beyond the first.", [(x, f.retries) for x, f in groups])
    page.add("sdlb_parked_total", "counter", "Requests that waited for a version.", [(x, f.parked) for x, f in groups])
    rows = [(labels, list(f.latency), f.latency_us_sum / 1e6) for labels, f in groups if f.latency]
    page.histogram("sdlb_request_seconds", "From the request's head to the end of its answer.", rows)
    targets = [({"target": name}, f) for name, f in sorted(figures.targets.items())]
    page.add("sdlb_target_requests_total", "counter", "Requests by target.", [(x, f.requests) for x, f in targets])
    page.add(
        "sdlb_target_failures_total",
        "counter",
        "Requests that failed at the target.",
        [(x, f.failures) for x, f in targets],
    )
    page.add(
        "sdlb_target_connects_total",
        "counter",
        "Connections opened to the target.",
        [(x, f.connects) for x, f in targets],
    )
    page.add(
        "sdlb_target_connect_failures_total",
        "counter",
        "Connections that failed.",
        [(x, f.connect_failures) for x, f in targets],
    )
    page.add("sdlb_target_in_flight", "gauge", "Requests in flight by target.", [(x, f.in_flight) for x, f in targets])
    page.add(
        "sdlb_target_idle_connections", "gauge", "Pooled connections.", [(x, f.idle_connections) for x, f in targets]
    )
    page.add(
        "sdlb_target_ejected",
        "gauge",
        "1 while passive health keeps the target out.",
        [({"target": t}, 1) for t in sorted(figures.ejected)],
    )
    for name, value in sorted(figures.counters.items()):
        kind = "counter" if name.endswith("_total") else "gauge"
        page.add(f"sdlb_engine_{name}", kind, f"The engine's {name.replace('_', ' ')}.", [({}, value)])
