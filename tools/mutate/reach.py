"""Which functions of the core and the model each test calls: a pytest plugin, `-p tools.mutate.reach`.

A test that does not call a function cannot find a mutation in it. So only those that do are run. It writes `reach.jsonl`
in the root of the sources: one line for each test.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

FILE = "reach.jsonl"


class Recorder:
    def __init__(self, root: Path) -> None:
        self._source = f"{root}/src/sdlb/"
        self._file = root / FILE
        self._names: dict[CodeType, str] = {}  # "" for code elsewhere
        self._called: set[CodeType] = set()
        self._lines: list[str] = []

    def _on_call(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._called.add(frame.f_code)

    def _name(self, code: CodeType) -> str:
        if code not in self._names:
            file = code.co_filename.removeprefix(self._source)
            inside = file.startswith(("core/", "model/"))
            self._names[code] = f"{file}:{code.co_qualname.partition('.<locals>')[0]}" if inside else ""
        return self._names[code]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._called.clear()
        _forget_results()
        before = time.process_time()
        sys.setprofile(self._on_call)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            cpu_s = round(time.process_time() - before, 4)
            calls = sorted({self._name(code) for code in self._called} - {""})
            self._lines.append(json.dumps({"test": item.nodeid, "cpu_s": cpu_s, "calls": calls}) + "\n")

    def pytest_sessionfinish(self) -> None:
        self._file.write_text("".join(self._lines))


def _forget_results() -> None:
    """A function whose result is cached would not be called again."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("sdlb.core", "sdlb.model")):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.rootpath))


# ---------------------------------------------------------------------- the record


@dataclass(frozen=True, slots=True)
class Reached:
    test: str
    cpu_s: float
    calls: frozenset[str]


def read(root: Path) -> list[Reached]:
    """First one test of each function, then the fastest. Empty: there is no record."""
    if not (root / FILE).exists():
        return []
    data = [json.loads(line) for line in (root / FILE).read_text().splitlines()]
    seen: Counter[str] = Counter()
    found: list[tuple[int, Reached]] = []
    for each in sorted(data, key=lambda each: each["cpu_s"]):
        function = each["test"].partition("[")[0]
        found.append((seen[function], Reached(each["test"], each["cpu_s"], frozenset(each["calls"]))))
        seen[function] += 1
    return [reached for _, reached in sorted(found, key=lambda pair: (pair[0], pair[1].cpu_s))]


def tests_of(function: str, reached: list[Reached]) -> list[str]:
    """Those that call it ("core/slot.py:Slot.count") or a function in it. Empty: that is not known, as for a class."""
    inside = f"{function}."
    name = function.rpartition(":")[2].rpartition(".")[2].lstrip("_")
    if not name or name[0].isupper():
        return []
    return [each.test for each in reached if any(c == function or c.startswith(inside) for c in each.calls)]
