"""What asks: wrk and h2load as command lines, and what they say about it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.certificates import HOST
from bench.report import CannotRun

LUA = """
local asks = {{}}
init = function() for i = 1, 1000 do
  asks[i] = wrk.format("GET", "/service-" .. math.random(0, {routes} - 1) .. "{tail}", {headers})
end end
request = function() return asks[math.random(1000)] end
"""
CLOSE = f'{{["Host"] = "{HOST}", ["Connection"] = "close"}}'


def need(*more: str) -> None:
    """The programs of a run, the proxies among them. Raises CannotRun."""
    for name in ("wrk", "taskset", *more):
        processes.tool(name, {"h2load": "nghttp2-client", "taskset": "util-linux"}.get(name, name))


def script(path: Path, routes: int, tail: str = "/x", close: bool = False) -> Path:
    """For wrk: a thousand of the routes, in no order."""
    path.write_text(LUA.format(routes=routes, tail=tail, headers=CLOSE if close else "nil"))
    return path


def wrk(script: Path, url: str, connections: int, seconds: int, threads: int = 1) -> list[str]:
    pace = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s"]
    return ["wrk", "-s", str(script), "-H", f"Host: {HOST}", *pace, url]


def h2load(urls: Sequence[str], seconds: int, *more: str) -> list[str]:
    """8 connections of 32 streams."""
    return ["h2load", "-c", "8", "-m", "32", "-D", str(seconds), "-H", f":authority: {HOST}", *more, *urls]


def ask(words: Sequence[str], name: str, core: int | str | None = None) -> tuple[int, float]:
    """Requests answered, and how many a second. An answer that is no 200 ends the measurement. Raises CannotRun."""
    pin = () if core is None else ("taskset", "-c", str(core))
    said = subprocess.run([*pin, *words], capture_output=True, text=True, timeout=120, check=False).stdout
    found = re.search(r"(\d+) requests in", said) or re.search(r"(\d+) succeeded, 0 failed, 0 errored", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said) or re.search(r"finished in .*?, ([\d.]+) req/s", said)
    wrong = "Non-2xx" in said or "Socket errors" in said or re.search(r" [1-9]\d* [345]xx", said)
    if found is None or rate is None or wrong or found[1] == "0":
        raise CannotRun(
            f"{name} did not answer every request correctly; {words[0]} printed: {said.strip()[-600:] or 'nothing'}"
        )
    return int(found[1]), float(rate[1])
