"""CPU a request without the extras of an edge: 1,000 routes, no access log, HTTP/1.1, beside nginx and HAProxy."""

from __future__ import annotations

from bench import backend, load, processes
from bench.edge import DEBIAN, HTTP1
from bench.report import Report, Row
from bench.stand import Stand

ROUTES = 1000


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    load.need("nginx", "haproxy", "openssl")
    seconds, rounds = (1, 3) if quick else (3, 7)
    with Stand(ROUTES, DEBIAN, logged=False) as stand:

        def one(name: str, _: bool) -> tuple[float, float]:
            return stand.cost_us(name, HTTP1.words(stand, stand.addresses[name], seconds))

        measurements = processes.interleaved([*stand.addresses], rounds, one)
        versions = stand.versions
    took = {name: [us for us, _ in values] for name, values in measurements.items()}
    rates = {name: [rate for _, rate in values] for name, values in measurements.items()}
    us = {name: processes.median(values) for name, values in took.items()}
    best = min(us[name] for name in DEBIAN)
    rows = [Row(versions["sdlb"], f"<= {best:.1f} us (the better peer)", _spread(took["sdlb"]), us["sdlb"] <= best)]
    rows += [Row(versions[name], "", _spread(took[name])) for name in DEBIAN]
    how = [
        f"CPU time a request (user and system), {HTTP1.title.replace('512 bytes', f'{backend.BODY_BYTES}-byte answers')},",
        f"{ROUTES:,} routes, one worker each on the same core; median (lowest to highest) of {rounds} runs of",
        f"{seconds} s in turn. Requests a second, with client and backend on the other core: "
        + ", ".join(f"{name} {processes.median(rates[name]):,.0f}" for name in us)
        + ".",
    ]
    results = {"us_per_request": took, "requests_per_s": rates, "versions": versions}
    return Report("proxy", "CPU per request beside nginx and HAProxy", how, rows, results)


def _spread(values: list[float]) -> str:
    return f"{processes.median(values):.1f} us ({min(values):.1f} to {max(values):.1f})"
