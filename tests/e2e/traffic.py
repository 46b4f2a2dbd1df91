"""Steady traffic through httpx while a test does something to the tree, and what became of each request."""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from sdlb.cli.demo.check import Answer, Rules
from tests.e2e.cluster import Node

NOTHING = Answer("", "", 0, 0)


@dataclass(frozen=True, slots=True)
class Got:
    """One request: when it was sent and done (monotonic seconds), and the instance that answered. `error`: why it is lost."""

    entry: str
    sent: float
    done: float
    status: int
    answer: Answer
    error: str = ""

    @property
    def wait_s(self) -> float:
        return self.done - self.sent


class Traffic:
    """A context manager: `threads` clients, each with kept-alive connections to all entries, round robin.

    Every other request is a POST with a body, unless `safe`. `authority`: over TLS, trusting this PEM file; every third
    connection is a new one.
    """

    def __init__(
        self,
        entries: Sequence[Node],
        host: str,
        path: str = "/",
        *,
        threads: int = 4,
        pause_s: float = 0.015,
        safe: bool = False,
        authority: Path | None = None,
    ) -> None:
        self.results: list[Got] = []
        self._entries, self._host, self._path = list(entries), host, path
        self._pause_s, self._safe = pause_s, safe
        self._tls = None if authority is None else ssl.create_default_context(cafile=str(authority))
        self._ending = threading.Event()
        self._count = itertools.count()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for(8)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more: int, timeout_s: float = 20.0) -> None:
        """Until this many more requests are done."""
        goal, end = len(self.results) + more, time.monotonic() + timeout_s
        while len(self.results) < goal:
            assert time.monotonic() < end, f"traffic stands still: {len(self.results)} done; last {self.results[-1:]}"
            time.sleep(0.01)

    def _run(self) -> None:
        with httpx.Client(timeout=45.0, trust_env=False, verify=self._tls or True) as client:
            while not self._ending.is_set():
                number = next(self._count)
                self.results.append(self._one(client, number, self._entries[number % len(self._entries)]))
                time.sleep(self._pause_s)

    def _one(self, client: httpx.Client, number: int, entry: Node) -> Got:
        place = f"http://{entry.http}" if self._tls is None else f"https://{entry.https}"
        url = f"{place}{self._path}?n={number}"
        close = {"connection": "close"} if self._tls is not None and number % 3 == 0 else {}
        content = b"b" * (number % 5000 + 1) if number % 4 >= 2 and not self._safe else None
        sent = time.monotonic()
        try:
            response = client.request(
                "POST" if content else "GET",
                url,
                content=content,
                headers={"host": self._host, **close},
                extensions={"sni_hostname": self._host},
            )
        except httpx.HTTPError as error:
            return Got(entry.name, sent, time.monotonic(), 0, NOTHING, f"{type(error).__name__}: {error}")
        done = time.monotonic()
        if response.status_code != 200:
            why = f"{response.status_code} {response.headers.get('proxy-status', '')} {response.text[:200]}"
            return Got(entry.name, sent, done, response.status_code, NOTHING, why)
        said = response.json()
        answer = Answer(said["service"], said["version"], said["received_ns"], said["finished_ns"])
        wrong = "" if said["target"] == f"{self._path}?n={number}" else f"another's answer: {said['target']}"
        return Got(entry.name, sent, done, 200, answer, wrong)

    # ------------------------------------------------------------- what became of it

    def assert_nothing_lost(self) -> None:
        bad = [got for got in self.results if got.error]
        assert not bad, f"{len(bad)} of {len(self.results)} requests lost, first: {bad[0]}, last: {bad[-1]}"

    def assert_no_overlap(self, *versions: str) -> None:
        """None of the later versions' lines received anything before the earlier ones' last answer was finished."""
        rules = Rules()
        services = {got.answer.service for got in self.results if not got.error}
        for service in services:
            for version in versions:
                rules.start(service, version, 0)
        for got in self.results:
            if not got.error:
                why = rules.wrong(got.answer, frozenset(services))
                assert not why, f"{why}: {got}"

    def count(self, which: Callable[[Got], bool] = lambda got: True) -> Counter[str]:
        """Answers by version."""
        return Counter(got.answer.version for got in self.results if not got.error and which(got))

    def since(self, moment: float) -> Counter[str]:
        """Answers by version, of requests sent at or after this monotonic moment."""
        return self.count(lambda got: got.sent >= moment)
