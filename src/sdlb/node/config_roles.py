"""`roles` and `[role.ROLE.SERVICE]` of the node file: how this node runs the services of its roles."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar, cast

from sdlb.model.address import check_name
from sdlb.model.instance import HealthCheck
from sdlb.model.location import parse_prefix
from sdlb.model.problem import Invalid
from sdlb.model.role import ArtifactRules, Commands, Program, Restart, RoleService, check_word
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, parse_declaration
from sdlb.node.config_programs import read_command, read_env, read_words
from sdlb.node.config_reader import Reader, one_of
from sdlb.node.specs import PROTOCOLS, Health, read_health

SERVICES_MAX = 256
PROGRAM_KEYS = ("command", "user", "memory_mb", "cpu", "cwd", "stop_timeout_s", "restart", "log_bytes_max")
COMMANDS_KEYS = ("prepare", "start", "stop", "state", "forget", "timeout_s")
ARTIFACT_KEYS = ("from", "keys", "artifact_mb_max", "fetch_timeout_s")
SERVICE_KEYS = (
    *("driver", "routes", "health", "protocol", "compatible", "capacity", "port", "env", "start_timeout_s"),
    "side_by_side",
)
KEYS = (*SERVICE_KEYS, *ARTIFACT_KEYS, *PROGRAM_KEYS, *COMMANDS_KEYS)
HEALTH_KEYS = ("kind", "path", "interval_s", "timeout_s", "rise", "fall", "host", "status")
RESTART_KEYS = ("first_s", "max_s", "stable_s")
T = TypeVar("T")
LATER = ("systemd", "container")
_USER = re.compile(r"^[a-z_][a-z0-9_-]{0,30}\$?\Z", re.IGNORECASE)
_COMMAND = 'a list: the program and its arguments, for example ["./catalog", "--port", "{port}"]'


def read_roles(top: Reader) -> tuple[tuple[str, ...], tuple[RoleService, ...]]:
    """The names in `roles`, and the services of the tables. Raises Invalid."""
    roles = top.texts("roles", check_name, "names of roles")
    if "role" not in top:
        return roles, ()
    found: list[RoleService] = []
    all_roles = _tables(top, "role", "[role.ROLE.SERVICE]")
    for role in _names(top, "role"):
        if role not in roles:
            near = get_close_matches(role, roles, 1)
            do = f"did you mean {near[0]!r}?" if near else f'add it: roles = ["{role}"]'
            all_roles.refuse(role, "is not in `roles`", do)
        services = _tables(all_roles, role, f"[role.{role}.SERVICE]")
        for service in _names(all_roles, role):
            try:
                check_service(service)
            except Invalid as error:
                services.refuse(service, error.what, error.do)
            found.append(_service(_tables(services, service, f"[role.{role}.{service}]", KEYS), role, service))
    if len(found) > SERVICES_MAX:
        top.refuse("role", f"has {len(found)} services", f"use at most {SERVICES_MAX}")
    return roles, tuple(found)


def _names(above: Reader, key: str) -> list[str]:
    return list(cast("dict[str, object]", above.get(key)))


def _tables(above: Reader, key: str, example: str, keys: tuple[str, ...] = ()) -> Reader:
    if not isinstance(above.get(key), dict):
        above.fail(key, f"a table: write {example}")
    return above.table(key, keys)


def _service(table: Reader, role: str, service: str) -> RoleService:
    driver = _driver(table)
    run = _program(table) if driver == "process" else _commands(table)
    return RoleService(
        role,
        service,
        run,
        _routes(table),
        _health(table),
        table.text("protocol", "http1", one_of(*PROTOCOLS)),
        _compatible(table),
        table.whole("capacity", 100, 1, 1_000_000),
        table.whole("port", 0, 0, 65535),
        read_env(table),
        _artifacts(table),
        table.number("start_timeout_s", 30.0, 0.1, 86_400),
        table.flag("side_by_side", True),
    )


def _driver(table: Reader) -> str:
    if "driver" not in table:
        table.refuse("driver", "is missing", 'expected "process" or "command"')
    driver = table.text("driver", "", one_of("process", "command", *LATER))
    if driver in LATER:
        table.later("driver", f"the driver {driver}", 'use "process" or "command"')
    others = COMMANDS_KEYS if driver == "process" else PROGRAM_KEYS
    for key in others:
        if key in table:
            its = PROGRAM_KEYS if driver == "process" else COMMANDS_KEYS
            table.refuse(key, f'is not a key of driver = "{driver}"', f"use {', '.join(its)}")
    return driver


def _program(table: Reader) -> Program:
    words = read_words(table, "command", _COMMAND)
    for word in words:
        try:
            check_word(word)
        except ValueError as error:
            table.fail("command", str(error))
    first = words[0]
    if "/" not in first or ".." in first.split("/") or "{" in first:
        do = f'did you mean "./{first}"?' if first.isalnum() else 'write "./catalog" or "/usr/bin/catalog"'
        table.refuse("command", f"starts with {first[:60]!r}, which is no path of a program", do)
    cwd = table.path("cwd")
    return Program(
        words,
        table.text("user", "", _user),
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


def _artifacts(table: Reader) -> ArtifactRules:
    sources = table.texts("from", _prefix, 'prefixes like "https://repo.example/"')
    keys = table.paths("keys", 8)
    if keys and not sources:
        table.refuse("keys", "needs `from`", "list the prefixes of the artifacts, or remove the line")
    return ArtifactRules(
        tuple(parse_prefix(source) for source in sources),
        tuple(str(key) for key in keys),
        table.whole("artifact_mb_max", 2048, 1, 1 << 20),
        table.number("fetch_timeout_s", 600.0, 1, 86_400),
    )


def _prefix(text: str) -> str:
    return str(parse_prefix(text))


def _health(table: Reader) -> HealthCheck:
    inner, usual = table.table("health", HEALTH_KEYS), HealthCheck()
    health = Health(
        inner.text("kind", usual.kind, one_of("http", "tcp", "none")),
        inner.text("path", usual.path),
        inner.number("interval_s", usual.interval_s, 0.05, 3600),
        inner.number("timeout_s", usual.timeout_s, 0.01, 600),
        inner.whole("rise", usual.rise, 1, 100),
        inner.whole("fall", usual.fall, 1, 100),
        inner.text("host", usual.host),
        inner.text("status", usual.status),
    )
    try:
        return read_health("", health)
    except Invalid as error:
        table.refuse("health", error.what, error.do)


def _routes(table: Reader) -> tuple[str, ...]:
    texts = table.texts("routes", str, 'routes like "example.com/catalog*"')
    if not texts:
        table.refuse("routes", "is missing or empty", 'list the routes, for example ["example.com/catalog*"]')
    return tuple(dict.fromkeys(_each(table, "routes", texts, lambda text: str(Pattern.parse(text)))))


def _compatible(table: Reader) -> tuple[str, ...]:
    texts = table.texts("compatible", str, 'ranges or versions, for example [">=1.0,<1.2"]', 32)
    _each(table, "compatible", texts, parse_declaration)
    return texts


def _each(table: Reader, key: str, texts: tuple[str, ...], parse: Callable[[str], T]) -> list[T]:
    """`parse` raises Invalid."""
    try:
        return [parse(text) for text in texts]
    except Invalid as error:
        table.refuse(key, f"{error.where} {error.what}", error.do)


def _user(text: str) -> str:
    if not _USER.match(text):
        raise ValueError("the name of a user")
    return text
