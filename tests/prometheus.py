"""A real Prometheus for tests, which collects the metrics of a small exporter."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PROGRAM = shutil.which("prometheus") or ""
needs_prometheus = pytest.mark.skipif(not PROGRAM, reason="needs Prometheus (Debian: apt-get install prometheus)")
EVERY_S = 0.2


class Exporter:
    """`text`: the metrics, as Prometheus reads them."""

    def __init__(self) -> None:
        self.text = ""

    def __enter__(self) -> Exporter:
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(exporter.text.encode())

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def prometheus(folder: Path, exporter: Exporter) -> Generator[str]:
    """Its URL, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {EVERY_S * 1000:.0f}ms, scrape_timeout: {EVERY_S * 1000:.0f}ms}}\n"
        f"scrape_configs: [{{job_name: app, static_configs: [{{targets: ['{exporter.address}']}}]}}]\n"
    )
    command = [
        PROGRAM,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_ready(f"http://{address}", process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                if client.get(f"{url}/-/ready").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert process.poll() is None and time.monotonic() < end, "Prometheus does not start"
            time.sleep(0.05)
