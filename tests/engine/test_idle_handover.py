"""Handover of idle connections in a hot restart: neither unencrypted clients nor instances notice it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import HandedOver, Limits, Listener
from tests.e2e.backend import Backend
from tests.engine.engine import WITHIN_S, Engine
from tests.engine.test_idle_sockets import has_ended, until

HTTP = [Listener(key="http", address="127.0.0.1:0")]


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@contextmanager
def serving(backend: Backend, workers: int = 1) -> Generator[Engine]:
    with Engine(HTTP, workers=workers) as engine:
        engine.serve("*", backend.endpoint)
        yield engine


@contextmanager
def taking_over(old: Engine, endpoint: str, limits: Limits | None = None, workers: int = 1) -> Generator[Engine]:
    """A new engine in a hot restart that already accepts beside the old one."""
    with Engine(HTTP, after=old, workers=workers) as new:
        new.serve("*", endpoint)
        new.configure(HTTP, limits)
        yield new


class Client:
    """One kept-alive connection."""

    def __init__(self, engine: Engine) -> None:
        self.socket = socket.create_connection(engine.address["http"], WITHIN_S)

    def say(self, path: str = "/", method: str = "GET") -> None:
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())

    def hear(self) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self.socket)
        with response:
            response.begin()
            response.read()
        return response

    def ask(self, path: str = "/", method: str = "GET") -> None:
        """It is answered, and the connection stays."""
        self.say(path, method)
        response = self.hear()
        assert response.status == 200 and not response.will_close

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def clients(stack: ExitStack, engine: Engine, count: int) -> list[Client]:
    return [stack.enter_context(Client(engine)) for _ in range(count)]


def at_rest(stack: ExitStack, engine: Engine, count: int) -> list[Client]:
    """Each has had an answer."""
    all_of_them = clients(stack, engine, count)
    for client in all_of_them:
        client.ask()
    return all_of_them


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_neither_side_notices(tmp_path: Path, over: str, workers: int) -> None:
    path = tmp_path / "instance" if over == "unix" else None
    with Backend(path=path) as backend, serving(backend, workers) as old, ExitStack() as stack:
        all_of_them = at_rest(stack, old, 8)
        opened = backend.connections
        with taking_over(old, backend.endpoint, workers=workers) as new:
            old.shut_down()
            assert old.process.wait(WITHIN_S) == 0
            for _ in range(3):
                for client in all_of_them:
                    client.ask()
            assert new.counter("connections_inherited_total", 8) == 8
            assert new.counter("upstream_inherited_total", opened) == opened == backend.connections
            assert not new.counters.get("connections_total")


def test_one_after_the_other(backend: Backend) -> None:
    with serving(backend) as first, Client(first) as client, ExitStack() as stack:
        client.ask()
        old = first
        for _ in range(4):
            new = stack.enter_context(taking_over(old, backend.endpoint))
            old.shut_down()
            assert old.process.wait(WITHIN_S) == 0
            client.ask()
            old = new
        assert backend.connections == 1


@pytest.mark.parametrize("workers", [(1, 3), (3, 1)])
def test_any_number_of_workers_takes_them(backend: Backend, workers: tuple[int, int]) -> None:
    before, after = workers
    with serving(backend, before) as old, ExitStack() as stack:
        all_of_them = at_rest(stack, old, 20)
        with taking_over(old, backend.endpoint, workers=after) as new:
            old.shut_down()
            assert old.process.wait(WITHIN_S) == 0
            for client in all_of_them:
                client.ask()
            assert new.counter("connections_inherited_total", 20) == 20


def test_a_request_that_is_answered_soon_does_not_hold_its_connection_back(backend: Backend) -> None:
    with serving(backend) as old, Client(old) as client, taking_over(old, backend.endpoint) as new:
        client.say("/hang?until=gate")
        until(old, "requests_total", 1)
        old.shut_down()
        time.sleep(0.2)
        backend.gate.set()
        assert not client.hear().will_close
        client.ask()
        assert old.process.wait(WITHIN_S) == 0
        client.ask()
        assert new.counter("connections_inherited_total", 1) == 1
        assert backend.connections == 1


def test_a_connection_that_takes_longer_is_closed_after_its_answer(backend: Backend) -> None:
    with serving(backend) as old, Client(old) as client, taking_over(old, backend.endpoint):
        client.say("/hang?until=gate")
        until(old, "requests_total", 1)
        old.shut_down()
        time.sleep(1.5)
        backend.gate.set()
        assert client.hear().will_close
        assert old.process.wait(WITHIN_S) == 0


def test_what_was_sent_already_goes_along(backend: Backend) -> None:
    """Half a request, and the old engine does not run while it comes."""
    with serving(backend) as old, Client(old) as client, taking_over(old, backend.endpoint):
        client.ask()
        until(old, "connections_asleep", 1)
        old.shut_down()
        client.socket.sendall(b"GET / HTTP/1.1\r\nHo")
        time.sleep(0.3)
        client.socket.sendall(b"st: example.com\r\n\r\n")
        assert client.hear().status == 200


def test_busy_clients_keep_their_connections(backend: Backend) -> None:
    """Eight clients that are never idle, over three hot restarts."""
    over, lost = threading.Event(), list[str]()

    def run(engine: Engine) -> None:
        with Client(engine) as client:
            while not over.is_set():
                try:
                    client.ask()
                except (OSError, AssertionError, http.client.HTTPException) as error:
                    lost.append(repr(error))
                    return

    with serving(backend, 2) as old, ExitStack() as stack:
        threads = [threading.Thread(target=run, args=(old,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                new = stack.enter_context(taking_over(old, backend.endpoint, workers=2))
                time.sleep(0.2)
                old.shut_down()
                assert old.process.wait(WITHIN_S) == 0
                new.counter("connections_inherited_total", 8)
                old = new
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert not lost


def test_how_long_it_was_idle_goes_along(backend: Backend) -> None:
    """A request that could not be sent again gets no connection that was idle for a second, on either side."""
    with serving(backend) as old, Client(old) as client:
        client.ask()
        time.sleep(0.6)
        with taking_over(old, backend.endpoint) as new:
            old.shut_down()
            assert new.counter("upstream_inherited_total", 1) == 1
            time.sleep(0.6)
            client.ask(method="POST")
            assert backend.connections == 2


def test_a_connection_to_an_endpoint_that_is_gone_is_closed(backend: Backend) -> None:
    """The instance has moved by the time that the new engine has its table."""
    with Backend() as moved, serving(backend) as old, Client(old) as client:
        client.ask()
        with taking_over(old, moved.endpoint) as new:
            old.shut_down()
            assert old.process.wait(WITHIN_S) == 0
            client.ask()
            assert (len(backend.seen), len(moved.seen), moved.connections) == (1, 1, 1)
            assert not new.counters.get("upstream_inherited_total")


def test_what_the_new_one_has_no_place_for_drains(backend: Backend) -> None:
    with serving(backend) as old, ExitStack() as stack:
        all_of_them = at_rest(stack, old, 5)
        with taking_over(old, backend.endpoint, Limits(connections=2)) as new:
            old.shut_down()
            assert new.counter("connections_inherited_total", 2) == 2
            until(new, "connections_open", 2)
            # Those that stayed are answered and then closed.
            for client in all_of_them:
                client.say()
            assert sorted(client.hear().will_close for client in all_of_them) == [False, False, True, True, True]
            assert old.process.wait(WITHIN_S) == 0


def test_many_of_one_address_are_as_many_as_before(backend: Backend) -> None:
    with serving(backend) as old, ExitStack() as stack:
        at_rest(stack, old, 5)
        with taking_over(old, backend.endpoint, Limits(connections_per_address=3)) as new:
            old.shut_down()
            assert new.counter("connections_inherited_total", 3) == 3
            assert new.counter("limit_connections_per_address_total", 2) == 2
            assert old.process.wait(WITHIN_S) == 0


def test_with_the_new_one_dead_they_drain(backend: Backend) -> None:
    with serving(backend) as old, ExitStack() as stack:
        all_of_them = at_rest(stack, old, 4)
        with taking_over(old, backend.endpoint) as new:
            new.process.kill()
            new.process.wait()
            old.shut_down()
            time.sleep(0.3)  # it finds out with the first that it sends
            all_of_them[0].say()
            response = all_of_them[0].hear()
            assert response.status == 200 and response.will_close
            assert all(has_ended(client.socket) for client in all_of_them)
            assert old.process.wait(WITHIN_S) == 0


def test_with_the_new_one_not_configured_they_drain(backend: Backend) -> None:
    with serving(backend) as old, Client(old) as client:
        client.ask()
        with Engine(HTTP, after=old, workers=1) as new:
            new.serve("*", backend.endpoint)
            old.shut_down()
            assert has_ended(client.socket)
            assert old.process.wait(WITHIN_S) == 0


def receiving(old: Engine, path: Path) -> socket.socket:
    """Takes the listening sockets, as a new engine does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen(1)
        offered = threading.Thread(target=old.offer, args=(path,))
        offered.start()
        taken, _ = listening.accept()
    while True:
        text, descriptors, _, _ = socket.recv_fds(taken, 4096, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        if text.isdigit():
            offered.join()
            return taken


@pytest.mark.parametrize("says", [b"", b"takes many", b"something else"])
def test_an_engine_that_does_not_announce_it_gets_no_connections(tmp_path: Path, backend: Backend, says: bytes) -> None:
    """One of an older version has closed the connection; of a newer one anything may come."""
    with serving(backend) as old, Client(old) as client:
        client.ask()
        with receiving(old, tmp_path / "sockets") as taken:
            taken.send(says) if says else taken.close()
            old.shut_down()
            assert has_ended(client.socket)
            assert old.process.wait(WITHIN_S) == 0
            assert not says or taken.recv(100) == b""


def test_one_that_does_not_read_holds_nothing_up(tmp_path: Path, backend: Backend) -> None:
    """What fits into the queue is gone; the others drain after a second."""
    with serving(backend) as old, ExitStack() as stack:
        all_of_them = clients(stack, old, 400)
        until(old, "connections_asleep", 400)
        with receiving(old, tmp_path / "sockets") as taken:
            taken.send(b"takes 1000")
            started = time.monotonic()
            old.shut_down()
            assert old.process.wait(WITHIN_S) == 0
            assert time.monotonic() - started < 5
            queued = 0
            while (got := socket.recv_fds(taken, 4096, 1))[0]:
                queued += 1
                os.close(got[1][0])
            assert 0 < queued < 400
        assert all(has_ended(client.socket) for client in all_of_them)


def test_it_takes_no_more_than_announced(tmp_path: Path, backend: Backend) -> None:
    with serving(backend) as old, ExitStack() as stack:
        for client in clients(stack, old, 10):
            client.ask()
        with receiving(old, tmp_path / "sockets") as taken:
            taken.send(b"takes 4")
            old.shut_down()
            kinds = list[bytes]()
            while text := (got := socket.recv_fds(taken, 4096, 1))[0]:
                kinds.append(text[:1])
                os.close(got[1][0])
            # Those to instances come first.
            assert kinds == [b"u", b"c", b"c", b"c", b"c"]
            assert old.process.wait(WITHIN_S) == 0


class Sender:
    """Hands a listening socket over, as the old engine does in a hot restart."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.at = "{}:{}".format(*self.listening.getsockname())
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def hand_over(self, path: Path) -> HandedOver:
        while self.socket.connect_ex(str(path)):
            time.sleep(0.01)
        socket.send_fds(self.socket, [f"http\n{self.at}\n{self.at}".encode()], [self.listening.fileno()])
        self.socket.send(b"1")
        return HandedOver(sockets=1)

    def client(self) -> tuple[socket.socket, socket.socket]:
        """Its end, and the one that was accepted. Before an engine accepts too, which must not wait here."""
        client = socket.create_connection(self.listening.getsockname(), WITHIN_S)
        accepted, _ = self.listening.accept()
        self.listening.setblocking(False)
        return client, accepted

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()
        self.socket.close()


def test_an_engine_is_not_harmed_by_what_it_cannot_take(backend: Backend) -> None:
    """A sender of another version: sockets of other kinds, none at all, listeners and targets that are not there."""
    now = time.monotonic_ns() // 1_000_000
    key = f"i:{backend.endpoint}"
    with Sender() as old, ExitStack() as stack:
        client, accepted = (stack.enter_context(each) for each in old.client())
        listeners = [Listener(key="http", address=old.at)]
        new = stack.enter_context(Engine(listeners, after=old, workers=1))
        new.serve("*", backend.endpoint)
        new.configure(listeners)
        assert old.socket.recv(100).startswith(b"takes ")
        reading, writing = os.pipe()
        unix = socket.socketpair()
        for packet in (
            f"c\n0\n1\n{now}\n{now + 9000}\n0\n{old.at}",
            f"c\n0\n0\n{now}\n{now + 9000}\n0\n{old.at}",
            f"c\n7\n1\n{now}\n{now + 9000}\n0\n127.0.0.1:1",
            f"u\n0\n1\n{now}\n4000\n{backend.endpoint}\n{key}",
            f"u\n0\n1\n{now}\n4000\n127.0.0.1:1\n{key}",
            f"u\n0\n1\n{now}\n4000\n{backend.endpoint}\ni:nobody",
            f"u\n0\n1\n{2**64 - 1}\n{2**64 - 1}\n{backend.endpoint}\n{key}",
            f"c\n{2**64}\n1\n{now}\n{now}\n0\n{old.at}",
            "c\n0\n1\n0\n0\n1",
            "x\n",
            "\n" * 4000,
            "c" * 4096,
            "\xff",
        ):
            old.socket.send(packet.encode("latin-1"))
            for descriptor in (reading, writing, unix[0].fileno(), old.listening.fileno()):
                socket.send_fds(old.socket, [packet.encode("latin-1")], [descriptor])
            socket.send_fds(old.socket, [packet.encode("latin-1")], [reading, writing])
        for each in (reading, writing):
            os.close(each)
        for each in unix:
            each.close()
        # And one that is as it should be.
        packet = f"c\n0\n1\n{now}\n{now + 9000}\n1\n{old.at}"
        socket.send_fds(old.socket, [packet.encode()], [accepted.fileno()])
        accepted.close()
        client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        assert new.counter("connections_inherited_total", 1) == 1
        assert not new.counters.get("upstream_inherited_total") and not new.counters.get("faults_total")
        assert new.is_alive()


def test_whatever_is_configured_meanwhile(backend: Backend) -> None:
    """A node file that is read again in the moment of an upgrade: the new engine is configured more than once."""
    with serving(backend) as old, ExitStack() as stack:
        all_of_them = at_rest(stack, old, 20)
        with taking_over(old, backend.endpoint) as new:
            for _ in range(3):
                new.configure(HTTP)
            os.kill(new.process.pid, signal.SIGSTOP)  # what it is given waits for it
            try:
                old.shut_down()
                assert old.process.wait(WITHIN_S) == 0
            finally:
                os.kill(new.process.pid, signal.SIGCONT)
            for client in all_of_them:
                client.ask()
            assert new.counter("connections_inherited_total", 20) == 20
