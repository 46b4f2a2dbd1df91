"""Another machine, as far as the network goes: a namespace with a cable to this one, which can be pulled.

What was on its way is lost then, and nobody says so: no FIN, no reset, no ICMP. (The neighbour is known for good, so that even
a new connection is not told that nobody is there.) Needs root and the program `ip`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import pytest

Made = TypeVar("Made")
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


class Elsewhere:
    """`here`, `there`: the addresses of the two ends of the cable."""

    def __init__(self) -> None:
        number = next(_numbers)
        # Several of these tests may run at once.
        net = (os.getpid() * 8 + number) % 16_384
        self._name = f"sdlb{os.getpid()}-{number}"
        self._cable = f"sd{net}"
        prefix = f"100.{64 + net // 256}.{net % 256}"
        self.here, self.there = f"{prefix}.1", f"{prefix}.2"
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs root and the program ip, for a network namespace")
        made = subprocess.run(
            ["ip", "netns", "add", self._name], capture_output=True, text=True, timeout=20, check=False
        )
        if made.returncode:
            pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self._name)
        _ip("address", "add", f"{self.here}/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for words in (("address", "add", f"{self.there}/24", "dev", "cable"), ("link", "set", "cable", "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            _ip("-netns", self._name, *words)
        links = _ip("-netns", self._name, "-o", "link", "show", "cable")
        mac = links.split("link/ether ")[1].split()[0]
        _ip("neigh", "replace", self.there, "lladdr", mac, "dev", self._cable, "nud", "permanent")
        self._thread.submit(self._enter).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        _ip("netns", "delete", self._name)  # the cable goes with it when nobody there holds a socket any more
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True, timeout=20, check=False)

    def _enter(self) -> None:
        with Path(f"/run/netns/{self._name}").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def make(self, made: Callable[[], Made]) -> Made:
        """Sockets and processes that are made by it are there, whoever uses them."""
        return self._thread.submit(made).result()

    def vanish(self) -> None:
        """Pulls the cable."""
        _ip("-netns", self._name, "link", "set", "cable", "down")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
