"""The error for bad input of any kind: where it is, what is wrong, what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Invalid(ValueError):
    """Invalid input. `code` is stable: it is the end of the RFC 9457 `type`. The other fields are text for people.

    >>> str(Invalid("bad-route", "route 'x'", "has no path", "write it as host/path, for example example.com/catalog*"))
    "route 'x': has no path; write it as host/path, for example example.com/catalog*"
    """

    code: str
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"


def shown(value: object) -> str:
    """A value that somebody gave, for a message: short, and without what a terminal would act on."""
    text = value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
