"""Mutations made by cosmic-ray: one small change of an operator, a number, a condition or a loop each.

Only operators that imitate typing or logic errors are used. A change that makes no difference, for example in an
annotation or a cache, is left out. Mutations that no check can find are listed in `explained.toml`, each with its reason:

    [[explained]]
    file = "core/relay.py"
    scope = "Relay.finish"       function or class, "" outside of any
    old = "the line as it is, without indentation"
    new = "the line as cosmic-ray changes it"
    reason = "One sentence."
"""

from __future__ import annotations

import ast
import difflib
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module  # cosmic-ray has no types
from pathlib import Path
from typing import Any

from tools.mutate.table import AREAS, SOURCE, Mutation

EXPLAINED = Path(__file__).parent / "explained.toml"

OPERATORS = (
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_FloorDiv",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceBinaryOperator_LShift_RShift",
    "ReplaceBinaryOperator_RShift_LShift",
    "ReplaceBinaryOperator_BitOr_BitAnd",
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
)


@dataclass(frozen=True, slots=True)
class Position:
    """The `occurrence`-th change that an operator can make in a file."""

    file: str
    operator: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Explained:
    file: str
    scope: str
    old: str
    new: str
    reason: str


def positions(root: Path) -> list[Position]:
    """All possible changes, in the order of the files."""
    trees = import_module("cosmic_ray.ast")
    found: list[Position] = []
    for area in AREAS:
        for path in sorted((root / SOURCE / area).glob("*.py")):
            nodes = list(trees.ast_nodes(trees.get_ast(path.read_text())))
            for name in OPERATORS:
                operator = _operator(name)
                count = sum(1 for node in nodes for _ in operator.mutation_positions(node))
                found += [Position(str(path.relative_to(root)), name, number) for number in range(count)]
    return found


def sample(root: Path, places: list[Position], number: int | None, seed: int) -> Iterator[Mutation]:
    """`number` of the mutations, or all; those that make no difference are left out."""
    if number is not None:
        places = random.Random(seed).sample(places, len(places))
    made = 0
    for position in places:
        if number is not None and made >= number:
            return
        mutation = make(root, position)
        if mutation is not None:
            made += 1
            yield mutation


def make(root: Path, position: Position) -> Mutation | None:
    """None: the change makes no difference."""
    source = (root / position.file).read_text()
    mutating = import_module("cosmic_ray.mutating")
    text: str | None = mutating.mutate_code(source, _operator(position.operator), position.occurrence)
    if text is None or _meaning(text) == _meaning(source):
        return None
    number, old, new = _changed_line(source, text)
    stem = Path(position.file).stem
    return Mutation(
        name=f"{stem}-{position.operator.rpartition('_')[0] or position.operator}-{position.occurrence}",
        file=position.file,
        scope=_scope(source, number),
        old=old,
        new=new,
        breaks=f"{position.operator} in line {number}",
        text=text,
    )


def _operator(name: str) -> Any:
    return import_module("cosmic_ray.plugins").get_operator(f"core/{name}")()


class _Meaning(ast.NodeTransformer):
    """Leaves out what changes no result: annotations, which are never evaluated in these files (`from __future__ import
    annotations`), caches, and the arguments `slots` of dataclasses and `strict` of `zip`, which only catch internal errors.
    """

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.decorator_list = [each for each in node.decorator_list if "lru_cache" not in ast.dump(each)]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [each for each in node.keywords if each.arg not in ("slots", "strict")]
        return self.generic_visit(node)


def _meaning(text: str) -> str:
    """Equal for two sources that do the same by their syntax; "" for one that does not compile."""
    try:
        tree = ast.parse(text)
        compile(text, "<mutation>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return ""
    return ast.dump(_Meaning().visit(tree))


def _changed_line(source: str, text: str) -> tuple[int, str, str]:
    """The number of the first changed line, and both versions of what changed."""
    a, b = source.splitlines(), text.splitlines()
    codes = [code for code in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if code[0] != "equal"]
    _, i1, i2, j1, j2 = codes[0]
    return i1 + 1, "\n".join(a[i1:i2]).strip(), "\n".join(b[j1:j2]).strip()


def _scope(source: str, line: int) -> str:
    names: list[str] = []
    body: ast.AST | None = ast.parse(source)
    while body is not None:
        body = next((node for node in ast.iter_child_nodes(body) if _is_around(node, line)), None)
        if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(body.name)
    return ".".join(names)


def _is_around(node: ast.AST, line: int) -> bool:
    if not isinstance(node, ast.stmt):
        return False
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    start = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return start <= line <= (node.end_lineno or node.lineno)


# ---------------------------------------------------------------------- survivors with a reason


def explained(path: Path = EXPLAINED) -> list[Explained]:
    data = tomllib.loads(path.read_text()) if path.exists() else {}
    return [Explained(**entry) for entry in data.get("explained", [])]


def reason_of(mutation: Mutation, known: list[Explained]) -> str:
    """Why no check can find this mutation; "" if it is not explained."""
    file = str(Path(mutation.file).relative_to(SOURCE))
    for each in known:
        if (each.file, each.scope, each.old, each.new) == (file, mutation.scope, mutation.old, mutation.new):
            return each.reason
    return ""


def out_of_date(root: Path, known: list[Explained]) -> list[Explained]:
    """Explanations whose line is no longer in the sources."""
    return [each for each in known if not _still_there(root / SOURCE / each.file, each.old)]


def _still_there(path: Path, old: str) -> bool:
    if not path.exists():
        return False
    lines = {line.strip() for line in path.read_text().splitlines()}
    return all(line.strip() in lines for line in old.splitlines())
