"""The part of `[role.ROLE.SERVICE]` that says what a driver runs. Each driver has keys of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sdlb.model.role import DOCKER_SOCKET, Commands, Container, Program, Restart, Run, Unit, check_word
from sdlb.node.config_programs import read_command, read_words
from sdlb.node.config_reader import Reader, one_of

PROGRAM_KEYS = ("command", "user", "memory_mb", "cpu", "cwd", "stop_timeout_s", "restart", "log_bytes_max")
COMMANDS_KEYS = ("prepare", "start", "stop", "state", "forget", "timeout_s")
CONTAINER_KEYS = (
    *("command", "container_port", "user", "memory_mb", "cpu", "stop_timeout_s", "log_bytes_max", "socket"),
)
UNIT_KEYS = ("unit", "timeout_s")
FILE_KEYS = ("from", "keys", "artifact_mb_max", "fetch_timeout_s")
IMAGE_KEYS = ("from", "fetch_timeout_s")
KEYS_OF: Final = {
    "process": (*PROGRAM_KEYS, *FILE_KEYS),
    "command": (*COMMANDS_KEYS, *FILE_KEYS),
    "container": (*CONTAINER_KEYS, *IMAGE_KEYS),
    "systemd": (*UNIT_KEYS, *FILE_KEYS),
}
RUN_KEYS = tuple(dict.fromkeys(key for keys in KEYS_OF.values() for key in keys))
RESTART_KEYS = ("first_s", "max_s", "stable_s")
_USER = re.compile(r"^[a-z_][a-z0-9_-]{0,30}\$?\Z", re.IGNORECASE)
_CONTAINER_USER = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?\Z")
_UNIT = re.compile(r"^[A-Za-z0-9:_.-]{1,200}@\.service\Z")
_COMMAND = 'a list: the program and its arguments, for example ["./catalog", "--port", "{port}"]'
_ARGUMENTS = 'a list of arguments for the image, for example ["--port", "{port}"]'


def read_run(table: Reader) -> Run:
    """Raises Invalid, also for a key of another driver."""
    kinds = tuple(KEYS_OF)
    known = ", ".join(f'"{kind}"' for kind in kinds)
    if "driver" not in table:
        table.refuse("driver", "is missing", f"expected one of {known}")
    driver = table.text("driver", "", one_of(*kinds))
    for key in RUN_KEYS:
        if key in table and key not in KEYS_OF[driver]:
            table.refuse(key, f'is not a key of driver = "{driver}"', f"use {', '.join(KEYS_OF[driver])}")
    return _READERS[driver](table)


def _program(table: Reader) -> Program:
    words = _words(table, _COMMAND)
    first = words[0]
    if "/" not in first or ".." in first.split("/") or "{" in first:
        do = f'did you mean "./{first}"?' if first.isalnum() else 'write "./catalog" or "/usr/bin/catalog"'
        table.refuse("command", f"starts with {first[:60]!r}, which is no path of a program", do)
    cwd = table.path("cwd")
    return Program(
        words,
        table.text("user", "", _matches(_USER, "the name of a user")),
        table.whole("memory_mb", 0, 0, 1 << 24),
        table.number("cpu", 0.0, 0, 4096),
        "" if cwd is None else str(cwd),
        table.number("stop_timeout_s", 10.0, 0, 86_400),
        _restart(table),
        table.whole("log_bytes_max", 10 << 20, 64 << 10, 1 << 40),
    )


def _restart(table: Reader) -> Restart:
    inner = table.table("restart", RESTART_KEYS)
    first_s = inner.number("first_s", 1.0, 0.01, 3600)
    max_s = inner.number("max_s", max(60.0, first_s), 0.01, 86_400)
    if max_s < first_s:
        inner.fail("max_s", f"at least first_s ({first_s:g})")
    return Restart(first_s, max_s, inner.number("stable_s", 60.0, 0.01, 86_400))


def _commands(table: Reader) -> Commands:
    start, stop, state = (read_command(table, key) for key in ("start", "stop", "state"))
    prepare, forget = (read_command(table, key) if key in table else () for key in ("prepare", "forget"))
    return Commands(start, stop, state, prepare, forget, table.number("timeout_s", 60.0, 0.1, 86_400))


def _container(table: Reader) -> Container:
    words = _words(table, _ARGUMENTS) if "command" in table else ()
    for word in words:
        if "{folder}" in word:
            table.refuse("command", "has {folder}, which a container does not have", "use a path inside the image")
    return Container(
        words,
        table.whole("container_port", 0, 0, 65535),
        table.text("user", "", _matches(_CONTAINER_USER, 'a user of the image: "NAME", "UID" or "UID:GID"')),
        table.whole("memory_mb", 0, 0, 1 << 24),
        table.number("cpu", 0.0, 0, 4096),
        table.number("stop_timeout_s", 10.0, 0, 86_400),
        table.whole("log_bytes_max", 10 << 20, 64 << 10, 1 << 40),
        str(table.path("socket") or DOCKER_SOCKET),
    )


def _unit(table: Reader) -> Unit:
    expected = 'a template unit, for example "catalog@.service"'
    if "unit" not in table:
        table.refuse("unit", "is missing", f"expected {expected}")
    return Unit(table.text("unit", "", _matches(_UNIT, expected)), table.number("timeout_s", 60.0, 0.1, 86_400))


_READERS: dict[str, Callable[[Reader], Run]] = {
    "process": _program,
    "command": _commands,
    "container": _container,
    "systemd": _unit,
}


def _words(table: Reader, expected: str) -> tuple[str, ...]:
    """A list of words in which only known placeholders stand."""
    words = read_words(table, "command", expected)
    for word in words:
        try:
            check_word(word)
        except ValueError as error:
            table.fail("command", str(error))
    return words


def _matches(pattern: re.Pattern[str], expected: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(expected)
        return text

    return check
