"""One table of a node file, read strictly: every error names file, line, key and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, cast

from sdlb.model.address import check_name
from sdlb.model.problem import Invalid
from sdlb.node.toml_lines import line_of

CODE = "bad-config"


class Mistake(Invalid):
    """An error about one key. `path`: its place in the file, as `tomllib` gives it."""

    def __init__(self, code: str, where: str, what: str, do: str, path: tuple[str, ...]) -> None:
        super().__init__(code, where, what, do)
        self.path = path


class Reader:
    """`where` names the file ("" for the command line); `path` is this table's place in it."""

    def __init__(
        self, data: object, where: str, lines: dict[tuple[str, ...], int], path: tuple[str, ...], keys: tuple[str, ...]
    ) -> None:
        self._where, self._lines, self._path = where, lines, path
        if not isinstance(data, dict):
            self._fail(path, "is not a table", f"write [{'.'.join(path)}] with the keys {', '.join(keys)}")
        self._data = cast("dict[str, object]", data)
        for key in self._data:
            if keys and key not in keys:
                near = get_close_matches(key, keys, 1)
                do = f"did you mean {near[0]!r}?" if near else f"the known keys are {', '.join(keys)}"
                self._fail((*path, key), "is not a known key", do)

    def _fail(self, path: tuple[str, ...], what: str, do: str) -> NoReturn:
        raise Mistake(CODE, self._place(path), what, do, path)

    def _place(self, path: tuple[str, ...]) -> str:
        line = f":{line_of(self._lines, path)}" if self._lines else ""
        return f"{self._where}{line}: {'.'.join(path)}"

    def place(self, key: str = "") -> str:
        """The place of a key of this table, or of the table: "node.toml:7: site.0.key"."""
        return self._place((*self._path, key) if key else self._path)

    def refuse(self, key: str, what: str, do: str) -> NoReturn:
        self._fail((*self._path, key), what, do)

    def fail(self, key: str, expected: str) -> NoReturn:
        shown = repr(self._data.get(key))
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        self._fail((*self._path, key), f"has the value {shown}", f"expected {expected}")

    def later(self, key: str, what: str = "", do: str = "remove the line") -> NoReturn:
        """Refuses a known key whose feature this version does not support."""
        self._fail(
            (*self._path, key),
            f"{what} is not supported in this version" if what else "not supported in this version",
            do,
        )

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def get(self, key: str) -> object:
        return self._data.get(key)

    def table(self, key: str, keys: tuple[str, ...]) -> Reader:
        return Reader(self._data.get(key, {}), self._where, self._lines, (*self._path, key), keys)

    def named(self, key: str, keys: tuple[str, ...], most: int, example: str) -> Iterator[tuple[str, Reader]]:
        """Tables [key.NAME] with their names. `example`: of a line in one of them."""
        value = self._data.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, f"tables: write [{key}.NAME], and {example}")
        names = list(cast("dict[str, object]", value))
        if len(names) > most:
            self.refuse(key, f"has {len(names)} tables", f"use at most {most}")
        above = self.table(key, ())
        for name in names:
            yield name, above._one_of(key, name, keys, example)

    def _one_of(self, kind: str, name: str, keys: tuple[str, ...], example: str) -> Reader:
        try:
            check_name(name)
        except ValueError as error:
            self.refuse(name, f"is not a name of a {kind}", f"expected {error}")
        if not isinstance(self._data[name], dict):
            self.fail(name, f"a table: write [{kind}.{name}], and {example}")
        return self.table(name, keys)

    def items(self, key: str, keys: tuple[str, ...]) -> list[Reader]:
        """An array of tables."""
        value = self._data.get(key, [])
        if not isinstance(value, list):
            self.fail(key, f"an array of tables, each starting with [[{key}]]")
        path = (*self._path, key)
        items = enumerate(cast("list[object]", value))
        return [Reader(item, self._where, self._lines, (*path, str(n)), keys) for n, item in items]

    def text(
        self, key: str, default: str, check: Callable[[str], str] | None = None, expected: str = "a string"
    ) -> str:
        if key not in self._data:
            return default
        value = self._data[key]
        if not isinstance(value, str) or not value.isprintable() or len(value) > 4096:
            self.fail(key, expected)
        if check is None:
            return value
        try:
            return check(value)
        except ValueError as error:
            self.fail(key, str(error))

    def flag(self, key: str, default: bool) -> bool:
        value = self._data.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.fail(key, f"a number from {low:g} to {high:g}")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def texts(self, key: str, check: Callable[[str], str], expected: str, most: int = 64) -> tuple[str, ...]:
        value = self._data.get(key, [])
        if not isinstance(value, list) or len(cast("list[object]", value)) > most:
            self.fail(key, f"a list of at most {most}: {expected}")
        found: list[str] = []
        for item in cast("list[object]", value):
            if not isinstance(item, str):
                self.fail(key, f"a list of strings: {expected}")
            try:
                found.append(check(item))
            except ValueError as error:
                self.fail(key, str(error))
        if len(set(found)) != len(found):
            self.fail(key, "a list without duplicates")
        return tuple(found)

    def path(self, key: str) -> Path | None:
        """An absolute path."""
        text = self.text(key, "", _absolute, "a path")
        return Path(text) if text else None

    def paths(self, key: str, most: int) -> tuple[str, ...]:
        """One absolute path, or a list of them, each in its shortest form."""
        if key not in self._data:
            return ()
        if isinstance(self._data[key], list):
            return tuple([_shortest(text) for text in self.texts(key, _absolute, "absolute paths", most)])
        text = self.text(key, "", _absolute, "a path")
        return (_shortest(text),) if text else ()


def one_of(*choices: str) -> Callable[[str], str]:
    """A check that accepts only these values."""

    def check(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(f'"{choice}"' for choice in choices))
        return text

    return check


def _shortest(path: str) -> str:
    """As `pathlib` writes it."""
    return str(Path(path)) if "//" in path or "/." in path or path.endswith("/") else path


def _absolute(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("an absolute path, starting with /")
    return text
