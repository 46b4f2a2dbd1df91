"""`sdlb sim --explore`: every order of events in small trees of the real control objects; see `sdlb.sim.explore`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from sdlb.cli import out

if TYPE_CHECKING:
    from sdlb.sim.explore.run import Report


def run(args: argparse.Namespace) -> int:
    from sdlb.sim.explore.run import explore_all
    from sdlb.sim.explore.scenarios import named

    scenarios = named(args.explore or "all")
    if args.list:
        return _list([(scenario.name, scenario.text) for scenario in scenarios], args.json)

    def show(report: Report) -> None:
        if not args.json:
            _show(report)

    names = [scenario.name for scenario in scenarios]
    reports = explore_all(names, args.states, min(args.jobs, len(names)), show)
    failed = [report for report in reports if not report.ok]
    if args.json:
        print(json.dumps({"ok": not failed, "scenarios": [report.to_data() for report in reports]}))
    else:
        _sum_up(reports, len(failed))
    return 1 if failed else 0


def _list(scenarios: list[tuple[str, str]], as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"scenario": name, "text": text} for name, text in scenarios]))
    else:
        width = max(len(name) for name, _ in scenarios)
        for name, text in scenarios:
            out.line(f"{name:<{width}}  {text}", hang=" " * (width + 2))
    return 0


def _show(report: Report) -> None:
    word = ("held", "green") if report.ok else ("BROKEN", "red")
    seen = "complete" if report.whole else "partial"
    out.line(
        f"{report.scenario:<22} ",
        word,
        f"  {report.states:,} states ({seen}), {report.transitions:,} transitions, {report.rests:,} idle, depth "
        f"{report.depth}; {report.node_steps:,} steps of nodes, {report.cpu_s:.1f} s of CPU",
    )
    out.line("    " + ", ".join(f"{number:,} {kind}" for kind, number in report.kinds.items()))
    for story in report.stories:
        for text in story.lines:
            out.line("    " + text)
    sys.stdout.flush()


def _sum_up(reports: list[Report], failed: int) -> None:
    states = sum(report.states for report in reports)
    seconds = sum(report.cpu_s for report in reports)
    whole = sum(report.whole for report in reports)
    verdict = f"{failed} broke a promise" if failed else "all held"
    out.line(
        f"{len(reports)} scenarios ({whole} complete), {states:,} distinct states, {states / max(seconds, 1e-9):,.0f} "
        f"states per CPU second: {verdict}"
    )
