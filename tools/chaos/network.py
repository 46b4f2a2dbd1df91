"""Machines, as far as the network goes: a namespace each, with a cable to a switch in a namespace of its own.

Nothing is added to the machine's own network, and nothing in the namespaces leads out of them. Frames are lost
silently: no FIN, no reset, no ICMP. A fault between two machines is made by wire.py, which takes the place of a cable
while it lasts. This needs neither nft nor netem, works for one direction or both, and for connections that are
already open.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar

from tools.chaos import wire

Made = TypeVar("Made")
PREFIX = "sdlb-chaos-"
NETWORK = "198.18.7"
"""From the addresses that are reserved for such tests (RFC 2544)."""
CLONE_NEWNET = 0x40000000


class NoNetworkError(Exception):
    """The system refuses an operation; the text is one line."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to frames from one address to another."""

    source: str
    target: str
    loss: float = 0.0
    """The share that is lost; 1: all."""
    delay_ms: float = 0.0


class Machine:
    """`address`: its only one beside loopback."""

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        self._thread = ThreadPoolExecutor(1)

    def __str__(self) -> str:
        return self.name

    def enter(self) -> None:
        self._thread.submit(_enter, self.namespace).result()

    def make(self, made: Callable[[], Made]) -> Made:
        """Sockets and processes that are made in this context are on this machine."""
        return self._thread.submit(made).result()

    def close(self) -> None:
        self._thread.shutdown()


class Network:
    """A context manager. It removes everything that it made, also after an error."""

    def __init__(self, names: Sequence[str], seed: int = 0) -> None:
        mark = f"{PREFIX}{os.getpid()}"
        self._switch = Machine("switch", f"{mark}-switch", "")
        self.machines = {
            name: Machine(name, f"{mark}-{name}", f"{NETWORK}.{place}") for place, name in enumerate(names, 10)
        }
        self._seed = seed
        self._wire: subprocess.Popen[str] | None = None
        self._tapped: set[str] = set()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    # ------------------------------------------------------------- from start to end

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNetworkError("network namespaces need root and the program ip (Debian: iproute2)")
        remove_left()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _make(self) -> None:
        switch = self._switch.namespace
        ip("netns", "add", switch)
        self._switch.enter()
        ip("-netns", switch, "link", "add", "name", "switch", "type", "bridge")
        ip("-netns", switch, "link", "set", "switch", "up")
        for machine in self.machines.values():
            inside = ("-netns", machine.namespace)
            ip("netns", "add", machine.namespace)
            machine.enter()
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "link", "add", "cable", "type", "veth", "peer", "name", machine.name, "netns", switch)
            ip(*inside, "address", "add", f"{machine.address}/24", "dev", "cable")
            ip(*inside, "link", "set", "cable", "up")
            ip("-netns", switch, "link", "set", machine.name, "up", "master", "switch")
            tap = (wire.near(machine.name), "type", "veth", "peer", "name", wire.far(machine.name))
            ip("-netns", switch, "link", "add", "name", *tap)
            ip("-netns", switch, "link", "set", wire.near(machine.name), "up")
            ip("-netns", switch, "link", "set", wire.far(machine.name), "up", "master", "switch")
        self._neighbours()
        words = [sys.executable, "-I", "-S", str(Path(wire.__file__)), str(self._seed)]
        self._wire = self._switch.make(
            lambda: subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        )

    def _neighbours(self) -> None:
        """The neighbour entry is permanent, so that even a new connection to the cut-off machine gets no error."""
        macs: dict[str, str] = {}
        for machine in self.machines.values():
            shown = ip("-netns", machine.namespace, "-o", "link", "show", "cable")
            macs[machine.address] = shown.split("link/ether ")[1].split()[0]
        for machine in self.machines.values():
            lines = [
                f"neigh replace {address} lladdr {mac} dev cable nud permanent"
                for address, mac in macs.items()
                if address != machine.address
            ]
            ip("-netns", machine.namespace, "-batch", "-", stdin="\n".join(lines))

    def _remove(self) -> None:
        if self._wire is not None and self._wire.stdin is not None and self._wire.stdout is not None:
            with contextlib.suppress(OSError):
                self._wire.stdin.close()  # makes wire.py exit
            try:
                self._wire.wait(5)
            except subprocess.TimeoutExpired:
                self._wire.kill()
                self._wire.wait()
            self._wire.stdout.close()
        for machine in (*self.machines.values(), self._switch):
            machine.close()
            with contextlib.suppress(NoNetworkError):
                ip("netns", "delete", machine.namespace)

    # ------------------------------------------------------------- faults

    def plug(self, name: str, plugged: bool) -> None:
        """Pulls the cable of a machine out of the switch, or puts it back."""
        ip("-netns", self._switch.namespace, "link", "set", name, "up" if plugged else "down")

    def fault(self, child: str, rules: Sequence[Rule]) -> None:
        """Sets the rules on the cable of `child`; they replace the previous ones."""
        self._link("set", child, "nomaster")
        self._set_rules(child, rules)

    def heal(self, child: str) -> int:
        """Returns how many frames were lost or delayed."""
        touched = self._set_rules(child, None)
        self._link("set", child, "master", "switch")
        self._link("set", wire.far(child), "type", "bridge_slave", "fdb_flush")  # the switch has learnt the other port
        return touched

    def _link(self, *words: str) -> None:
        ip("-netns", self._switch.namespace, "link", *words)

    def _set_rules(self, child: str, rules: Sequence[Rule] | None) -> int:
        assert self._wire is not None and self._wire.stdin is not None and self._wire.stdout is not None
        order = {"cable": child, "rules": None if rules is None else [asdict(rule) for rule in rules]}
        self._wire.stdin.write(json.dumps(order) + "\n")
        self._wire.stdin.flush()
        answer = self._wire.stdout.readline()
        if not answer:
            raise NoNetworkError("wire.py has exited")
        return int(answer)


def remove_left() -> None:
    """Removes the namespaces of killed runs: their names contain the process id of the run."""
    for namespace in Path("/run/netns").glob(f"{PREFIX}*"):
        pid = namespace.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(NoNetworkError):
                ip("netns", "delete", namespace.name)


def _enter(namespace: str) -> None:
    with Path(f"/run/netns/{namespace}").open("rb") as opened:
        if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), CLONE_NEWNET):
            raise NoNetworkError(f"setns: {os.strerror(ctypes.get_errno())}")


def ip(*words: str, stdin: str = "") -> str:
    done = subprocess.run(["ip", *words], input=stdin, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise NoNetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
