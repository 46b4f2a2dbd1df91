"""A release: a version of a service that is available, with the digests of its artifacts. Read from a release file or the API.

A release never changes: `merged` accepts more platforms for a release that is known, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import NoReturn, cast

from msgspec import Struct

from sdlb.model.location import parse_location
from sdlb.model.problem import Invalid, shown
from sdlb.model.version import check_service, check_version, matches, parse_declaration, parts

CODE = "bad-release"
KEYS = ("service", "version", "requires", "artifact")
ARTIFACT_KEYS = ("url", "sha256", "signature")
LIST_MAX = 64
ANY = "any"
"""The platform of an artifact that runs on every machine."""
_PLATFORM = re.compile(r"^linux-[a-z0-9_]{1,32}\Z")
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
"""Other names of the machines that `uname -m` names on Linux."""
_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")
_REQUIRED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*([<>=].*)\Z")

Path = tuple[str, ...]
Place = Callable[[Path], str]
"""The place of a key in its file, for messages: "release.toml:3: artifact.any.url"."""


class Artifact(Struct, frozen=True):
    """`sha256`: of the file; for an OCI layout, of the image manifest. `signature`: where the minisign signature is; "": at the
    default place."""

    url: str
    sha256: str
    signature: str = ""


class Requirement(Struct, frozen=True):
    """`versions`: conditions as in `parse_declaration`, for example ">=3.1"."""

    service: str
    versions: str

    def __str__(self) -> str:
        return self.service + self.versions


class Release(Struct, frozen=True):
    """`artifacts`: by platform, sorted; none if the driver needs none."""

    service: str
    version: str
    requires: tuple[Requirement, ...] = ()
    artifacts: tuple[tuple[str, Artifact], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.service}-{self.version}"

    def artifact(self, platform: str) -> Artifact | None:
        """`platform`: "linux-x86_64" and the like."""
        found = dict(self.artifacts)
        return found.get(platform) or found.get(ANY)

    def to_data(self) -> dict[str, object]:
        """As `read_release` takes it."""
        data: dict[str, object] = {"service": self.service, "version": self.version}
        if self.requires:
            data["requires"] = [str(each) for each in self.requires]
        if self.artifacts:
            data["artifact"] = {
                platform: {
                    "url": each.url,
                    "sha256": each.sha256,
                    **({"signature": each.signature} if each.signature else {}),
                }
                for platform, each in self.artifacts
            }
        return data


def merged(known: Release, new: Release) -> Release:
    """Both, if they agree: `new` may add platforms. Raises Invalid, also for one digest that changes."""
    where = f"release {known.name}"
    if known.name != new.name or known.requires != new.requires:
        raise Invalid(
            CODE, where, "already exists with other requirements", "a release never changes: use a new version"
        )
    artifacts = dict(known.artifacts)
    for platform, artifact in new.artifacts:
        there = artifacts.setdefault(platform, artifact)
        if there.sha256 != artifact.sha256:
            what = f"already has the digest {there.sha256[:12]}... for {platform}, not {artifact.sha256[:12]}..."
            raise Invalid(CODE, where, what, "a release never changes: use a new version")
        artifacts[platform] = artifact
    return Release(known.service, known.version, known.requires, tuple(sorted(artifacts.items())))


# ---------------------------------------------------------------------- reading


def read_release(data: object, place: Place | str) -> Release:
    """`data`: as TOML or JSON gives it. `place`: where it comes from. Raises Invalid for the first mistake."""
    name = place if isinstance(place, str) else ""
    reader = _Reader(place if callable(place) else lambda path: ": ".join(filter(None, (name, ".".join(path)))))
    top = reader.table(data, (), KEYS)
    service = reader.checked(top, (), "service", check_service)
    version = reader.checked(top, (), "version", check_version)
    return Release(service, version, _requires(reader, top, service), _artifacts(reader, top))


class _Reader:
    def __init__(self, place: Place) -> None:
        self._place = place

    def fail(self, path: Path, what: str, do: str) -> NoReturn:
        raise Invalid(CODE, self._place(path), what, do)

    def table(self, data: object, path: Path, keys: tuple[str, ...] | None) -> Mapping[str, object]:
        """`keys` None: any."""
        if not isinstance(data, dict):
            self.fail(path, "is not a table", f"use the keys {', '.join(keys)}" if keys else "use a table")
        found = cast("dict[str, object]", data)
        for key in found:
            if keys is not None and key not in keys:
                near = get_close_matches(str(key), keys, 1)
                do = f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
                self.fail((*path, shown(key)), "is not a known key", do)
        return found

    def list(self, table: Mapping[str, object], key: str, do: str) -> list[object]:
        value = table.get(key, [])
        if not isinstance(value, list) or len(cast("list[object]", value)) > LIST_MAX:
            self.fail((key,), f"has the value {shown(table.get(key))}", f"{do}, of at most {LIST_MAX}")
        return cast("list[object]", value)

    def checked(self, table: Mapping[str, object], path: Path, key: str, check: Callable[[str], object]) -> str:
        """A required text. `check` raises ValueError with what was expected, or Invalid."""
        if key not in table:
            self.fail((*path, key), "is missing", "add it")
        value = table[key]
        if not isinstance(value, str):
            self.fail((*path, key), f"has the value {shown(value)}", "use a text in quotes")
        try:
            check(value)
        except Invalid as error:
            self.fail((*path, key), f"has the value {shown(value)}: {error.what}", error.do)
        except ValueError as error:
            self.fail((*path, key), f"has the value {shown(value)}", f"expected {error}")
        return value


def _requires(reader: _Reader, top: Mapping[str, object], service: str) -> tuple[Requirement, ...]:
    items = reader.list(top, "requires", 'use a list like ["pricing>=3.1"]')
    found: dict[str, Requirement] = {}
    for item in items:
        match = _REQUIRED.match(item) if isinstance(item, str) else None
        if match is None:
            reader.fail(
                ("requires",), f"has the item {shown(item)}", 'write it like "pricing>=3.1" or "pricing>=3.1,<4"'
            )
        other, versions = match[1], match[2].replace(" ", "")
        try:
            check_service(other)
            parse_declaration(versions)
        except Invalid as error:
            reader.fail(("requires",), f"has the item {shown(item)}: {error.what}", error.do)
        if other == service:
            reader.fail(("requires",), f"has the service {service} itself", "list other services only")
        if other in found:
            reader.fail(("requires",), f"has {other} twice", f'write one item, like "{other}>=1,<2"')
        if _is_empty(versions):
            reader.fail(
                ("requires",), f"has the item {shown(item)}, which no version satisfies", "correct the conditions"
            )
        found[other] = Requirement(other, versions)
    return tuple(found[name] for name in sorted(found))


def _is_empty(versions: str) -> bool:
    """Whether the conditions contradict each other."""
    conditions = parse_declaration(versions)
    if named := [bound for operator, bound in conditions if operator == "="]:
        return not any(matches(each, [versions]) for each in named)
    lows = [(_number(bound), operator == ">") for operator, bound in conditions if operator[0] == ">"]
    highs = [(_number(bound), operator == "<") for operator, bound in conditions if operator[0] == "<"]
    return any(low > high or (low == high and (above or below)) for low, above in lows for high, below in highs)


def _number(version: str) -> tuple[int, ...]:
    """Without zeros at the end: 3.0 is 3."""
    numbers = list(parts(version) or ())
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _artifacts(reader: _Reader, top: Mapping[str, object]) -> tuple[tuple[str, Artifact], ...]:
    tables = reader.table(top.get("artifact", {}), ("artifact",), None)
    if len(tables) > LIST_MAX:
        reader.fail(("artifact",), f"has {len(tables)} platforms", f"use at most {LIST_MAX}")
    found: dict[str, Artifact] = {}
    places: dict[str, tuple[str, str]] = {}
    for platform in sorted(map(str, tables)):
        path = ("artifact", platform)
        _check_platform(reader, platform)
        table = reader.table(tables[platform], path, ARTIFACT_KEYS)
        url = reader.checked(table, path, "url", parse_location)
        digest = reader.checked(table, path, "sha256", _check_sha256)
        signature = reader.checked(table, path, "signature", parse_location) if "signature" in table else ""
        other, known = places.setdefault(url, (platform, digest))
        if known != digest:
            reader.fail(
                (*path, "sha256"), f"differs from that of {other}, which has the same url", "correct one of them"
            )
        found[platform] = Artifact(url, digest, signature)
    return tuple(found.items())


def _check_platform(reader: _Reader, platform: str) -> None:
    if platform == ANY or (_PLATFORM.match(platform) and platform.partition("-")[2] not in _MACHINES):
        return
    usual = _MACHINES.get(platform.partition("-")[2])
    do = f"did you mean 'linux-{usual}'?" if usual else "use linux-x86_64, linux-aarch64 or any"
    reader.fail(("artifact", shown(platform)), "is not a platform", do)


def _check_sha256(text: str) -> None:
    if not _SHA256.match(text):
        raise ValueError("64 hexadecimal digits in lower case, as sha256sum prints them")
