"""CPU a request: sdlb-engine, nginx and HAProxy in turn on one core, between the same client and the same backend.

All three add X-Forwarded-For, -Proto and -Host, keep connections on both sides and know 1,000 routes by path prefix. The
client asks for a random one. What is counted is the CPU time of the proxy's processes (user and system, from the
kernel's scheduler), divided by the requests that were answered; so it matters little what else the machine does.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import backend, processes
from bench.engine import Engine
from bench.report import CannotRun, Report, Row
from sdlb.cli.demo.launch import Ports

ROUTES = 1000
CONNECTIONS = 64
HOST = "bench.test"
PATTERN = HOST + "/service-{}/*"
NGINX = """
  upstream backend {{ server {backend}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http;
  proxy_set_header X-Forwarded-Host $host;
  server {{ listen {address} backlog=4096; server_name {host}; {routes} location / {{ return 404; }} }}
"""
HAPROXY = """
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
  option forwardfor
frontend all
  bind {address}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend %[path,map_beg({map})] if {{ hdr(host) {host} }}
backend all
  server one {backend} pool-max-conn 1000
"""
LUA = (
    f"local ROUTES = {ROUTES}"
    + """
local asks = {}
init = function() for i = 1, ROUTES do asks[i] = wrk.format("GET", "/service-" .. (i - 1) .. "/x") end end
request = function() return asks[math.random(ROUTES)] end
"""
)

# folder, address to listen on, address of the backend, core -> the process
Start = Callable[[Path, str, str, int], "subprocess.Popen[bytes]"]


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    tools = {name: processes.tool(name, package) for name, package in (("wrk", "wrk"), ("taskset", "util-linux"))}
    peers = {"nginx": _nginx, "haproxy": _haproxy}
    for name in peers:
        processes.tool(name, name)
    seconds, rounds = (1, 3) if quick else (3, 7)
    here, there = processes.cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        ports = Ports()
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(processes.end, started)
        process, origin = backend.start(folder, ports, there)
        started.append(process)
        processes.listening(process, origin, folder / "backend.log")
        engine = stack.enter_context(Engine(folder, here))
        addresses = {"sdlb": engine.configure()}
        engine.serve(ROUTES, PATTERN, origin)
        pids = {"sdlb": engine.process.pid}
        for name, start in peers.items():
            addresses[name] = f"127.0.0.1:{ports.take()}"
            started.append(start(folder, addresses[name], origin, here))
            pids[name] = started[-1].pid
            processes.listening(started[-1], addresses[name], folder / f"{name}.log")
        (folder / "ask.lua").write_text(LUA)
        client = [
            tools["taskset"],
            "-c",
            str(there),
            tools["wrk"],
            "-s",
            str(folder / "ask.lua"),
            "-H",
            f"Host: {HOST}",
        ]
        took: dict[str, list[float]] = {name: [] for name in addresses}
        rates: dict[str, list[float]] = {name: [] for name in addresses}
        for turn in range(rounds + 1):  # the first one warms up
            names = [*addresses]
            for name in [*names[turn % 3 :], *names[: turn % 3]]:  # who comes first changes
                address = addresses[name]
                before = processes.cpu_s(processes.family(pids[name]))
                answered, rate = _ask([*client, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://{address}"], name)
                spent = processes.cpu_s(processes.family(pids[name])) - before
                if turn:
                    took[name].append(spent / answered * 1e6)
                    rates[name].append(rate)
        version = engine.version
    return _report(took, rates, version, seconds, rounds)


def _report(
    took: dict[str, list[float]], rates: dict[str, list[float]], version: str, seconds: int, rounds: int
) -> Report:
    us = {name: processes.median(values) for name, values in took.items()}
    versions = {
        "sdlb": f"sdlb-engine {version}",
        "nginx": processes.output("nginx", "-v").partition("nginx version: ")[2].replace("/", " "),
        "haproxy": "HAProxy " + processes.output("haproxy", "-v").split()[2],
    }
    rows = [_row(versions["sdlb"], us["sdlb"], min(us["nginx"], us["haproxy"]), took["sdlb"])]
    rows += [Row(versions[name], "", _spread(us[name], took[name])) for name in ("nginx", "haproxy")]
    how = [
        f"CPU time a request (user and system), HTTP/1.1, {CONNECTIONS} kept-alive connections, {backend.BODY_BYTES}-byte",
        f"answers, {ROUTES:,} routes, one worker each on the same core; median (lowest to highest) of {rounds} runs of",
        f"{seconds} s in turn. Requests a second, with client and backend on the other core: "
        + ", ".join(f"{name} {processes.median(rates[name]):,.0f}" for name in us)
        + ".",
    ]
    figures = {"us_per_request": took, "requests_per_s": rates, "versions": versions}
    return Report("proxy", "CPU a request beside nginx and HAProxy", how, rows, figures)


def _row(name: str, value: float, limit: float, all_of: list[float]) -> Row:
    return Row(name, f"<= {limit:.1f} us (the better peer)", _spread(value, all_of), value <= limit)


def _spread(value: float, all_of: list[float]) -> str:
    return f"{value:.1f} us ({min(all_of):.1f} to {max(all_of):.1f})"


def _ask(words: list[str], name: str) -> tuple[int, float]:
    """Requests answered, and how many a second. An answer that is no 200 ends the measurement."""
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
    answered = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if answered is None or rate is None or "Non-2xx" in said or "Socket errors" in said or answered[1] == "0":
        raise CannotRun(f"{name} did not answer every request well; wrk said: {said.strip() or 'nothing'}")
    return int(answered[1]), float(rate[1])


def _nginx(folder: Path, address: str, origin: str, core: int) -> subprocess.Popen[bytes]:
    routes = " ".join(f"location /service-{n}/ {{ proxy_pass http://backend; }}" for n in range(ROUTES))
    body = NGINX.format(host=HOST, backend=origin, address=address, routes=routes)
    return backend.start_nginx(folder, "nginx", body, core)


def _haproxy(folder: Path, address: str, origin: str, core: int) -> subprocess.Popen[bytes]:
    routes = folder / "haproxy.map"
    routes.write_text("".join(f"/service-{n}/ all\n" for n in range(ROUTES)))
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(host=HOST, address=address, map=routes, backend=origin))
    words = [processes.tool("haproxy", "haproxy"), "-f", str(config), "-db"]
    return processes.start(words, core, folder / "haproxy.log")
