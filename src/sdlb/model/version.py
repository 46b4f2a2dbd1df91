"""Versions, and which of them may serve side by side (contract, "Versions").

Compatibility is symmetric: the declaration of one version is enough. An operator's explicit allow or deny overrides both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from sdlb.model.problem import Invalid

NAME_CHARS_MAX = 128
PARTS_MAX = 8
CONDITIONS_MAX = 8
SCHEMES = ("numeric", "semver", "opaque")
RULES = ("patch", "minor", "exact", "any")

SERVICE = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
PREFIX = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")
"""The first characters of a service name."""
VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+~-]*\Z")
_NUMERIC = re.compile(r"^[0-9]{1,18}(\.[0-9]{1,18})*\Z")
_SEMVER = re.compile(
    r"^(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})"
    r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z"
)
_CONDITION = re.compile(r"^(>=|<=|==|=|>|<)?\s*(.+)\Z")

SortKey = tuple[tuple[int, int, str], ...]


def split_name(text: str) -> tuple[str, str]:
    """`catalog-1.0.1` -> ("catalog", "1.0.1"): the version starts after the last `-` before a digit. Raises Invalid."""
    for at in range(len(text) - 2, 0, -1):
        if text[at] == "-" and text[at + 1] in "0123456789":
            return text[:at], text[at + 1 :]
    do = "write it as NAME-VERSION, for example catalog-1.0.1, or use --service and --version"
    raise Invalid("bad-name", f"instance name {text[:80]!r}", "has no version", do)


def check_service(text: str) -> str:
    """Returns `text` if it is a service name. Raises Invalid."""
    if len(text) > NAME_CHARS_MAX or not SERVICE.match(text):
        do = f"use 1 to {NAME_CHARS_MAX} letters, digits, dots, hyphens and underscores, a letter or digit at both ends"
        raise Invalid("bad-service", f"service {text[:80]!r}", "is not a service name", do)
    return text


def check_version(text: str, scheme: str = "opaque") -> str:
    """Returns `text` if it is a version of the scheme; "opaque" allows any identifier. Raises Invalid."""
    where = f"version {text[:80]!r}"
    if len(text) > NAME_CHARS_MAX or not VERSION.match(text):
        do = f"use 1 to {NAME_CHARS_MAX} letters, digits and . _ + ~ -, the first a letter or digit"
        raise Invalid("bad-version", where, "is not a version", do)
    if scheme == "numeric" and (not _NUMERIC.match(text) or text.count(".") >= PARTS_MAX):
        do = f"write up to {PARTS_MAX} numbers with dots, like 1.0.1, or set the service's scheme to semver or opaque"
        raise Invalid("bad-version", where, "is not numeric", do)
    if scheme == "semver" and not _SEMVER.match(text):
        raise Invalid(
            "bad-version", where, "is not a semantic version", "write it like 1.0.1 or 1.0.1-rc.1 (semver.org)"
        )
    return text


@lru_cache(maxsize=65536)
def parts(version: str) -> tuple[int, ...] | None:
    """The numbers of a numeric version, or of the core of a semantic version. None for anything else."""
    core = re.split(r"[-+]", version, maxsplit=1)[0]
    if not _NUMERIC.match(core) or core.count(".") >= PARTS_MAX:
        return None
    return tuple(int(part) for part in core.split("."))


@lru_cache(maxsize=65536)
def sort_key(version: str, scheme: str = "numeric") -> SortKey:
    """Sort key: by numbers, semver pre-releases before their release (semver.org, 11), other versions by text."""
    numbers = parts(version)
    if scheme == "opaque" or numbers is None:
        return ((0, 0, version),)
    key: list[tuple[int, int, str]] = [(1, number, "") for number in numbers]
    pre = version.split("+", 1)[0].partition("-")[2] if scheme == "semver" else ""
    if scheme == "semver":
        key.append((2, 0, "") if not pre else (0, 0, ""))
        for part in pre.split(".") if pre else ():
            key.append((1, int(part), "") if part.isdigit() else (2, 0, part))
    key.append((-1, 0, version))
    return tuple(key)


# ---------------------------------------------------------------------- declarations


@lru_cache(maxsize=16384)
def parse_declaration(text: str) -> tuple[tuple[str, str], ...]:
    """`>=1.0,<1.2` -> ((">=", "1.0"), ("<", "1.2")); an identifier `1.4.2` -> (("=", "1.4.2"),). Raises Invalid."""
    where = f"compatible {text[:80]!r}"
    if not text or len(text) > 256:
        raise Invalid(
            "bad-compatible", where, "is empty or longer than 256 characters", "write '>=1.0,<1.2' or a version"
        )
    conditions: list[tuple[str, str]] = []
    if not text.isprintable():
        raise Invalid(
            "bad-compatible", where, "has a line break or control character", "write '>=1.0,<1.2' or a version"
        )
    for item in text.split(","):
        match = _CONDITION.match(item.strip())
        operator, version = (match.group(1) or "=", match.group(2).strip()) if match else ("", "")
        operator = "=" if operator == "==" else operator
        try:
            check_version(version, "opaque")
        except Invalid:
            raise Invalid(
                "bad-compatible", where, f"{item!r} is not a condition", "write '>=1.0,<1.2' or a version"
            ) from None
        if operator != "=" and parts(version) is None:
            raise Invalid(
                "bad-compatible", where, f"{version!r} cannot be compared", "compare with numbers, for example 1.2"
            )
        conditions.append((operator, version))
    if len(conditions) > CONDITIONS_MAX:
        raise Invalid("bad-compatible", where, f"has more than {CONDITIONS_MAX} conditions", "write fewer")
    return tuple(conditions)


def _declares(declarations: Iterable[str], version: str) -> bool:
    return any(all(_holds(version, op, bound) for op, bound in parse_declaration(text)) for text in declarations)


def matches(version: str, declarations: Iterable[str]) -> bool:
    """Whether the version is in one of the ranges, or one of the identifiers."""
    return _declares(declarations, version)


def _holds(version: str, operator: str, bound: str) -> bool:
    if operator == "=":
        return version == bound
    numbers, limit = parts(version), parts(bound)
    if numbers is None or limit is None:
        return False
    size = max(len(numbers), len(limit))
    a = numbers + (0,) * (size - len(numbers))
    b = limit + (0,) * (size - len(limit))
    return {">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b}[operator]


# ---------------------------------------------------------------------- the rule of a service


class Compatibility(Struct, frozen=True):
    """The compatibility rules of a service. `ranges`: versions within the same range are compatible. `allow`, `deny`: pairs
    that override all other rules; deny overrides allow."""

    scheme: str = "numeric"
    rule: str = "patch"
    ranges: tuple[str, ...] = ()
    allow: tuple[tuple[str, str], ...] = ()
    deny: tuple[tuple[str, str], ...] = ()

    def compatible(self, a: str, b: str, declared_a: tuple[str, ...] = (), declared_b: tuple[str, ...] = ()) -> bool:
        """Whether two versions may serve side by side. Symmetric; a version is compatible with itself.

        `declared_a`, `declared_b`: what the instances of each version declare, as in `parse_declaration`.
        """
        return a == b or _compatible(self, a, b, declared_a, declared_b)


@lru_cache(maxsize=8192)  # pairs; a service with hundreds of versions has tens of thousands of them
def _compatible(rules: Compatibility, a: str, b: str, declared_a: tuple[str, ...], declared_b: tuple[str, ...]) -> bool:
    if (a, b) in rules.deny or (b, a) in rules.deny:
        return False
    if (a, b) in rules.allow or (b, a) in rules.allow:
        return True
    if _declares(declared_a, b) or _declares(declared_b, a):
        return True
    if any(_declares((text,), a) and _declares((text,), b) for text in rules.ranges):
        return True
    return _by_rule(rules, a, b)


def _by_rule(rules: Compatibility, a: str, b: str) -> bool:
    if rules.rule == "any":
        return True
    if rules.rule == "exact" or rules.scheme == "opaque":
        return False
    first, second = parts(a), parts(b)
    if first is None or second is None:
        return False
    if rules.rule == "minor":
        return first[0] == second[0]
    return len(first) == len(second) and len(first) > 1 and first[:-1] == second[:-1]
