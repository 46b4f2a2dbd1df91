"""Policy documents by name, and the policy of a service that results from them.

A document belongs to a service, to all services with a prefix (`catalog*`), or to all services (`*`). It has only the keys
that were set. The documents that apply to a service are merged key by key, and the most specific one wins: the service itself,
then the longest prefix. The objects in `TABLES` are merged by their inner keys; lists, shares and `sticky` are replaced as a
whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from sdlb.model.policy import KEYS, Policy, loads
from sdlb.model.policy_text import TABLES
from sdlb.model.problem import Invalid
from sdlb.model.version import NAME_CHARS_MAX, PREFIX, check_service

Document = Mapping[str, Any]
ANY = "*"
MARK = "sparse"
"""The key of a stored document that tells it from those of releases before patterns, which have all keys. Those releases ignore
it as they ignore any unknown key."""


# ---------------------------------------------------------------------- names


def check_name(text: str) -> str:
    """Returns `text` if it is the name of a document: a service, a prefix with a final `*`, or `*`. Raises Invalid."""
    if not text.endswith(ANY):
        return check_service(text)
    if len(text) > NAME_CHARS_MAX or not PREFIX.match(text[:-1]):
        do = "use a service, the first characters of services and a final *, for example catalog*, or *"
        raise Invalid("bad-service", f"policy name {text[:80]!r}", "is not a pattern of services", do)
    return text


def is_pattern(name: str) -> bool:
    return name.endswith(ANY)


def covers(name: str, other: str) -> bool:
    """Whether the document `name` applies to the service, or to all services of the pattern, `other`."""
    return name == other or (name.endswith(ANY) and other.startswith(name[:-1]))


# ---------------------------------------------------------------------- documents


def read(text: str, where: str = "policy") -> Document:
    """The document in a stored text, without keys that this release does not know. Raises Invalid.

    Documents of earlier releases have all keys: those that equal the default count as not set.
    """
    data = loads(text, where)
    Policy.from_data(data, where, lenient=True)
    found = cast("Mapping[str, Any]", data)
    document = only_known(found)
    return document if found.get(MARK) is True else without_defaults(document)


def write(document: Document) -> str:
    """The text to store."""
    return json.dumps({MARK: True, **document}, separators=(",", ":"), sort_keys=True)


def only_known(data: Document) -> dict[str, Any]:
    """The known keys of a readable document. An object that is null or empty sets nothing."""
    found: dict[str, Any] = {}
    for key in KEYS:
        if key not in data:
            continue
        value: Any = data[key]
        if key in TABLES:
            table = cast("Document", value or {})
            value = {inner: each for inner, each in table.items() if inner in _DEFAULT[key]}
            if not value:
                continue
        found[key] = {} if key == "shares" and value is None else value
    return found


def without_defaults(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        if key in TABLES:
            value = {inner: each for inner, each in value.items() if each != _DEFAULT[key][inner]}
            if value:
                found[key] = value
        elif value != _DEFAULT[key]:
            found[key] = value
    return found


def keys_of(document: Document) -> Iterator[str]:
    """The keys that are set, as `policy get` prints them: `park.timeout_s`."""
    for key, value in document.items():
        if key in TABLES:
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield key


def merge(documents: Iterable[Document]) -> dict[str, Any]:
    """`documents`: the least specific first."""
    merged: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            merged[key] = {**merged.get(key, {}), **value} if key in TABLES else value
    return merged


def _fit(documents: Iterable[Document]) -> bool:
    try:
        Policy.from_data(merge(documents), lenient=True)
    except Invalid:
        return False
    return True


class Layers:
    """All documents of a node. A read costs the length of a name; a change costs the documents that it applies to."""

    def __init__(self, documents: Mapping[str, Document] | None = None) -> None:
        self._documents: dict[str, Document] = {}
        self._prefixes: Counter[int] = Counter()  # length of the prefix of a pattern -> number of them
        self._lengths: tuple[int, ...] = ()  # the longest first
        self._merged: dict[str, Policy] = {}  # by the most specific document
        self._default = Policy()
        for name, document in (documents or {}).items():
            self.put(name, document)

    @property
    def documents(self) -> Mapping[str, Document]:
        return self._documents

    def put(self, name: str, document: Document) -> None:
        """Replaces a document. An empty one is the same as none."""
        was = self._documents.pop(name, None)
        if document:
            self._documents[name] = document
        change = bool(document) - (was is not None)
        if is_pattern(name):
            self._prefixes[len(name) - 1] += change
            self._lengths = tuple(sorted((each for each, count in self._prefixes.items() if count), reverse=True))
            for other in [each for each in self._merged if covers(name, each)]:
                del self._merged[other]
        else:
            self._merged.pop(name, None)

    def changed(self, documents: Mapping[str, Document]) -> Layers:
        """A copy with these documents replaced."""
        return Layers({**self._documents, **documents})

    def of(self, name: str) -> Policy:
        """The policy of a service, or what all services of a pattern have."""
        top = next(self._names(name), None)
        if top is None:
            return self._default
        policy = self._merged.get(top)
        if policy is None:
            policy = self._merged[top] = Policy.from_data(merge(each for _, each in self.layers(name)), lenient=True)
        return policy

    def layers(self, name: str) -> list[tuple[str, Document]]:
        """The documents that apply, the least specific first. One that contradicts a more specific one is left out: each of them
        is readable, but together they may not be."""
        found: list[tuple[str, Document]] = []
        for each in self._names(name):
            candidate = [(each, self._documents[each]), *found]
            if found and not _fit(document for _, document in candidate):
                continue
            found = candidate
        return found

    def contradictions(self, name: str) -> list[str]:
        """The documents that apply and are left out."""
        kept = {each for each, _ in self.layers(name)}
        return [each for each in self._names(name) if each not in kept]

    def sources(self, name: str) -> dict[str, str]:
        """Key -> the document that sets it. A key without one has its default."""
        return {key: each for each, document in self.layers(name) for key in keys_of(document)}

    def _names(self, name: str) -> Iterator[str]:
        """The documents that apply, the most specific first."""
        if not is_pattern(name) and name in self._documents:
            yield name
        for length in self._lengths:
            pattern = f"{name[:length]}{ANY}"
            if length < len(name) + (not is_pattern(name)) and pattern in self._documents:
                yield pattern


_DEFAULT: dict[str, Any] = Policy().to_data()
