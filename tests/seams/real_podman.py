"""Podman, with its own storage and no other container in sight, and a registry with one image: a static program in C.

Both need no network. `why_not` says what is missing.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = r"""
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 16)) return 1;
    dprintf(1, "listening\n");
    for (;;) {
        char request[4096];
        int client = accept(listener, NULL, NULL);
        ssize_t size = read(client, request, sizeof request);
        if (size > 9 && !memcmp(request, "GET /exit", 9)) return dprintf(1, "told to exit\n"), 3;
        dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(words[1]), words[1]);
        close(client);
    }
}
"""
CONFIG = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=9000:9000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
REGISTRIES = '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Podman(NamedTuple):
    socket: Path
    registry: str
    """host:port"""
    digest: str


def why_not() -> str:
    missing = [each for each in ("podman", "runc", "cc") if shutil.which(each) is None]
    if missing:
        return f"no {' and no '.join(missing)} (Debian: apt-get install podman runc gcc)"
    return "" if os.geteuid() == 0 else "Podman is tested as root only"


@contextmanager
def podman(folder: Path) -> Generator[Podman]:
    blobs, digest = _image(folder)
    registry = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(blobs))
    thread = threading.Thread(target=registry.serve_forever, args=(0.02,))
    thread.start()
    (folder / "containers.conf").write_text(CONFIG)
    (folder / "registries.conf").write_text(REGISTRIES)
    places = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
    command = ["podman", "--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "vfs"]
    socket = folder / "podman.sock"
    with (folder / "podman.log").open("wb") as log:
        service = subprocess.Popen(
            [*command, "system", "service", "--time", "0", f"unix://{socket}"],
            env=os.environ | places,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        end = time.monotonic() + 30
        while not socket.exists():
            assert service.poll() is None, (folder / "podman.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield Podman(socket, f"127.0.0.1:{registry.server_port}", digest)
    finally:
        service.terminate()
        service.wait()
        registry.shutdown()
        thread.join()
        registry.server_close()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _image(folder: Path) -> tuple[dict[str, bytes], str]:
    (folder / "app.c").write_text(PROGRAM)
    subprocess.run(["cc", "-static", "-Os", "-s", "-o", folder / "app", folder / "app.c"], check=True)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("app")
        program = (folder / "app").read_bytes()
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    content = layer.getvalue()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    rootfs = {"type": "layers", "diff_ids": [_digest(content)]}
    config = json.dumps(
        {"architecture": arch, "os": "linux", "config": {"Entrypoint": ["/app"]}, "rootfs": rootfs}
    ).encode()
    parts = {
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_described(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **_described(content)}],
    }
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, **parts}).encode()
    return {_digest(each): each for each in (content, config, manifest)}, _digest(manifest)


def _described(content: bytes) -> dict[str, Any]:
    return {"digest": _digest(content), "size": len(content)}


def _handler(blobs: dict[str, bytes]) -> type[http.server.BaseHTTPRequestHandler]:
    class Registry(http.server.BaseHTTPRequestHandler):
        """The two reads of the OCI distribution specification that a pull needs."""

        def _get(self) -> None:
            name = self.path.rpartition("/")[2]
            content = b"{}" if self.path == "/v2/" else blobs.get(name)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/octet-stream")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_GET = do_HEAD = _get

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Registry
