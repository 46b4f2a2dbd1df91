"""nginx and HAProxy as peers, set up as the engine is: one worker, the same routes, forwarding fields, log and
certificate."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import backend, processes
from bench.certificates import HOST

GRPC_PATH = "/bench.Echo/"
"""The path prefix of requests to the gRPC backend."""
NGINX = """
  log_format all '$remote_addr $request_id $request $status $body_bytes_sent $request_time $upstream_addr';
  access_log {log};
  upstream backend {{ server {http}; keepalive 256; keepalive_requests 1000000000; }}
  upstream grpc {{ server {grpc}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering on; {fields}
  ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.pem; ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_tickets off; http2_max_concurrent_streams 128;
  server {{
    listen {to.http} backlog=4096; listen {to.h2c} http2 backlog=4096; listen {to.https} ssl http2 backlog=4096;
    server_name {host}; include {folder}/{name}.routes; location / {{ return 404; }}
    location {grpc_path} {{ grpc_pass grpc://grpc; }}
  }}
"""
NGINX_FIELDS = {
    "Host": "$host",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host",
    "X-Request-Id": "$request_id",
}
HAPROXY = """
global
  maxconn 8192
  nbthread 1
  log stdout format raw local0
  tune.h2.max-concurrent-streams 128
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
  mode http
  {log}
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
  option forwardfor
frontend all
  bind {to.http}
  bind {to.h2c} proto h2
  bind {to.https} ssl crt {folder}/site.pem alpn h2,http/1.1
  unique-id-format %{{+X}}o\\ %ci%cp%ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend %[path,map_beg({folder}/haproxy.routes)]
backend all
  server one {http} pool-max-conn 1000
backend grpc
  server one {grpc} pool-max-conn 1000 proto h2
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """host:port for HTTP/1.1 and HTTP/2 unencrypted, and for both over TLS."""

    http: str
    h2c: str
    https: str


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of all peers. `http`, `grpc`: the backends. `logged`: with an access log."""

    folder: Path
    http: str
    grpc: str
    routes: int
    logged: bool
    core: int | str | None
    workers: int = 1


def nginx(setup: Setup, to: Addresses, name: str = "nginx") -> subprocess.Popen[bytes]:
    routes = (f"location /service-{n}/ {{ proxy_pass http://backend; }}\n" for n in range(setup.routes))
    (setup.folder / f"{name}.routes").write_text("".join(routes))
    fields = (
        f"{kind}_set_header {field} {value};" for kind in ("proxy", "grpc") for field, value in NGINX_FIELDS.items()
    )
    log = f"{setup.folder}/{name}-access.log all buffer=32k flush=1s" if setup.logged else "off"
    body = NGINX.format(
        folder=setup.folder,
        name=name,
        host=HOST,
        to=to,
        log=log,
        fields=" ".join(fields),
        http=setup.http,
        grpc=setup.grpc,
        grpc_path=GRPC_PATH,
    )
    return backend.start_nginx(setup.folder, name, body, setup.core, setup.workers)


def haproxy(setup: Setup, to: Addresses) -> subprocess.Popen[bytes]:
    routes = "".join(f"/service-{n}/ all\n" for n in range(setup.routes))
    (setup.folder / "haproxy.routes").write_text(f"{routes}{GRPC_PATH} grpc\n")
    config = setup.folder / "haproxy.cfg"
    log = "log global\n  option httplog" if setup.logged else ""
    config.write_text(HAPROXY.format(folder=setup.folder, to=to, log=log, http=setup.http, grpc=setup.grpc))
    words = [processes.tool("haproxy", "haproxy"), "-f", str(config), "-db"]
    return processes.start(words, setup.core, setup.folder / "haproxy.log")
