"""CPU a request at the public edge: sdlb-engine, nginx and HAProxy in turn on one core, in the cases that an edge lives on.

All of them know the same routes by path prefix, add the forwarding fields, keep connections on both sides, write an access
log and have the same certificate (ECDSA on P-256). What is counted is the CPU time of the proxy's processes, divided by the
requests that were answered.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import backend, processes
from bench.engine import Engine
from bench.report import CannotRun, Report, Row
from sdlb.cli.demo.launch import Ports

ROUTES = 10_000
HOST = "bench.test"
PATTERN = HOST + "/service-{}/*"
NGINX = """
  log_format all '$remote_addr $request_id $request $status $body_bytes_sent $request_time $upstream_addr';
  access_log {folder}/nginx-access.log all buffer=32k flush=1s;
  upstream backend {{ server {backend}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_buffering on;
  proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-Id $request_id;
  ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.pem; ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_tickets off; http2_max_concurrent_streams 128; http2_max_requests 1000000000;
  server {{
    listen {http} backlog=4096; listen {https} ssl http2 backlog=4096; server_name {host};
    include {folder}/routes.nginx; location / {{ return 404; }}
  }}
"""
HAPROXY = """
global
  maxconn 8192
  nbthread 1
  log stdout format raw local0
  tune.h2.max-concurrent-streams 128
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
  mode http
  log global
  option httplog
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
  option forwardfor
frontend all
  bind {http}
  bind {https} ssl crt {folder}/site.pem alpn h2,http/1.1
  unique-id-format %{{+X}}o\\ %ci%cp%ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend %[path,map_beg({folder}/routes.haproxy)]
backend all
  server one {backend} pool-max-conn 1000
"""
LUA = """
local asks = {{}}
init = function() for i = 1, 1000 do
  asks[i] = wrk.format("GET", "/service-" .. math.random(0, {routes} - 1) .. "{tail}", {headers})
end end
request = function() return asks[math.random(1000)] end
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    http: str
    https: str


@dataclass(frozen=True, slots=True)
class Case:
    """`limits`: of each peer, or of the better one (""), how much of its cost ours may be."""

    name: str
    title: str
    words: Callable[[Path, Addresses, int], Sequence[str]]
    limits: dict[str, float]
    seconds: int = 3


def _wrk(script: str, *words: str, tls: bool = False) -> Callable[[Path, Addresses, int], Sequence[str]]:
    def build(folder: Path, to: Addresses, seconds: int) -> Sequence[str]:
        url = f"https://{to.https}" if tls else f"http://{to.http}"
        return ["wrk", "-s", str(folder / script), "-H", f"Host: {HOST}", "-t1", *words, f"-d{seconds}s", url]

    return build


def _h2load(folder: Path, to: Addresses, seconds: int) -> Sequence[str]:
    urls = [f"https://{to.https}/service-{n * 7 % ROUTES}/x" for n in range(1000)]
    return ["h2load", "-c", "8", "-m", "32", "-D", str(seconds), "-H", f":authority: {HOST}", *urls]


CASES = (
    Case("h1", "HTTP/1.1, 64 connections, 512 bytes", _wrk("small.lua", "-c64"), {"": 0.80}),
    Case("mib", "HTTP/1.1, 16 connections, 1 MiB", _wrk("large.lua", "-c16"), {"": 0.90}),
    Case("h2-tls", "HTTP/2 over TLS, 8 connections, 32 streams", _h2load, {"haproxy": 1.0}),
    Case("h1-tls", "HTTP/1.1 over TLS, 64 connections", _wrk("small.lua", "-c64", tls=True), {"": 0.85}),
    Case("handshakes", "a full handshake and one request", _wrk("once.lua", "-c16", tls=True), {"haproxy": 0.55}),
)


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    for name in ("wrk", "h2load", "taskset", "openssl", "nginx", "haproxy"):
        processes.tool(name, {"h2load": "nghttp2-client", "taskset": "util-linux"}.get(name, name))
    rounds = 3 if quick else 5
    here, there = processes.cores()
    took: dict[str, dict[str, list[float]]] = {case.name: {} for case in CASES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(processes.end, started)
        ports = Ports()
        _prepare(folder)
        origin = _origin(folder, ports, there, started)
        engine = stack.enter_context(Engine(folder, here))
        pem = (folder / "site.pem").read_bytes()
        addresses = {"sdlb": Addresses(*engine.configure_edge(folder / "access.log", pem))}
        engine.serve(ROUTES, PATTERN, origin)
        pids = {"sdlb": engine.process.pid}
        for name, start in (("nginx", _nginx), ("haproxy", _haproxy)):
            to = Addresses(f"127.0.0.1:{ports.take()}", f"127.0.0.1:{ports.take()}")
            started.append(start(folder, to, origin, here))
            addresses[name], pids[name] = to, started[-1].pid
            processes.listening(started[-1], to.https, folder / f"{name}.log")
        for case in CASES:
            for turn in range(rounds + 1):  # the first one warms up
                names = [*addresses]
                for name in [*names[turn % 3 :], *names[: turn % 3]]:
                    words = case.words(folder, addresses[name], 1 if quick or not turn else case.seconds)
                    before = processes.cpu_s(processes.family(pids[name]))
                    answered = _ask(["taskset", "-c", str(there), *words], name)
                    spent = processes.cpu_s(processes.family(pids[name])) - before
                    if turn:
                        took[case.name].setdefault(name, []).append(spent / answered * 1e6)
        version = engine.version
    return _report(took, version, rounds)


def _report(took: dict[str, dict[str, list[float]]], version: str, rounds: int) -> Report:
    versions = {
        "sdlb": f"sdlb-engine {version}",
        "nginx": processes.output("nginx", "-v").partition("nginx version: ")[2].replace("/", " "),
        "haproxy": "HAProxy " + processes.output("haproxy", "-v").split()[2],
    }
    rows: list[Row] = []
    for case in CASES:
        us = {name: processes.median(values) for name, values in took[case.name].items()}
        peers = {name: value for name, value in us.items() if name != "sdlb"}
        ((peer, share),) = case.limits.items()
        limit = share * (peers[peer] if peer else min(peers.values()))
        others = ", ".join(f"{name} {value:.1f}" for name, value in peers.items())
        target = f"<= {limit:.1f} us ({share:.2f} x {peer or 'the better peer'})"
        low, high = min(took[case.name]["sdlb"]), max(took[case.name]["sdlb"])
        measured = f"{us['sdlb']:.1f} us ({low:.1f} to {high:.1f}); {others}"
        rows.append(Row(case.title, target, measured, us["sdlb"] <= limit))
    how = [
        f"CPU time a request (user and system), {ROUTES:,} routes, statistics and access log on, one worker each on the same",
        f"core; medians (lowest to highest) of {rounds} runs in turn. {', '.join(versions.values())}.",
    ]
    return Report("edge", "CPU a request at the public edge", how, rows, {"us_per_request": took, "versions": versions})


def prepare_certificate(folder: Path) -> None:
    """`site.pem` for `HOST`, on P-256. Raises CannotRun."""
    key, certificate = folder / "site.key", folder / "site.crt"
    done = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CannotRun(f"openssl could not make a certificate: {done.stderr.strip()}")
    (folder / "site.pem").write_text(certificate.read_text() + key.read_text())
    (folder / "site.pem").chmod(0o600)


def _prepare(folder: Path) -> None:
    prepare_certificate(folder)
    (folder / "small.lua").write_text(LUA.format(routes=ROUTES, tail="/x", headers="nil"))
    (folder / "large.lua").write_text(LUA.format(routes=ROUTES, tail="/large", headers="nil"))
    close = f'{{["Host"] = "{HOST}", ["Connection"] = "close"}}'
    (folder / "once.lua").write_text(LUA.format(routes=ROUTES, tail="/x", headers=close))
    (folder / "routes.haproxy").write_text("".join(f"/service-{n}/ all\n" for n in range(ROUTES)))
    nginx = (f"location /service-{n}/ {{ proxy_pass http://backend; }}\n" for n in range(ROUTES))
    (folder / "routes.nginx").write_text("".join(nginx))


def _origin(folder: Path, ports: Ports, core: int, started: list[subprocess.Popen[bytes]]) -> str:
    address = f"127.0.0.1:{ports.take()}"
    folder.chmod(0o755)  # nginx reads it as another user
    (folder / "large").write_bytes(b"x" * (1 << 20))
    answer = "x" * backend.BODY_BYTES
    body = (
        f"  sendfile on; open_file_cache max=10; server {{ listen {address} backlog=4096;\n"
        f"  location / {{ return 200 '{answer}'; }} location ~ /large$ {{ alias {folder}/large; }} }}"
    )
    started.append(backend.start_nginx(folder, "backend", body, core))
    processes.listening(started[-1], address, folder / "backend.log")
    return address


def _nginx(folder: Path, to: Addresses, origin: str, core: int) -> subprocess.Popen[bytes]:
    body = NGINX.format(host=HOST, backend=origin, http=to.http, https=to.https, folder=folder)
    return backend.start_nginx(folder, "nginx", body, core)


def _haproxy(folder: Path, to: Addresses, origin: str, core: int) -> subprocess.Popen[bytes]:
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(http=to.http, https=to.https, backend=origin, folder=folder))
    return processes.start(
        [processes.tool("haproxy", "haproxy"), "-f", str(config), "-db"], core, folder / "haproxy.log"
    )


def _ask(words: list[str], name: str) -> int:
    """Requests answered. An answer that is no 200 ends the measurement."""
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False).stdout
    wrk = re.search(r"(\d+) requests in", said)
    h2load = re.search(r"(\d+) succeeded, 0 failed, 0 errored", said)
    found = wrk or h2load
    if found is None or found[1] == "0" or "Non-2xx" in said:
        raise CannotRun(
            f"{name} did not answer every request well; {words[3]} said: {said.strip()[-600:] or 'nothing'}"
        )
    return int(found[1])
