"""Finds words for which the field has a better term: `python -m tools.prose`, a part of `make lint`.

The words stand in tools/prose.toml. They are searched in the text of the pages (not in code, links or comments) and in the
messages of the programs: string literals that contain a space and are not docstrings. In the engine's sources only the part before
the tests is searched.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WORDS = ROOT / "tools/prose.toml"

FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^ *\2 *$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\([^)]*\)")
TAG = re.compile(r"</?[a-zA-Z][^>\n]*>")
MESSAGE = re.compile(r"\w \w|\w: ")
RUST = re.compile(
    r"""//[^\n]*|/\*.*?\*/|'(?:\\.[^']*|[^\\'\n])'|r(#*)".*?"\1|"(?P<text>(?:[^"\\]|\\.)*)\"""", re.DOTALL
)
"""Comments and characters too, which may hold a quotation mark."""
FIELD = "\x01"
"""Replaces a formatted value in a message; it is not part of a word."""


@dataclass(frozen=True, slots=True)
class Word:
    find: re.Pattern[str]
    say: str
    allow: tuple[re.Pattern[str], ...]
    only: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    file: str
    line: int
    found: str
    say: str

    def __str__(self) -> str:
        return f'{self.file}:{self.line}: "{self.found}": say "{self.say}"'


@dataclass(frozen=True, slots=True)
class Rules:
    words: tuple[Word, ...]
    pages: tuple[str, ...]
    messages: tuple[str, ...]


def read(file: Path = WORDS) -> Rules:
    raw: dict[str, Any] = tomllib.loads(file.read_text())
    words = tuple(
        Word(
            _compiled(each["find"]),
            each["say"],
            tuple(map(_compiled, each.get("allow", ()))),
            tuple(each.get("only", ())),
        )
        for each in raw["word"]
    )
    return Rules(words, tuple(raw["pages"]), tuple(raw["messages"]))


def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{text.replace(' ', chr(92) + 's+')})(?![\w-])", re.IGNORECASE)


def hits(text: str, file: str, words: tuple[Word, ...]) -> Iterator[Hit]:
    """Line numbers count from the start of the text."""
    for word in words:
        if word.only and not any(fnmatch(file, each) for each in word.only):
            continue
        allowed = [found.span() for each in word.allow for found in each.finditer(text)]
        for found in word.find.finditer(text):
            if not any(start <= found.start() and found.end() <= end for start, end in allowed):
                line = 1 + text.count("\n", 0, found.start())
                yield Hit(file, line, " ".join(found[0].split()), word.say)


def of_page(text: str) -> str:
    """The prose of a page, in the same lines."""
    for each in (FENCED, COMMENT, CODE, TAG):
        text = each.sub(_blank, text)
    return LINK.sub(lambda found: "]" + "\n" * found[0].count("\n"), text)


def _blank(found: re.Match[str]) -> str:
    return FIELD + "\n" * found[0].count("\n")


def of_engine(source: str) -> Iterator[tuple[int, str]]:
    """The same for a Rust source."""
    for found in RUST.finditer(source.partition("#[cfg(test)]")[0]):
        text = re.sub(r"\{[^{}]*\}", FIELD, re.sub(r"\\(n|\n)\s*", " ", found["text"] or ""))
        if MESSAGE.search(text):
            yield 1 + source.count("\n", 0, found.start()), CODE.sub(_blank, text)


def of_program(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each message."""
    tree = ast.parse(source)
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else FIELD for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            text = node.value
        else:
            continue
        if MESSAGE.search(text):
            yield node.lineno, CODE.sub(_blank, text)


def check(root: Path, rules: Rules) -> list[Hit]:
    found: list[Hit] = []
    for globs, of_messages in ((rules.pages, False), (rules.messages, True)):
        for path in sorted({path for each in globs for path in root.glob(each)}):
            file = str(path.relative_to(root))
            if of_messages:
                read_messages = of_engine if path.suffix == ".rs" else of_program
                for line, message in read_messages(path.read_text()):
                    found += [replace(hit, line=line) for hit in hits(message, file, rules.words)]
            else:
                found += hits(of_page(path.read_text()), file, rules.words)
    return sorted(found, key=lambda hit: (hit.file, hit.line))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.prose", description="Looks for words that have a better term."
    )
    parser.add_argument("files", nargs="*", help="only these; default: all pages and messages")
    args = parser.parse_args()
    found = check(ROOT, read())
    for hit in found:
        if not args.files or hit.file in args.files:
            print(hit)
    return 1 if any(not args.files or hit.file in args.files for hit in found) else 0


if __name__ == "__main__":
    sys.exit(main())
