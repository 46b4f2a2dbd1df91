"""docs/promises.md: for each promise of the design, its checks in the simulator and its tests on real processes.

Generated from markers in the code (`make promises`): `@pytest.mark.promise(n, ...)` on tests, `@check(n, ...)` on the
checks of src/sdlb/sim. With --check: fails when a promise lacks a check or an end-to-end test, or the page is not current.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "promises.md"

PROMISES = {
    1: (
        "One generation",
        "At no moment do two incompatible versions of a service receive new requests on the same route, at any entry of "
        "the tree, roots included.",
    ),
    2: (
        "Seed rule",
        "A version that is incompatible with an active one gets nothing until the last instance of every incompatible "
        "version has stopped (withdrawn and drained, or its lease ran out).",
    ),
    3: (
        "Nothing lost",
        "Registering, draining, withdrawing, reconfiguring, upgrading, and adding or removing nodes lose no request: not "
        "refused, not reset, not answered 5xx by us, not sent to a wrong version.",
    ),
    4: (
        "Static stability",
        "With every parent, the store, or control gone, traffic flows on last known state; nothing that is only "
        "unreachable is treated as stopped before its lease ends.",
    ),
    5: (
        "Convergence",
        "When faults stop, the tree reaches the state that its live instances and its policy imply, within a bounded "
        "number of message rounds, whatever happened before.",
    ),
    6: (
        "No theft",
        "No node or service receives traffic for a route that its identity isn't allowed to claim; a child's rights are "
        "a subset of its parent's.",
    ),
    7: (
        "Constant cost",
        "A node's state grows with its children and services, never with the instances below. A change costs the size "
        "of the change.",
    ),
    8: (
        "Authority survives",
        "A decision once acted on is durable: kill -9 at any moment, on any node, never brings an older generation "
        "back, nor two at once.",
    ),
    9: (
        "Capacity floor",
        "No planned action takes more ready capacity of a service away than its policy allows, counted over the whole tree and "
        "over all rollouts and drains at once.",
    ),
}

EXPLORED = (
    "every order of events for the small trees of `sdlb sim --explore --list`, up to the number of states that is given: "
    "700 to 14,000 of each tree in the tests, 80,000 of each in the longest run of all"
)
SEEN = {
    1: (
        f"{EXPLORED}; two roots, diamonds and moved hosts among them",
        "trees of up to 300 nodes with all kinds of fault, lying children among them (one child of several)",
        "hosts that are cut off from each other's roots are excepted (design: static stability comes first); a majority of "
        "lying children is believed",
    ),
    2: (
        EXPLORED,
        'as promise 1; long leases, remnants and `on_silence = "wait"` only here and in scenarios',
        "a host's clock runs at the speed of its parents' clocks; an instance that is not renewed for lease and "
        "fence time has stopped, unless the policy waits",
    ),
    3: (
        f"make before break alone, without parking: {EXPLORED}",
        "requests that walk through the engines' tables; on real processes with every answer checked",
        "what is in flight on a process, an engine or a machine that dies is lost; the entry's engine lives",
    ),
    4: (EXPLORED, "power cuts, full disks and long partitions", "the engine keeps its table while its process lives"),
    5: (
        "from every state that is reached: the tree comes to what its live instances imply",
        "as promise 1, looked at 60 seconds after the last fault",
        'faults stop; under `on_silence = "wait"` an operator reports what has stopped',
    ),
    6: (
        "not",
        "one lying child among honest ones takes no route and no service; unit tests lie about every field of a claim",
        "nodes are authenticated (mutual TLS); decisions are not signed yet",
    ),
    7: ("not", "sizes and messages of every step; `python -m bench.core` measures the CPU time", "-"),
    8: (
        f"kill -9 before and after every write: {EXPLORED}",
        "power cuts that lose what was not durable, older and lost disks, copied state folders",
        "a durable write is on disk when it is confirmed; SQLite's log is intact or SQLite reports that it is not",
    ),
    9: (
        f"{EXPLORED}: rollouts over one or two hosts, with one owner",
        "the floor in larger trees and over several rollouts: scenarios of the simulator, and unit tests of the rule for slots",
        "one owner for each rollout",
    ),
}
"""For each promise: what is explored exhaustively, what is only sampled, what is assumed."""

NO_CHECK: dict[int, str] = {}
"""Promises that the simulator cannot check yet, and why."""


@dataclass(frozen=True, slots=True, order=True)
class Shown:
    """A place that shows a promise; `what`: the first sentence of its docstring, else its name in words."""

    place: str
    name: str
    what: str

    @property
    def line(self) -> str:
        return f"- {self.what} (`{self.place}`: `{self.name}`)"


def main(args: list[str]) -> int:
    checks = _found(sorted((ROOT / "src" / "sdlb" / "sim").rglob("*.py")), "check")
    tests = _found(sorted((ROOT / "tests").rglob("test_*.py")), "promise")
    page = _page(checks, tests)
    if args == []:
        PAGE.write_text(page)
        return 0
    if args != ["--check"]:
        print("usage: python -m tools.promises [--check]", file=sys.stderr)
        return 2
    problems = list(_lacking(checks, tests))
    if not PAGE.exists() or PAGE.read_text() != page:
        problems.append("docs/promises.md does not match the markers; run `make promises`")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _lacking(checks: dict[int, list[Shown]], tests: dict[int, list[Shown]]) -> Iterator[str]:
    for number in sorted({*checks, *tests} - set(PROMISES)):
        yield f"there is no promise {number}"
    for number, (name, _) in PROMISES.items():
        if number not in checks and number not in NO_CHECK:
            yield f"promise {number} ({name}) has no check in src/sdlb/sim: register one with @check({number}, ...)"
        if number in checks and number in NO_CHECK:
            yield f"promise {number} ({name}) has a check by now; remove it from NO_CHECK in tools/promises.py"
        if not any(_is_end_to_end(shown) for shown in tests.get(number, ())):
            yield f"promise {number} ({name}) has no test in tests/e2e: mark one with @pytest.mark.promise({number})"


def _is_end_to_end(shown: Shown) -> bool:
    return shown.place.startswith("tests/e2e/")


def _page(checks: dict[int, list[Shown]], tests: dict[int, list[Shown]]) -> str:
    lines = [
        "# Promises, and what shows them",
        "",
        "Generated from markers in the code by `make promises`; `make lint` fails when a promise lacks one.",
    ]
    for number, (name, text) in PROMISES.items():
        shown = tests.get(number, [])
        lines += ["", f"## {number}. {name}", text, ""]
        explored, sampled, assumed = SEEN[number]
        lines += [
            f"- **Explored exhaustively:** {explored}.",
            f"- **Sampled:** {sampled}.",
            f"- **Assumed:** {assumed}.",
            "",
        ]
        lines += ["Checked in the simulator after every step:", ""]
        lines += [each.line for each in checks.get(number, [])] or [f"- not: {NO_CHECK.get(number, 'lacking')}"]
        lines += ["", "Tested on real processes:", ""]
        lines += [each.line for each in shown if _is_end_to_end(each)] or ["- lacking"]
        others = [each.line for each in shown if not _is_end_to_end(each)]
        if others:
            lines += ["", "Tested on parts:", "", *others]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------- markers


def _found(files: list[Path], marker: str) -> dict[int, list[Shown]]:
    found: dict[int, list[Shown]] = {}
    for path in files:
        module = ast.parse(path.read_text(), str(path))
        for node, numbers in _marked(module, marker):
            doc = (ast.get_docstring(node) or "").split("\n\n", 1)[0].replace("\n", " ")
            what = doc.split(". ", 1)[0].rstrip(".") or node.name.removeprefix("test_").replace("_", " ")
            for number in numbers:
                place = path.relative_to(ROOT).as_posix()
                found.setdefault(number, []).append(Shown(place, node.name, what[:1].upper() + what[1:]))
    return {number: sorted(each) for number, each in sorted(found.items())}


Marked = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _marked(module: ast.Module, marker: str) -> Iterator[tuple[Marked, list[int]]]:
    """Functions and classes under `@check(1, 2)` or `@pytest.mark.promise(1)`; a file's `pytestmark` counts for all its tests."""
    whole_file = [
        number
        for statement in module.body
        if isinstance(statement, ast.Assign) and any(_name(target) == "pytestmark" for target in statement.targets)
        for value in (statement.value.elts if isinstance(statement.value, ast.List) else [statement.value])
        for number in _numbers(value, marker)
    ]
    for node in ast.walk(module):
        if not isinstance(node, Marked):
            continue
        own = [number for decorator in node.decorator_list for number in _numbers(decorator, marker)]
        inherited = whole_file if node.name.startswith("test_") else []
        if own or inherited:
            yield node, sorted({*own, *inherited})


def _numbers(call: ast.expr, marker: str) -> list[int]:
    if not isinstance(call, ast.Call) or _name(call.func) != marker:
        return []
    return [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, int)]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
