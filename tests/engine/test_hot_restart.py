"""One engine takes the listening sockets of another over, under load and with every step failing."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sdlb.adapters.engine_process import find_binary
from sdlb.wire.engine_pb2 import Delta, Listener
from tests.engine.answers import answering
from tests.engine.engine import Engine

HTTP = [Listener(key="http", address="127.0.0.1:0")]


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with answering() as endpoint:
        yield endpoint


class Load:
    """Requests without a pause until `stop`, on two kept-alive connections and one after the other on new ones."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(new,)) for new in (False, False, True, True)]
        for thread in self._threads:
            thread.start()

    def _run(self, new: bool) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=10)
        while not self._over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                if answer.status == 200 and answer.read() == b"ok":
                    self.answered += 1
                else:
                    self.lost.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            if new:
                connection.close()
        connection.close()

    def more(self, requests: int) -> None:
        """Returns after `requests` more answers."""
        end = time.monotonic() + 20.0
        goal = self.answered + requests
        while self.answered < goal and not self.lost:
            assert time.monotonic() < end, "nothing is answered any more"
            time.sleep(0.01)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def ask(address: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 1), (1, 3)])
def test_nothing_is_lost_with_any_number_of_workers(backend: str, before: int, after: int) -> None:
    with Engine(HTTP, workers=before) as old:
        old.serve("*", backend)
        load = Load(old.address["http"])
        try:
            load.more(200)
            with Engine(HTTP, workers=after, after=old) as new:
                assert not new.attached.serving
                load.more(100)
                new.serve("*", backend)
                new.configure(HTTP)
                assert new.address == old.address
                load.more(200)  # both accept
                old.shut_down()
                assert old.process.wait(timeout=20) == 0
                load.more(200)
                load.stop()
                assert not load.lost
        finally:
            load.stop()


def test_what_waits_in_the_queue_is_served(backend: str) -> None:
    """Connections that the old engine has not accepted when it is killed are the new one's."""
    with Engine(HTTP, workers=1) as old:
        old.serve("*", backend)
        with Engine(HTTP, workers=2, after=old) as new:
            new.serve("*", backend)
            old.process.kill()
            old.process.wait()
            waiting = [socket.create_connection(old.address["http"], timeout=10) for _ in range(20)]
            for each in waiting:
                each.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            new.configure(HTTP)
            assert all(each.recv(100).startswith(b"HTTP/1.1 200 ") for each in waiting)
            for each in waiting:
                each.close()


def test_a_table_that_comes_before_the_workers_run_is_confirmed(backend: str) -> None:
    with Engine(HTTP) as old:
        old.serve("*", backend)
        for _ in range(5):
            with Engine(HTTP, workers=64, after=old) as new:
                new.serve("*", backend)


def test_a_new_engine_that_is_killed_before_it_confirms_changes_nothing(backend: str) -> None:
    with Engine(HTTP, workers=2) as old:
        old.serve("*", backend)
        load = Load(old.address["http"])
        try:
            load.more(100)
            with Engine(HTTP, workers=3, after=old) as new:
                new.serve("*", backend)
                new.process.kill()
                new.process.wait()
            load.more(300)
            with Engine(HTTP, workers=3, after=old) as new:  # and it can be tried again
                assert not new.attached.serving
        finally:
            load.stop()
        assert not load.lost and load.answered


def test_an_upgraded_connection_drains_with_the_old_engine() -> None:
    """Its endpoint is drained when it has closed, also if it was deleted after the old engine began to shut down."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server, Engine(HTTP) as old:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"127.0.0.1:{server.socket.getsockname()[1]}"
        old.serve("*", endpoint)
        with connect("ws://{}:{}/".format(*old.address["http"])) as client, Engine(HTTP, after=old) as new:
            new.serve("*", endpoint)
            new.configure(HTTP)
            old.shut_down()
            gone = Delta()
            key = gone.delete_members.add(service="web", version="1.0.0", pattern="*", target=f"i:{endpoint}")
            for engine in (new, old):
                engine.apply(gone)
            assert new.drained() == key.target
            client.send("still here")
            assert client.recv(timeout=10) == "still here"
            assert old.is_alive()
            client.close()
            assert old.drained() == key.target
            assert old.process.wait(timeout=20) == 0
        server.shutdown()


def test_a_handover_without_a_receiver_is_refused(tmp_path: Path, backend: str) -> None:
    with Engine(HTTP) as old:
        old.serve("*", backend)
        message = old.offer(tmp_path / "nobody")
        assert "nobody" in message.error and message.sockets == 0
        old.shut_down(0)
        assert old.process.wait(timeout=20) == 0


def test_half_of_the_sockets_is_refused(tmp_path: Path) -> None:
    """The old engine dies in the middle: the new one ends with one clear line."""
    path = tmp_path / "sockets"
    words = [find_binary(), "--socket", str(tmp_path / "engine.sock"), "--take-over", str(path)]
    tmp_path.chmod(0o700)
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        at = "{}:{}".format(*listening.getsockname())
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as old:
            while old.connect_ex(str(path)):
                assert process.poll() is None
                time.sleep(0.01)
            socket.send_fds(old, [f"http\n{at}\n{at}".encode()], [listening.fileno()])
        _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "the connection closed after 1 sockets" in error.decode()
    assert not path.exists()
