"""The program HAProxy: where it is, what it can do, whether it accepts a configuration, and its start."""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path

from msgspec import Struct

from sdlb.adapters import engine_process as processes
from sdlb.adapters.haproxy.rules import CONFIG, DROP_TRAILERS, MASTER
from sdlb.seams.engine import EngineFailed

OLDEST = (2, 6)
CHECK_WITHIN_S = 30.0
FILES_BESIDE = 1000
"""File descriptors that are not connections of clients and servers."""


class Program(Struct, frozen=True):
    """`version`: "2.6.12-1+deb12u4". `lua`: it was built with Lua. `release`: (2, 6). `drops_trailers`: it can remove the trailers of
    requests."""

    path: str
    version: str
    lua: bool
    release: tuple[int, int]
    drops_trailers: bool = False

    @property
    def limits_floods(self) -> bool:
        """It has limits against floods of HTTP/2."""
        return self.release >= (3, 0)

    @property
    def chooses_sni(self) -> bool:
        """It sends the host of a request as the name of a TLS handshake, and verifies that one."""
        return self.release >= (3, 3)

    @property
    def slows_resets(self) -> bool:
        """It can handle a connection with many resets of HTTP/2 after the others."""
        return self.release >= (3, 4)


async def find(configured: str = "") -> Program:
    """The configured path, else the variable HAPROXY, else the PATH. Raises EngineFailed if there is none, or it is too old."""
    wanted = configured or os.environ.get("HAPROXY", "")
    path = wanted or shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not path:
        raise EngineFailed("the program haproxy is not installed; install it, or set haproxy.binary in the node file")
    code, text = await processes.output([path, "-vv"], Path("/"), CHECK_WITHIN_S)
    found = re.search(r"HAProxy version ((\d+)\.(\d+)\S*)", text)
    if code or found is None:
        raise EngineFailed(f"the program {path} is not HAProxy: {_last_line(text)}")
    release = (int(found[2]), int(found[3]))
    if release < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise EngineFailed(f"the program {path} is HAProxy {found[1]}; version {oldest} or newer is needed")
    _, keywords = await processes.output([path, "-dKcfg", "-c", "-q", "-f", os.devnull], Path("/"), CHECK_WITHIN_S)
    return Program(path, found[1], "+LUA" in text, release, DROP_TRAILERS in keywords)


async def check(program: Program, folder: Path, file: str = CONFIG) -> str:
    """Whether HAProxy accepts the files. Returns "", or its first complaint."""
    code, text = await processes.output([program.path, "-c", "-f", file], folder, CHECK_WITHIN_S)
    if code == 0:
        return ""
    return first_alert(text) or _last_line(text)


def first_alert(text: str) -> str:
    found = re.search(r"\[ALERT\]\s*\(\d+\) : (.*)", text)
    return found[1][:400] if found else ""


def start(program: Program, folder: Path, log: Path) -> int:
    """Starts master and worker; returns the master's process id. Raises EngineFailed."""
    words = [program.path, "-W", "-S", f"unix@{MASTER},mode,600", "-f", str(folder / CONFIG)]
    return processes.launch(words, log, folder)


def connections(wanted: int) -> int:
    """`maxconn`: what is wanted, as far as the limit of open files allows. Each client needs two descriptors."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(100, min(wanted, (most - FILES_BESIDE) // 2))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1][:200]
