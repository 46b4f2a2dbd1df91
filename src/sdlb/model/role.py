"""How a node runs a service of a role: the table `[role.ROLE.SERVICE]` of its node file.

The tree carries versions and digests only. What is run, as which user, and from where artifacts come, stands here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from msgspec import Struct, field

from sdlb.model.instance import HealthCheck
from sdlb.model.location import Location

DOCKER_SOCKET = "/run/docker.sock"
PLACEHOLDERS = ("port", "version", "folder")
_PLACEHOLDER = re.compile(r"\{([a-z_]{1,32})\}")


class Restart(Struct, frozen=True):
    """The pause before a restart: `first_s`, doubled each time up to `max_s`. A program that ran for `stable_s` begins anew."""

    first_s: float = 1.0
    max_s: float = 60.0
    stable_s: float = 60.0


class Program(Struct, frozen=True):
    """What the driver `process` runs. `command`: the program, absolute or relative to the unpacked artifact, and its arguments,
    with placeholders. `user` "": that of the node. `memory_mb`, `cpu` 0: no limit. `cwd` "": the unpacked artifact."""

    command: tuple[str, ...]
    user: str = ""
    memory_mb: int = 0
    cpu: float = 0.0
    cwd: str = ""
    stop_timeout_s: float = 10.0
    restart: Restart = Restart()
    log_bytes_max: int = 10 << 20


class Commands(Struct, frozen=True):
    """What the driver `command` runs: absolute paths of programs, and their arguments. () for `prepare` and `forget`: nothing."""

    start: tuple[str, ...]
    stop: tuple[str, ...]
    state: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    timeout_s: float = 60.0


class Container(Struct, frozen=True):
    """What the driver `container` runs: the release's image. `command`: arguments in place of those of the image, with placeholders.
    `port`: inside the container; 0: the same as outside. `user` "": that of the image. `memory_mb`, `cpu` 0: no limit. `socket`:
    of the container engine's API."""

    command: tuple[str, ...] = ()
    port: int = 0
    user: str = ""
    memory_mb: int = 0
    cpu: float = 0.0
    stop_timeout_s: float = 10.0
    log_bytes_max: int = 10 << 20
    socket: str = DOCKER_SOCKET


class Unit(Struct, frozen=True):
    """What the driver `systemd` runs: instances of a template unit, for example "catalog@.service". `timeout_s`: for each job."""

    template: str
    timeout_s: float = 60.0


class ArtifactRules(Struct, frozen=True):
    """`sources`: prefixes; artifacts are fetched from nowhere else. `keys`: files with minisign public keys; if there are any,
    an artifact without a signature by one of them is refused."""

    sources: tuple[Location, ...] = ()
    keys: tuple[str, ...] = ()
    megabytes_max: int = 2048
    timeout_s: float = 600.0


Run = Program | Commands | Container | Unit
_DRIVERS: dict[type[Run], str] = {Program: "process", Commands: "command", Container: "container", Unit: "systemd"}


class RoleService(Struct, frozen=True):
    """`port` 0: a free one. `env`: added to the environment. `side_by_side`: two versions may run at once on this node."""

    role: str
    service: str
    run: Run
    routes: tuple[str, ...]
    health: HealthCheck = HealthCheck()
    protocol: str = "http1"
    compatible: tuple[str, ...] = ()
    capacity: int = 100
    port: int = 0
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    artifacts: ArtifactRules = ArtifactRules()
    start_timeout_s: float = 30.0
    side_by_side: bool = True

    @property
    def driver(self) -> str:
        return _DRIVERS[type(self.run)]

    def __repr__(self) -> str:
        """Without `env`, which may hold secrets."""
        return f"RoleService({self.role!r}, {self.service!r}, {self.run!r})"


def check_word(text: str) -> str:
    """A word of a command line, in which only known placeholders stand. Raises ValueError with what was expected."""
    for found in _PLACEHOLDER.finditer(text):
        name = found[1]
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            near = get_close_matches(name, PLACEHOLDERS, 1)
            raise ValueError(
                f"one of {known} instead of {{{name}}}" + (f"; did you mean {{{near[0]}}}?" if near else "")
            )
    return text


def filled(word: str, values: Mapping[str, str]) -> str:
    """The word with its placeholders replaced, each once: a value is never read again."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)
