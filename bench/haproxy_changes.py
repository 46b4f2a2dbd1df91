"""How long a new instance takes to be served under HAProxy, from the delta to the first answer.

    python -m bench.haproxy_changes [--groups 100] [--changes 200]

Prints the median, p99 and maximum of the time until the delta is applied, and until a request gets the new instance's answer.
There is no reload in between, which the program checks. The figures count on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from sdlb.core.effects import Apply
from tests.engines.play import endpoints, key, one, put, route, started, upstream


async def measure(groups: int, changes: int) -> None:
    applied: list[float] = []
    served: list[float] = []
    folder = Path(tempfile.mkdtemp(prefix="sdlb-bench-"))
    async with endpoints("old", "new") as (old, new), started("haproxy", folder) as played:
        patterns = [f"host-{n}.example/*" for n in range(groups)]
        puts = tuple(put("1.0.0", old, pattern) for pattern in patterns)
        routes = tuple(route(one("1.0.0"), pattern) for pattern in patterns)
        await played.apply(Apply(0, True, (upstream(old), upstream(new)), puts, routes))
        await asyncio.sleep(3.0)
        reloads = (await played.haproxy.processes()).reloads
        for n in range(changes):
            pattern = f"new-{n % 10}.example/*"
            begun = time.perf_counter()
            await played.apply(
                Apply(0, put_endpoints=(put("1.0.0", new, pattern),), put_routes=(route(one("1.0.0"), pattern),))
            )
            applied.append(time.perf_counter() - begun)
            assert (await played.ask(pattern.removesuffix("/*"))).body == "new"
            served.append(time.perf_counter() - begun)
            await played.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:new", pattern),), delete_routes=(pattern,)))
        assert (await played.haproxy.processes()).reloads == reloads, "an instance needed a reload"
    for name, times in (("applied", applied), ("served", served)):
        times.sort()
        p99 = times[int(len(times) * 0.99) - 1]
        print(
            f"{name}: median {statistics.median(times) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, max {times[-1] * 1e3:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--changes", type=int, default=200)
    args = parser.parse_args()
    asyncio.run(measure(args.groups, args.changes))


if __name__ == "__main__":
    main()
