"""The load generators wrk and h2load: their command lines and their results."""

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
    """A script for wrk: a thousand of the routes, in random order."""
    path.write_text(LUA.format(routes=routes, tail=tail, headers=CLOSE if close else "nil"))
    return path


def wrk(script: Path, url: str, connections: int, seconds: int, threads: int = 1) -> list[str]:
    pace = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s"]
    return ["wrk", "-s", str(script), "-H", f"Host: {HOST}", *pace, url]


def h2load(urls: Sequence[str], seconds: int, *more: str) -> list[str]:
    """8 connections of 32 streams."""
    return ["h2load", "-c", "8", "-m", "32", "-D", str(seconds), "-H", f":authority: {HOST}", *more, *urls]


def ask(words: Sequence[str], name: str, core: int | str | None = None) -> tuple[int, float]:
    """The number of answered requests, and the rate per second. Raises CannotRun if an answer is not a 200."""
    pin = () if core is None else ("taskset", "-c", str(core))
    output = subprocess.run([*pin, *words], capture_output=True, text=True, timeout=120, check=False).stdout
    found = re.search(r"(\d+) requests in", output) or re.search(r"(\d+) succeeded, 0 failed, 0 errored", output)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output) or re.search(r"finished in .*?, ([\d.]+) req/s", output)
    wrong = "Non-2xx" in output or "Socket errors" in output or re.search(r" [1-9]\d* [345]xx", output)
    if found is None or rate is None or wrong or found[1] == "0":
        raise CannotRun(
            f"{name} did not answer every request correctly; {words[0]} printed: {output.strip()[-600:] or 'nothing'}"
        )
    return int(found[1]), float(rate[1])
