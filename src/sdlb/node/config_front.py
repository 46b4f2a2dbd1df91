"""`redirect`, `security_headers` and `error_pages` of a `[[site]]`. The pages are read by `node.pem`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from sdlb.model.front import (
    SECURITY_FIELDS,
    Redirect,
    check_field,
    check_prefix,
    check_statuses,
    check_target,
    loop_of,
)
from sdlb.model.site import FrontSpec, PemFile, SiteSpec
from sdlb.node.config_reader import Reader

T = TypeVar("T")
KEYS = ("redirect", "security_headers", "error_pages")
REDIRECTS_MAX = 256
FIELDS_MAX = 64
PAGES_MAX = 32


def read_front(site: Reader) -> FrontSpec:
    """Raises Invalid."""
    return FrontSpec(_redirects(site), _fields(site), _pages(site))


def _redirects(site: Reader) -> tuple[tuple[str, str], ...]:
    value = site.get("redirect")
    if value is None:
        return ()
    if not isinstance(value, dict):
        return (("", site.text("redirect", "", check_target)),)
    table = site.table("redirect", ())
    found: dict[str, str] = {}
    for key in _keys(site, "redirect", REDIRECTS_MAX):
        prefix = _checked(table, key, check_prefix)
        if prefix in found:
            table.refuse(key, "is the same as another prefix", "list each prefix once")
        found[prefix] = table.text(key, "", check_target)
    return tuple(found.items())


def _fields(site: Reader) -> tuple[tuple[str, str], ...]:
    value = site.get("security_headers")
    if isinstance(value, bool) or value is None:
        return SECURITY_FIELDS if value else ()
    if not isinstance(value, dict):
        site.fail("security_headers", 'true, false, or a table such as {"X-Frame-Options" = "DENY"}')
    table = site.table("security_headers", ())
    found: dict[str, str] = {}
    for key in _keys(site, "security_headers", FIELDS_MAX):
        try:
            name, text = check_field(key, table.get(key))
        except ValueError as error:
            table.fail(key, str(error))
        if name in found:
            table.refuse(key, "is the same as another name", "list each header field once")
        found[name] = text
    return tuple(found.items())


def _pages(site: Reader) -> tuple[tuple[tuple[int, int], PemFile], ...]:
    """Pages of one status first: they win over those of a class."""
    if "error_pages" not in site:
        return ()
    table = site.table("error_pages", ())
    found: list[tuple[tuple[int, int], PemFile]] = []
    for key in _keys(site, "error_pages", PAGES_MAX):
        statuses = _checked(table, key, check_statuses)
        path = table.path(key)
        if path is None:
            table.fail(key, "the absolute path of an HTML file")
        found.append(((statuses[0], statuses[-1]), PemFile(str(path), table.place(key))))
    return tuple(sorted(found, key=lambda page: (page[0][1] - page[0][0], page[0])))


def _keys(site: Reader, name: str, most: int) -> list[str]:
    keys = list(cast("dict[str, object]", site.get(name)))
    if len(keys) > most:
        site.refuse(name, f"has {len(keys)} entries", f"use at most {most}")
    return keys


def _checked(table: Reader, key: str, check: Callable[[str], T]) -> T:
    try:
        return check(key)
    except ValueError as error:
        table.refuse(key, "is not a valid key", f"expected {error}")


def refuse_loops(sites: Sequence[tuple[Reader, SiteSpec]], ports: Sequence[int]) -> None:
    """Raises Invalid for a redirect that leads back to itself, over whatever sites of this node."""
    rules = [(spec.hosts, [Redirect(prefix, target) for prefix, target in spec.front.redirects]) for _, spec in sites]
    for (site, _), (_, redirects) in zip(sites, rules, strict=True):
        for redirect in redirects:
            if urls := loop_of(rules, redirect, ports):
                site.refuse(
                    "redirect",
                    f"leads back to itself by {' and '.join(urls[:4])}",
                    "redirect to a URL of another site or path",
                )
