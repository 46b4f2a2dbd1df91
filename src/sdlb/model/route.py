"""Route patterns: which requests a claim receives.

A pattern is `[host]/path` (contract, "Route patterns"). Host: exact, `*.suffix` (one or more labels) or `*`. Path: exact,
literal prefix (`/catalog*`) or segment prefix (`/catalog/*`). The most specific pattern that matches both host and path
wins: host first (exact, longest suffix, any), then path (exact, longest literal prefix).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from msgspec import Struct

from sdlb.model.problem import Invalid

PATTERN_CHARS_MAX = 1024
_LABEL = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_HEX = "0123456789abcdefABCDEF"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_CHARS = _UNRESERVED | frozenset(b"!$&'()+,=:@;/")  # RFC 3986 pchar and "/", without "*" and "%"
HIDDEN_DOTS = re.compile(r"(/|%2F)\.\.?(/|%2F|\Z)")
_EXAMPLE = "write it as host/path, for example example.com/catalog*"


def _invalid(text: str, what: str, do: str = _EXAMPLE) -> Invalid:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return Invalid("bad-route", f"route {shown!r}", what, do)


class Pattern(Struct, frozen=True, order=True):
    """`host`: "*", "*.suffix" or exact, as A-labels. `path`: canonical, with at most one `*`, at its end."""

    host: str
    path: str

    @staticmethod
    def parse(text: str) -> Pattern:
        """Raises Invalid. An absent host is `*`, an absent path is `/*`."""
        if not text or len(text) > PATTERN_CHARS_MAX:
            raise _invalid(text, f"is empty or longer than {PATTERN_CHARS_MAX} characters")
        if "://" in text:
            raise _invalid(text, "has a scheme", "leave http:// or https:// out: a route is host/path")
        host, slash, rest = text.partition("/")
        return Pattern(_pattern_host(text, host), _pattern_path(text, slash + rest) if slash else "/*")

    def __str__(self) -> str:
        return f"{self.host}{self.path}"

    # ------------------------------------------------------------------ matching

    def matches_host(self, host: str) -> bool:
        if self.host == "*":
            return True
        if self.host.startswith("*."):
            suffix = self.host[1:]
            return host.endswith(suffix) and len(host) > len(suffix)
        return host == self.host

    def matches(self, host: str, path: str) -> bool:
        """`host` and `path` canonical, the path without its query."""
        if not self.matches_host(host):
            return False
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return path == self.path

    @property
    def specificity(self) -> tuple[int, int, int, int]:
        """The greater one wins. Two different patterns that match the same request never have equal values."""
        if self.host == "*":
            kind, labels = 0, 0
        elif self.host.startswith("*."):
            kind, labels = 1, len(self.host)
        else:
            kind, labels = 2, 0
        return (kind, labels, 0 if self.path.endswith("*") else 1, len(self.path))

    # ------------------------------------------------------------------ two patterns

    def hosts(self) -> list[str]:
        """The host of this pattern and all less specific ones, the most specific first."""
        hosts = [self.host]
        rest = self.host.removeprefix("*.")
        while self.host != "*" and (rest := rest.partition(".")[2]):
            hosts.append(f"*.{rest}")
        if self.host != "*":
            hosts.append("*")
        return hosts

    def wider(self) -> Iterator[Pattern]:
        """All less specific patterns that match everything that this one matches, the most specific first.

        Their number is that of the path's characters times the host's labels.
        """
        literal = self.path.removesuffix("*")
        paths = [f"{literal[:size]}*" for size in range(len(literal), 0, -1)]
        if self.path != f"{literal}*":
            paths.insert(0, self.path)
        for host in self.hosts():
            for path in paths:
                if (host, path) != (self.host, self.path):
                    yield Pattern(host, path)

    def overlaps(self, other: Pattern) -> bool:
        """Whether a request can match both."""
        return _hosts_overlap(self.host, other.host) and _paths_overlap(self.path, other.path)

    def shadows(self, other: Pattern) -> bool:
        """Whether this pattern receives requests that `other` would receive without it."""
        return self != other and self.overlaps(other) and self.specificity > other.specificity


def _hosts_overlap(a: str, b: str) -> bool:
    if a == "*" or b == "*" or a == b:
        return True
    if a.startswith("*.") and b.startswith("*."):
        return a.endswith(b[1:]) or b.endswith(a[1:])
    for wild, exact in ((a, b), (b, a)):
        if wild.startswith("*."):
            return exact.endswith(wild[1:])
    return False


def _paths_overlap(a: str, b: str) -> bool:
    if a.endswith("*") and b.endswith("*"):
        return a[:-1].startswith(b[:-1]) or b[:-1].startswith(a[:-1])
    if a.endswith("*"):
        return b.startswith(a[:-1])
    if b.endswith("*"):
        return a.startswith(b[:-1])
    return a == b


def best(patterns: Iterable[Pattern], host: str, path: str) -> Pattern | None:
    """The pattern that wins the request, or None."""
    return max((p for p in patterns if p.matches(host, path)), key=lambda p: p.specificity, default=None)


# ---------------------------------------------------------------------- parts of a pattern


def _pattern_host(text: str, host: str) -> str:
    if host in ("", "*"):
        return "*"
    suffix = host.removeprefix("*.")
    if "*" in suffix:
        raise _invalid(text, "has a * inside the host", "a * stands for the whole first labels only: *.example.com")
    try:
        name = canonical_host(suffix)
    except Invalid as problem:
        raise _invalid(text, problem.what, problem.do) from None
    if suffix != host and name.startswith("["):
        raise _invalid(text, "has a wildcard before an address", "name the address itself")
    return f"*.{name}" if suffix != host else name


def _pattern_path(text: str, path: str) -> str:
    body = path.removesuffix("*")
    if "*" in body:
        raise _invalid(text, "has a * inside the path", "a * stands at the end of a path only")
    if "?" in body or "#" in body:
        raise _invalid(text, "has a query or fragment", "a route matches paths; leave ? and # out")
    try:
        canonical = canonical_path(body)
    except Invalid as problem:
        raise _invalid(text, problem.what, problem.do) from None
    if canonical != body:
        raise _invalid(text, f"is not in canonical form, which is {canonical!r}", "write the canonical form")
    return path


@lru_cache(maxsize=65536)
def canonical_host(text: str) -> str:
    """Lower-case A-labels without port or final dot; an address stays one (IPv6 in brackets). Raises Invalid."""
    host = _without_port(text).removesuffix(".")
    where = f"host {text[:80]!r}"
    if host.startswith("["):
        return _address(host, where)
    try:
        name = host.lower() if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        do = "write the host as its A-labels (xn--...)"
        raise Invalid("bad-host", where, "has a label that IDNA refuses", do) from None
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        do = "use letters, digits and hyphens, labels of 1 to 63 characters"
        raise Invalid("bad-host", where, "is not a host name", do)
    return name


def _without_port(text: str) -> str:
    if text.startswith("["):
        end = text.find("]")
        host, port = text[: end + 1], text[end + 1 :]
    else:
        host, colon, digits = text.partition(":")
        port = colon + digits
    if port and (not port[1:].isdigit() or not port.startswith(":") or not port.isascii() or int(port[1:]) > 65535):
        raise Invalid("bad-host", f"host {text[:80]!r}", "has an invalid port", "write host or host:port")
    return host


def _address(host: str, where: str) -> str:
    from ipaddress import IPv6Address

    try:
        return f"[{IPv6Address(host[1:-1])}]"
    except ValueError:
        raise Invalid("bad-host", where, "is not an IPv6 address", "write it as [2001:db8::1]") from None


def canonical_path(text: str) -> str:
    """The path as it is matched and forwarded: dot segments resolved, percent-encoding normalised (RFC 3986, 6.2.2).

    Raises Invalid for a path that two parsers could read differently: one with an encoded backslash or control character, or
    with a dot segment beside an encoded slash. An encoded slash is kept; the policy's `path.encoded_slash` decides about it.
    """
    where = f"path {text[:80]!r}"
    if not text.startswith("/"):
        raise Invalid("bad-path", where, "does not start with /", "paths are absolute")
    if not text.isascii():
        raise Invalid("bad-path", where, "has characters outside ASCII", "percent-encode them as UTF-8")
    path = remove_dot_segments(_normal_encoding(text, where))
    if "%2F" in path and HIDDEN_DOTS.search(path):
        raise Invalid("bad-path", where, "has a dot segment beside an encoded slash", "leave the dots out")
    return path


def _normal_encoding(text: str, where: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "%":
            digits = text[at + 1 : at + 3]
            if len(digits) != 2 or digits[0] not in _HEX or digits[1] not in _HEX:
                raise Invalid("bad-path", where, "has a % that is not followed by two hex digits", "write it as %25")
            byte = int(digits, 16)
            if byte < 0x20 or byte == 0x7F or byte == 0x5C:
                raise Invalid("bad-path", where, f"has %{digits}", "encoded backslashes and control bytes are refused")
            out.append(chr(byte) if byte in _UNRESERVED else f"%{digits.upper()}")
            at += 3
            continue
        if ord(char) not in _PATH_CHARS and char != "*":
            raise Invalid("bad-path", where, f"has the character {char!r}", "percent-encode it")
        out.append(char)
        at += 1
    return "".join(out)


def remove_dot_segments(path: str) -> str:
    """RFC 3986, 5.2.4, for absolute paths. Empty segments (//) are kept, because some services give them a meaning."""
    if "/." not in path:
        return path
    out: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == ".":
            continue
        if segment == "..":
            if out:
                out.pop()
            continue
        out.append(segment)
    if segments[-1] in (".", ".."):
        out.append("")
    return "/" + "/".join(out)
