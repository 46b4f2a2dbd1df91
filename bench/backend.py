"""The backend of the proxies: one nginx worker that returns 512 bytes from memory, or 1 MiB from a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import processes
from sdlb.cli.demo.launch import Ports

BODY_BYTES = 512
CONNECTIONS = 8192
NGINX = """
daemon off; worker_processes {workers}; pid {folder}/{name}.pid; error_log {folder}/{name}.log crit;
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
{body}
}}
"""


def start_nginx(
    folder: Path, name: str, body: str, core: int | str | None, workers: int = 1
) -> subprocess.Popen[bytes]:
    """`body`: the content of the http block."""
    path = folder / f"{name}.conf"
    path.write_text(NGINX.format(folder=folder, name=name, connections=CONNECTIONS, body=body, workers=workers))
    return processes.start([processes.tool("nginx", "nginx"), "-c", str(path)], core, folder / f"{name}.log")


def start(folder: Path, ports: Ports, core: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """The process and its host:port."""
    address = f"127.0.0.1:{ports.take()}"
    answer = "x" * BODY_BYTES
    body = f'  server {{ listen {address} backlog=4096; location / {{ return 200 "{answer}"; }} }}'
    return start_nginx(folder, "backend", body, core), address


LARGE_BYTES = 1 << 20
LARGE = """
  sendfile on; open_file_cache max=10;
  server {{ listen {address} backlog=4096; location / {{ return 200 '{answer}'; }} location ~ /large$ {{ alias {folder}/large; }} }}
"""


def start_large(folder: Path, ports: Ports, core: int) -> tuple[subprocess.Popen[bytes], str]:
    """The same; a path that ends in /large gets 1 MiB."""
    address = f"127.0.0.1:{ports.take()}"
    folder.chmod(0o755)  # nginx reads it as another user
    (folder / "large").write_bytes(b"x" * LARGE_BYTES)
    body = LARGE.format(address=address, folder=folder, answer="x" * BODY_BYTES)
    return start_nginx(folder, "backend", body, core), address
