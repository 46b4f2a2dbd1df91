"""One error for every kind of bad input: where it is, what is wrong, what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Invalid(ValueError):
    """Input that is refused as a whole. `code` is stable (it ends the RFC 9457 `type`), the rest is for people.

    >>> str(Invalid("bad-route", "route 'x'", "has no path", "write it as host/path, for example example.com/catalog*"))
    "route 'x': has no path; write it as host/path, for example example.com/catalog*"
    """

    code: str
    where: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.do}"
