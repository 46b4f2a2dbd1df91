"""Another machine, as far as the network goes: a namespace with a cable to this one, which can be pulled.

Data in flight is lost then, without a FIN, a reset or ICMP. (The neighbour entry is permanent, so that even a new
connection gets no error.) Needs root and the program `ip`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from ipaddress import ip_address
from typing import Self, TypeVar

import pytest

from tools.chaos.network import Machine, NoNetworkError, ip

Made = TypeVar("Made")
_numbers = itertools.count()


class Elsewhere:
    """`here`, `there`: the addresses of the two ends of the cable."""

    def __init__(self) -> None:
        number = next(_numbers)
        # Several of these tests may run at once: to each its two of the addresses that are for tests (RFC 2544).
        net = (os.getpid() * 8 + number) % 32_768
        first = ip_address("198.18.0.0") + 4 * net
        self.here, self.there = str(first + 1), str(first + 2)
        self._name, self._cable = f"sdlb{os.getpid()}-{number}", f"sdlb{net}"
        self._machine = Machine("there", self._name, self.there)

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs root and the program ip, for a network namespace")
        try:
            ip("netns", "add", self._name)
            ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self._name)
            self._connect()
        except NoNetworkError as error:
            self._remove()
            pytest.skip(f"no network namespace with a cable can be made here: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.close()
        self._remove()

    def _connect(self) -> None:
        there = ("-netns", self._name)
        ip("address", "add", f"{self.here}/30", "dev", self._cable)
        ip("link", "set", self._cable, "up")
        ip(*there, "address", "add", f"{self.there}/30", "dev", "cable")
        ip(*there, "link", "set", "cable", "up")
        ip(*there, "link", "set", "lo", "up")
        mac = ip(*there, "-o", "link", "show", "cable").split("link/ether ")[1].split()[0]
        ip("neigh", "replace", self.there, "lladdr", mac, "dev", self._cable, "nud", "permanent")
        self._machine.enter()

    def _remove(self) -> None:
        for words in (("link", "delete", self._cable), ("netns", "delete", self._name)):
            with contextlib.suppress(NoNetworkError):
                ip(*words)

    def make(self, made: Callable[[], Made]) -> Made:
        """Sockets and processes that are made by it are there, whoever uses them."""
        return self._machine.make(made)

    def vanish(self) -> None:
        """Pulls the cable."""
        ip("-netns", self._name, "link", "set", "cable", "down")
