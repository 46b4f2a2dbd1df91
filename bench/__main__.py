"""python -m bench [case ...] [--quick] [--json]"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from bench import change, cores, edge, idle, latency, proxy, reads, register, report, scale, sites, tiers, upgrade
from sdlb.cli.demo.launch import WaitTimeout

CASES: dict[str, Callable[[bool], report.Report]] = {
    "proxy": proxy.run,
    "edge": edge.run,
    "latency": latency.run,
    "cores": cores.run,
    "tiers": tiers.run,
    "idle": idle.run,
    "register": register.run,
    "change": change.run,
    "reads": reads.run,
    "upgrade": upgrade.run,
    "scale": scale.run,
    "sites": sites.run,
}
EPILOG = """cases:
  proxy     CPU per request of sdlb-engine, nginx and HAProxy, side by side
  edge      the same at the public edge, also beside Envoy and a TCP forwarder: TLS, HTTP/2, large responses, handshakes,
            gRPC, with 10,000 routes and an access log
  latency   the latency that each of them adds at half load
  cores     the throughput of two cores compared with one
  tiers     the cost of a hop between two nodes compared with the public hop
  idle      CPU and memory of a host node with 20 instances
  register  10,000 claims from an empty start through three tiers; memory of the root
  change    one claim added or withdrawn among 10,000, seen at a root three tiers up, under traffic
  reads     the delay of decisions while lists of 10,000 services, routes and instances are read
  scale     cost by the number of routes, memory by the number of idle connections
  sites     an entry with 10,000 sites: its start, and a replaced certificate
  upgrade   hot restarts of the engine under full load: lost requests
All of them take about 25 minutes (--quick: six). The tables are also written to bench/out/."""


def main() -> int:
    """Exit code 0 whatever was measured; 1 when a case could not be run."""
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measures sdlb beside other proxies, on loopback.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("case", nargs="*", metavar="case", help=f"{', '.join(CASES)}; all without any")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, to check that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the tables")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.case if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}; choose from {', '.join(CASES)}")
    line = report.machine()
    if not chosen.json:
        print(f"{line}\n", flush=True)
    reports: list[report.Report] = []
    failed: dict[str, str] = {}
    for name in dict.fromkeys(chosen.case or CASES):
        try:
            done = CASES[name](chosen.quick)
        except (report.CannotRun, WaitTimeout, OSError) as error:
            failed[name] = str(error)
            print(f"bench: {name}: {error}", file=sys.stderr)
            continue
        reports.append(done)
        if not chosen.json:
            print(done.text(), flush=True)
    if reports:
        path = report.write(reports, line)
        if chosen.json:
            cases = [done.to_json() for done in reports]
            print(json.dumps({"machine": line, "quick": chosen.quick, "cases": cases, "failed": failed}, indent=1))
        else:
            print(f"written to {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # everything that was started has already ended
