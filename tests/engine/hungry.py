"""Many clients that make the engine hold as much memory as they can, and what is promised to the others meanwhile."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.engine.engine import WITHIN_S, Engine, until

PATIENT_S = 2 * WITHIN_S


class Good:
    """Sends requests continuously: on one keep-alive connection, and on new ones."""

    def __init__(self, engine: Engine) -> None:
        self._address = engine.address["http"]
        self._over = threading.Event()
        self.answered = 0
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, False)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kept: bool) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=PATIENT_S)
        while not self._over.wait(0.005):
            try:
                connection.request("GET", "/", headers={"Host": "good.example"})
                answer = connection.getresponse()
                if answer.status != 200 or answer.read() != b"ok":
                    self.lost.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            self.answered += 1
            if not kept:
                connection.close()
        connection.close()


class Slow:
    """Sends the first part of a request, and the remaining part after the attack."""

    def __init__(self, engine: Engine) -> None:
        self._socket = socket.create_connection(engine.address["http"], timeout=PATIENT_S)
        self._socket.sendall(b"GET / HTTP/1.1\r\nHost: good")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ends_well(self) -> bool:
        self._socket.sendall(b".example\r\n\r\n")
        return self._socket.recv(1000).startswith(b"HTTP/1.1 200 ")


def largest(engine: Engine) -> int:
    """Bytes that were ever resident."""
    lines = Path(f"/proc/{engine.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10


@contextmanager
def under_attack(engine: Engine, limit: int) -> Generator[ExitStack]:
    """Runs an attack, closes its connections at the end, and checks the guarantees. `limit`: bytes."""
    with Slow(engine) as slow, Good(engine) as good:
        with ExitStack() as attackers:
            yield attackers
            ended = engine.counter("memory_ended_total")
            until(lambda: good.answered > 50, "others go on", PATIENT_S)
            at_most = largest(engine)
        assert slow.ends_well(), "one that holds little was ended for those that hold much"
    assert good.lost == []
    assert at_most <= limit, f"{at_most >> 20} MiB"
    assert at_most > limit // 2, "that was no attack"
    assert ended > 0
    assert engine.counters["memory_full_total"] > 0 and engine.counters["memory_high_total"] > 0
    assert engine.counters.get("faults_total", 0) == 0
    until(lambda: engine.counters["memory_held_bytes"] < limit // 4, "what was held is given back", PATIENT_S)
    assert engine.is_alive()


def connect(engine: Engine, attackers: ExitStack, key: str = "http", reads: int = 0) -> socket.socket:
    """`reads`: bytes that the kernel takes for it."""
    connection = attackers.enter_context(socket.socket())
    if reads:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
    connection.settimeout(PATIENT_S)
    connection.connect(engine.address[key])
    return connection
