"""`roles` and `[role.ROLE.SERVICE]` of the node file: how this node runs the services of its roles."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar, cast

from sdlb.model.address import check_name
from sdlb.model.instance import HealthCheck
from sdlb.model.location import parse_prefix
from sdlb.model.problem import Invalid
from sdlb.model.role import ArtifactRules, RoleService
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, parse_declaration
from sdlb.node.config_programs import read_env
from sdlb.node.config_reader import Reader, one_of
from sdlb.node.config_runs import RUN_KEYS, read_run
from sdlb.node.specs import PROTOCOLS, Health, read_health

SERVICES_MAX = 256
SERVICE_KEYS = (
    *("driver", "routes", "health", "protocol", "compatible", "capacity", "port", "env", "start_timeout_s"),
    "side_by_side",
)
KEYS = (*SERVICE_KEYS, *RUN_KEYS)
HEALTH_KEYS = ("kind", "path", "interval_s", "timeout_s", "rise", "fall", "host", "status")
T = TypeVar("T")


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
    run = read_run(table)
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


def _artifacts(table: Reader) -> ArtifactRules:
    sources = table.texts("from", _prefix, 'prefixes like "https://repo.example/"')
    keys = table.paths("keys", 8)
    if keys and not sources:
        table.refuse("keys", "needs `from`", "list the prefixes of the artifacts, or remove the line")
    return ArtifactRules(
        tuple(parse_prefix(source) for source in sources),
        keys,
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
