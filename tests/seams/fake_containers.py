"""A stand-in for a container engine: it answers as Docker and Podman were recorded to, and runs the programs as plain processes.

Only what the driver `container` uses. Its answers have the shapes, the status codes and the words of Podman 4.3, except for a name that
is in use (409), where Docker's is the one of its documentation.
"""

from __future__ import annotations

import http.server
import json
import shlex
import socketserver
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

NEVER = "0001-01-01T00:00:00Z"


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "123Z")  # engines write nanoseconds


class FakeContainer:
    def __init__(self, body: dict[str, Any], log: Path) -> None:
        self.body, self.log = body, log
        self.process: subprocess.Popen[bytes] | None = None
        self.started, self.finished = NEVER, NEVER
        self.restarts = 0
        self.status = ""
        """In place of what is true."""

    def start(self) -> None:
        """Raises OSError."""
        env = dict(each.split("=", 1) for each in self.body["Env"])
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.body["Cmd"], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/"
            )
        self.started = now()

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout_s: float) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self.finished = now()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def state(self) -> dict[str, Any]:
        code = self.process.poll() if self.process is not None else None
        status = self.status or ("running" if self.runs else "created" if self.process is None else "exited")
        return {
            "Status": status,
            "Running": self.runs,
            "Paused": False,
            "Restarting": status == "restarting",
            "OOMKilled": False,
            "Dead": False,
            "Pid": self.process.pid if self.process is not None and self.runs else 0,
            "ExitCode": (code if code >= 0 else 128 - code) if code is not None else 0,
            "Error": "",
            "StartedAt": self.started,
            "FinishedAt": self.finished,
        }


class FakeEngine:
    """`digest`: of the one image that its registry has."""

    def __init__(self, socket: Path, digest: str) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.images: set[str] = set()
        self.pulled: list[str] = []
        self.digest = digest
        self.fail: dict[str, tuple[int, str]] = {}
        """The status and message of the next answer, by the last word of the path."""
        self.folder = socket.parent
        self.lock = threading.Lock()
        self._server = _Server(str(socket), _Handler)
        self._server.engine = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for each in self.containers.values():
            each.kill()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    engine: FakeEngine


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: object = None) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if content:
            self.wfile.write(content)

    def _fails(self, status: int, cause: str, message: str) -> None:
        self._answer(status, {"cause": cause, "message": message, "response": status})

    def _any(self) -> None:
        engine, url = self.server.engine, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        kind, *middle, last = unquote(url.path).strip("/").split("/")
        if not middle:
            middle, last = [last], "remove" if self.command == "DELETE" else last
        with engine.lock:
            if last in engine.fail:
                self._fails(*_with_cause(engine.fail.pop(last)))
            elif kind == "images":
                self._image(engine, "/".join(middle), last, query)
            elif last == "create":
                self._create(engine, query["name"], body)
            elif (found := engine.containers.get(middle[0])) is None:
                self._fails(
                    404, "no such container", f'no container with name or ID "{middle[0]}" found: no such container'
                )
            else:
                self._container(engine, middle[0], found, last, query)

    do_GET = do_POST = do_DELETE = _any

    def _image(self, engine: FakeEngine, name: str, last: str, query: dict[str, str]) -> None:
        if last == "json":
            if name in engine.images:
                self._answer(200, {"Id": f"sha256:{'1' * 64}", "RepoDigests": [name]})
            else:
                self._fails(404, "image not known", f"no such image: {name}: image not known")
            return
        image = query["fromImage"]
        engine.pulled.append(image)
        lines: list[dict[str, object]] = [{"status": "Pulling fs layer", "progressDetail": {}, "id": "0e7a8193cb9c"}]
        if image.endswith(f"@sha256:{engine.digest}"):
            engine.images.add(image)
            lines.append({"status": "Download complete", "progressDetail": {}, "id": "0e7a8193cb9c"})
        else:
            error = f"initializing source docker://{image}: reading manifest: StatusCode: 404, "
            lines.append({"progressDetail": {}, "errorDetail": {"message": error}, "error": error})
        self._answer(200, "".join(f"{json.dumps(line)}\n" for line in lines).encode())

    def _create(self, engine: FakeEngine, name: str, body: dict[str, Any]) -> None:
        if name in engine.containers:
            self._fails(409, "Conflict", f'Conflict. The container name "/{name}" is already in use by container "5c"')
        elif body["Image"] not in engine.images:
            self._fails(404, "image not known", f"no such image: {body['Image']}: image not known")
        else:
            engine.containers[name] = FakeContainer(body, engine.folder / f"{name}.log")
            self._answer(201, {"Id": "b3100dea0667", "Warnings": []})

    def _container(self, engine: FakeEngine, name: str, found: FakeContainer, last: str, query: dict[str, str]) -> None:
        match last:
            case "json":
                labels = found.body["Labels"]
                about = {"Id": "b3100dea0667", "RestartCount": found.restarts, "Config": {"Labels": labels}}
                self._answer(200, {**about, "State": found.state()})
            case "logs":
                lines = (
                    found.log.read_bytes().splitlines(keepends=True)[-int(query["tail"]) :]
                    if found.log.exists()
                    else []
                )
                self._answer(200, b"".join(b"\1\0\0\0" + len(line).to_bytes(4) + line for line in lines))
            case "start":
                if found.runs:
                    self._answer(304)
                    return
                try:
                    found.start()
                except OSError as error:
                    words = shlex.quote(str(error.filename))
                    text = f'runc: runc create failed: unable to start container process: exec: "{words}": {error.strerror}'
                    self._fails(500, "OCI runtime attempted to invoke a command that was not found", text)
                    return
                self._answer(204)
            case "stop":
                if not found.runs:
                    self._answer(304)
                    return
                found.stop(float(query["t"]))
                self._answer(204)
            case _:
                found.kill()
                del engine.containers[name]
                self._answer(204)


def _with_cause(failure: tuple[int, str]) -> tuple[int, str, str]:
    status, message = failure
    return status, "", message
