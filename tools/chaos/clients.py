"""The clients of one entry: threads with kept-alive and fresh connections, GET and POST, quick and slow. A program.

    python clients.py LOG SEED THREADS SERVICE... -- NAME=ADDRESS NAME=ADDRESS

The clients use the first entry. If it refuses the connection, or closes it before the answer to a GET, they use the other one, as a
browser would. Each attempt is one line of the log (`Attempt` in report.py). Threads of different services share nothing, so that a
slow service does not delay the other. At the end of standard input the program logs the last answers and exits.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

CONNECT_S = 1.0
ANSWER_S = 45.0
"""Longer than requests are parked."""
PAUSE_S = 0.06
KEPT_S = 5.0
"""A connection that was idle for this long is not reused, as in most programs: the server may close it at any moment."""
REFUSED_S = 1.0
"""An entry that refused a connection is not used for this long."""
SLOW_MS = (200, 300, 500)


class Refused(Exception):
    """No connection was made, so nothing was sent."""


class Client(threading.Thread):
    def __init__(self, log: Log, seed: int, service: str, entries: list[tuple[str, str]]) -> None:
        super().__init__()
        self._log, self._rng, self._service, self._entries = log, random.Random(seed), service, entries
        self._kept: dict[str, http.client.HTTPConnection] = {}
        self._used: dict[str, float] = {}
        self._refused_until = 0.0
        self.mark = f"{entries[0][0]}.{seed}"

    def run(self) -> None:
        for number in itertools.count():
            if self._log.ending.wait(self._rng.uniform(0.5, 1.5) * PAUSE_S):
                break
            self._request(f"{self.mark}.{number}")
        for connection in self._kept.values():
            connection.close()

    def _request(self, id: str) -> None:
        method = self._rng.choice(("GET", "POST"))
        slow_ms = self._rng.choice(SLOW_MS) if self._rng.random() < 0.15 else 0
        fresh = self._rng.random() < 0.3
        entries = self._entries if time.monotonic() >= self._refused_until else self._entries[::-1]
        for number, (name, address) in enumerate(entries):
            last = number == len(entries) - 1
            attempt: dict[str, Any] = {
                "id": f"{id}.{number}",
                "entry": name,
                "service": self._service,
                "method": method,
            }
            attempt |= {"slow_ms": slow_ms, "fresh": fresh, "sent": time.monotonic()}
            outcome = self._attempt(f"{id}.{number}", name, address, method, slow_ms, fresh)
            attempt |= {"done": time.monotonic(), **outcome}
            refused = outcome["cause"].startswith("refused")
            if refused and name == self._entries[0][0]:
                self._refused_until = time.monotonic() + REFUSED_S
            attempt["moved"] = not last and (refused or (outcome["cause"].startswith("cut") and method == "GET"))
            self._log.write(attempt)
            if not attempt["moved"]:
                return

    def _attempt(self, id: str, name: str, address: str, method: str, slow_ms: int, fresh: bool) -> dict[str, Any]:
        """The result of one attempt. `cause`: why there is no correct answer; "" when there is one."""
        if name in self._kept and (fresh or self._used[name] + KEPT_S < time.monotonic()):
            self._kept.pop(name).close()
        begun = False
        status = 0
        try:
            connection = self._connected(name, address)
            content = b"b" * self._rng.randrange(1, 3000) if method == "POST" else None
            path = f"/{self._service}?id={id}" + (f"&slow={slow_ms}" if slow_ms else "")
            connection.request(method, path, content, {"Host": f"{self._service}.example"})
            answer = connection.getresponse()
            begun, status = True, answer.status
            text = answer.read()
            self._used[name] = time.monotonic()
            if answer.will_close:
                self._kept.pop(name).close()
        except Refused as error:
            return {"status": 0, "cause": f"refused: {error}"}
        except (OSError, http.client.HTTPException) as error:
            self._kept.pop(name).close()
            when = "in the answer" if begun else "before the answer"
            kind = "late" if isinstance(error, TimeoutError) else "cut"
            return {"status": status, "cause": f"{kind} {when}: {type(error).__name__}: {error}"}
        if status != 200:
            why = f"{answer.headers.get('proxy-status', '')} {text[:200].decode('latin-1')}"
            return {"status": status, "cause": f"{status}: {why}"}
        seen = json.loads(text)
        wrong = seen["id"] != id or seen["service"] != self._service
        return {
            "status": status,
            "cause": f"wrong answer: {text!r}" if wrong else "",
            "version": seen["version"],
            "instance": seen["instance"],
            "received": seen["received_ns"] / 1e9,
        }

    def _connected(self, name: str, address: str) -> http.client.HTTPConnection:
        if name not in self._kept:
            connection = http.client.HTTPConnection(address, timeout=CONNECT_S)
            try:
                connection.connect()
            except OSError as error:
                raise Refused(f"{type(error).__name__}: {error}") from None
            connection.sock.settimeout(ANSWER_S)
            connection.auto_open = 0  # fails instead of reconnecting
            self._kept[name] = connection
        return self._kept[name]


class Log:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._lock = threading.Lock()
        self.ending = threading.Event()

    def write(self, attempt: dict[str, Any]) -> None:
        line = json.dumps(attempt) + "\n"
        with self._lock:
            self._file.write(line)


def main(path: str, seed: str, threads: str, *words: str) -> None:
    services, entries = words[: words.index("--")], words[words.index("--") + 1 :]
    log = Log(Path(path))
    places = [(name, address) for name, _, address in (entry.partition("=") for entry in entries)]
    clients = [
        Client(log, int(seed) * 1000 + number, services[number % len(services)], places)
        for number in range(int(threads))
    ]
    for client in clients:
        client.start()
    sys.stdin.read()
    log.ending.set()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
