"""The latency that a proxy adds at half load and a constant rate, compared with the same requests sent to the backend.

Half load is half of the maximum rate of the slowest peer in a row on its core, which wrk measures first. All peers in
that row get the same rate. A request's time starts when it is due (`pace`, engine/crates/bench), so waiting counts.
"""

from __future__ import annotations

import subprocess

from bench import load, processes
from bench.certificates import HOST
from bench.edge import BEST, DEBIAN, HTTP1
from bench.report import CannotRun, Report, Row
from bench.stand import Stand

ROUTES = 10_000
CONNECTIONS = 64
DIRECT = "the backend itself"
ROUND_TO = 500


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    load.need("openssl", "nginx", "haproxy")
    rounds, seconds = (2, 2) if quick else (9, 4)
    rows: list[Row] = []
    measurements: dict[str, object] = {}
    with Stand(ROUTES, BEST) as stand:
        carried = {name: _carried(stand, name, 1 if quick else 3) for name in stand.addresses}
        for peers in [DEBIAN, *([BEST] if "envoy" in carried else [])]:
            rate = int(min(carried[name] for name in peers) / 2) // ROUND_TO * ROUND_TO

            def one(name: str, _: bool, rate: int = rate) -> tuple[float, float]:
                return _pace(stand, name, rate, seconds)

            took = processes.interleaved([DIRECT, "sdlb", *peers], rounds, one)
            rows += _rows(rate, took)
            measurements[f"p50_p99_us_at_{rate}"] = took
        versions, absent = stand.versions, stand.absent
    how = [
        f"HTTP/1.1, {CONNECTIONS} connections, 512-byte answers, {ROUTES:,} routes, statistics and access log on; medians of {rounds}",
        f"runs of {seconds} s in turn, less what the backend itself took. wrk got through each in requests a second: "
        + ", ".join(f"{name} {rate:,.0f}" for name, rate in carried.items())
        + ".",
        "; ".join(versions.values()) + ".",
        *(f"{name} was not measured: {why}." for name, why in absent.items()),
    ]
    return Report("latency", "latency added at half load", how, rows, {**measurements, "carried": carried})


def _carried(stand: Stand, name: str, seconds: int) -> float:
    return stand.cost_us(name, HTTP1.words(stand, stand.addresses[name], seconds))[1]


def _pace(stand: Stand, name: str, rate: int, seconds: int) -> tuple[float, float]:
    """Microseconds, p50 and p99."""
    address = stand.origin if name == DIRECT else stand.addresses[name].http
    words = [processes.installed("pace"), address, HOST, *map(str, (ROUTES, CONNECTIONS, rate, seconds))]
    done = subprocess.run(
        ["taskset", "-c", str(stand.there), *words], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise CannotRun(f"{rate} requests a second to {name}: {done.stderr.strip()}")
    _, half, most = done.stdout.split(", ")
    return float(half), float(most)


def _rows(rate: int, took: dict[str, list[tuple[float, float]]]) -> list[Row]:
    rows: list[Row] = []
    for which, title in enumerate(("p50", "p99")):
        of = {name: processes.median([values[which] for values in all_of]) for name, all_of in took.items()}
        direct = of.pop(DIRECT)
        added = {name: value - direct for name, value in of.items()}
        ours = added.pop("sdlb")
        others = ", ".join(f"{name} {value:.0f}" for name, value in added.items())
        target = f"<= {min(added.values()):.0f} us (the best peer)"
        measured = f"{ours:.0f} us; {others} (backend {direct:.0f})"
        rows.append(Row(f"added, {title}, {rate:,} requests/s", target, measured, ours <= min(added.values())))
    return rows
