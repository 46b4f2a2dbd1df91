"""What a site answers or adds by itself: redirects, response header fields, and pages for errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from sdlb.model.route import Pattern
from sdlb.model.site import check_site_host

PAGE_BYTES_MAX: Final = 64 << 10
TEXT_CHARS_MAX: Final = 4096
SECURITY_FIELDS: Final = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
)
"""The fields of `security_headers = true`: safe for nearly every site. A content security policy depends on the site."""
_TOKEN: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_FRAMING: Final = re.compile(
    r"connection|content-(encoding|length|range|type)|date|keep-alive|location|proxy-.*|sdlb-.*|set-cookie|te|trailer|"
    r"transfer-encoding|upgrade|via|www-authenticate"
)
"""Fields that frame or describe one response: the same value for all would be wrong."""
_STATUS: Final = re.compile(r"[45](xx|[0-9][0-9])")


class Redirect(Struct, frozen=True):
    """`prefix`: whole segments of a path, without a final slash; "": every path. What follows it is appended to `target`."""

    prefix: str
    target: str

    def matches(self, path: str) -> bool:
        return path == self.prefix or path.startswith(f"{self.prefix}/")


def check_prefix(text: str) -> str:
    """The prefix without its final slash. Raises ValueError with what was expected."""
    if not text.startswith("/") or len(text) > TEXT_CHARS_MAX or re.search(r"[^!-~]|[?#*]|//|/\.\.?(/|$)", text):
        raise ValueError('a path that starts with / and has no *, query or dot segments, for example "/old"')
    return text.rstrip("/")


def check_target(text: str) -> str:
    """The URL without its final slash. Raises ValueError with what was expected."""
    expected = 'a URL without user, query and fragment, for example "https://example.com/new"'
    if len(text) > TEXT_CHARS_MAX or re.search(r"[^!-~]|[?#\\]", text):
        raise ValueError(expected)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(expected) from None
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or port == 0:
        raise ValueError(expected)
    return text.rstrip("/")


def check_field(name: str, value: object) -> tuple[str, str]:
    """The name in lower case, and the value. Raises ValueError with what was expected."""
    lower = name.lower()
    if not _TOKEN.fullmatch(lower) or _FRAMING.fullmatch(lower):
        raise ValueError("the name of a header field that may be the same in all responses")
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_CHARS_MAX or re.search(r"[^ -~]", value):
        raise ValueError("a value of printable ASCII characters")
    return lower, value


def check_statuses(text: str) -> range:
    """`404`, `4xx` or `5xx`. Raises ValueError with what was expected."""
    if not _STATUS.fullmatch(text):
        raise ValueError('a status from 400 to 599, "4xx" or "5xx"')
    first = int(text.replace("x", "0"))
    return range(first, first + (100 if text.endswith("xx") else 1))


# ------------------------------------------------------------------ loops


Rules = Sequence[tuple[Sequence[str], Sequence[Redirect]]]
"""Hosts and redirects of each site."""


def loop_of(rules: Rules, start: Redirect, ports: Iterable[int]) -> list[str]:
    """The URLs that a client is sent to from `start` when it never arrives; empty: it does. `ports`: those of this node."""
    target, urls, seen = start.target, list[str](), {id(start)}
    while (found := _next(rules, target, {80, 443, *ports})) is not None:
        urls.append(target)
        target, rule = found
        if id(rule) in seen:
            return urls
        seen.add(id(rule))
    return []


def _next(rules: Rules, target: str, ports: set[int]) -> tuple[str, Redirect] | None:
    url = urlsplit(target)
    if url.port is not None and url.port not in ports:
        return None
    path = url.path or "/"
    for redirects in _of_host(rules, url.hostname or ""):
        fits = [redirect for redirect in redirects if redirect.matches(path)]
        if fits:
            rule = max(fits, key=lambda redirect: len(redirect.prefix))
            return rule.target + path[len(rule.prefix) :], rule
    return None


def _of_host(rules: Rules, host: str) -> Iterator[Sequence[Redirect]]:
    """The redirects of the site that has the host: one, or none."""
    try:
        host = check_site_host(host)
    except ValueError:
        host = ""  # an address: the site of all others
    for name in Pattern(host, "/*").hosts():
        for hosts, redirects in rules:
            if name in hosts:
                yield redirects
                return
