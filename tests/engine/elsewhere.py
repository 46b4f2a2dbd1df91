"""Another machine, as far as the network goes: a namespace with a cable to this one, which can be pulled.

What was on its way is lost then, and nobody says so: no FIN, no reset, no ICMP. (The neighbour is known for good, so that even
a new connection is not told that nobody is there.) Needs root and the program `ip`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Self, TypeVar

import pytest

Made = TypeVar("Made")
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


class NoNetworkError(Exception):
    """The system refuses."""


class Elsewhere:
    """`here`, `there`: the addresses of the two ends of the cable."""

    def __init__(self) -> None:
        number = next(_numbers)
        # Several of these tests may run at once: to each its two of the addresses that are for tests (RFC 2544).
        net = (os.getpid() * 8 + number) % 32_768
        first = ip_address("198.18.0.0") + 4 * net
        self.here, self.there = str(first + 1), str(first + 2)
        self._name, self._cable = f"sdlb{os.getpid()}-{number}", f"sdlb{net}"
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs root and the program ip, for a network namespace")
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self._name)
            self._connect()
        except NoNetworkError as error:
            self._remove()
            pytest.skip(f"no network namespace with a cable can be made here: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._remove()

    def _connect(self) -> None:
        there = ("-netns", self._name)
        _ip("address", "add", f"{self.here}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip(*there, "address", "add", f"{self.there}/30", "dev", "cable")
        _ip(*there, "link", "set", "cable", "up")
        _ip(*there, "link", "set", "lo", "up")
        mac = _ip(*there, "-o", "link", "show", "cable").split("link/ether ")[1].split()[0]
        _ip("neigh", "replace", self.there, "lladdr", mac, "dev", self._cable, "nud", "permanent")
        self._thread.submit(self._enter).result()

    def _enter(self) -> None:
        with Path(f"/run/netns/{self._name}").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise NoNetworkError(f"setns: {os.strerror(ctypes.get_errno())}")

    def _remove(self) -> None:
        for words in (("link", "delete", self._cable), ("netns", "delete", self._name)):
            with contextlib.suppress(NoNetworkError):
                _ip(*words)

    def make(self, made: Callable[[], Made]) -> Made:
        """Sockets and processes that are made by it are there, whoever uses them."""
        return self._thread.submit(made).result()

    def vanish(self) -> None:
        """Pulls the cable."""
        _ip("-netns", self._name, "link", "set", "cable", "down")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise NoNetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
