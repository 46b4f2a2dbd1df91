"""Builds the documentation site: `make docs`, into dist/docs.

The pages of docs/ and those of the project's folder (ARCHITECTURE.md, ...) are copied to dist/docs-source, in the form that MkDocs
reads, with a navigation made of what is there. MkDocs then builds the site and fails on a link that leads nowhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "dist/docs-source"
SITE = ROOT / "dist/docs"
PLAN = ROOT / "dist/mkdocs.yml"

ELSEWHERE = {
    "examples/README.md": "guide/examples.md",
    "SECURITY.md": "operate/security.md",
    "ARCHITECTURE.md": "internals/architecture.md",
    "CONTRIBUTING.md": "internals/contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages outside of docs/, and where they are in the site."""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    folders: tuple[str, ...]
    """Pages, and folders whose pages all belong here."""
    first: tuple[str, ...] = ()
    """In this order, before the other pages by their names."""


SECTIONS = (
    Section("Install", ("install/",), ("install/index.md",)),
    Section(
        "Concepts",
        ("concepts/",),
        (
            "concepts/index.md",
            "concepts/overview.md",
            "concepts/routes.md",
            "concepts/versions.md",
            "concepts/failures.md",
        ),
    ),
    Section(
        "Guides",
        ("guide/",),
        (
            "guide/index.md",
            "guide/first-service.md",
            "guide/new-version.md",
            "guide/patch.md",
            "guide/canary.md",
            "guide/together.md",
            "guide/incompatible-version.md",
            "guide/migration.md",
        ),
    ),
    Section("Operations", ("operate/",), ("operate/index.md",)),
    Section("Monitoring", ("monitor/",), ("monitor/index.md",)),
    Section(
        "Reference",
        ("reference/",),
        ("reference/index.md", "reference/cli.md", "reference/api.md", "reference/node-file.md", "reference/policy.md"),
    ),
    Section("Recipes", ("recipes/",), ("recipes/index.md",)),
    Section("FAQ", ("faq.md",)),
    Section("Known limits", ("limits.md",)),
    Section("Comparison", ("comparison.md",)),
    Section("Migration", ("migrate/",), ("migrate/index.md",)),
    Section("Internals", ("internals/", "decisions/", "promises.md"), ("internals/architecture.md",)),
    Section("Changes", ("changelog.md",)),
)

LINK = re.compile(r"(?P<open>!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\()(?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")
FENCE = re.compile(r"^ *(`{3,}|~{3,})([\w-]*) *$")
LANGUAGES = {"console": "bash", "output": " { .text .no-copy }"}
"""How the site marks a block: commands can be copied, what they print cannot."""
BLOCK = re.compile(r"^ *([-*|>]|\d+\.) ?")
"""A list, a table or a quotation, which MkDocs wants after a blank line."""


def pages(root: Path) -> dict[str, str]:
    """Path in the project -> path in the site. README.md stands in for docs/index.md while there is none."""
    found = {
        f"docs/{path}": path
        for path in sorted(str(each.relative_to(root / "docs")) for each in (root / "docs").rglob("*.md"))
    }
    found |= {path: place for path, place in ELSEWHERE.items() if (root / path).exists()}
    if "docs/index.md" not in found:
        found["README.md"] = "index.md"
    return found


def converted(text: str, path: str, places: Mapping[str, str], root: Path, files: frozenset[str] = frozenset()) -> str:
    """A page in the form that MkDocs reads. `files`: others in the site, such as pictures."""
    lines: list[str] = []
    fence = ""
    before = ""
    for line in text.splitlines():
        opening = FENCE.match(line)
        if fence:
            if opening and opening[1] == fence and not opening[2]:
                fence = ""
        elif opening:
            fence = opening[1]
            if before.strip():
                lines.append("")
            language = LANGUAGES.get(opening[2], opening[2])
            line = line[: line.index(fence)] + fence + language
        else:
            kind, last = BLOCK.match(line), BLOCK.match(before)
            if kind and before.strip() and not (last or before.startswith(" ")):
                lines.append("")
            line = LINK.sub(lambda found: _link(found, path, places, root, files), line)
        lines.append(line)
        before = line
    return "\n".join(lines) + "\n"


def _link(found: re.Match[str], path: str, places: Mapping[str, str], root: Path, files: frozenset[str]) -> str:
    link, anchor = found["path"], found["anchor"] or ""
    if not link or SCHEME.match(link):
        return found[0]
    leads_to = normpath(join(dirname(path), link))
    place = places.get(leads_to) or ("index.md" if leads_to == "README.md" else None)
    if place is None and leads_to in files:
        place = leads_to.removeprefix("docs/")
    if place is None:
        # Of a file of the sources the site shows the name only. A link that leads nowhere stays: MkDocs reports it.
        return str(found["text"]) if (root / leads_to).exists() else found[0]
    return f"{found['open']}{relpath(place, dirname(places[path]) or '.')}{anchor})"


def title(text: str) -> str:
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return heading[1].replace("`", "") if heading else "Untitled"


def navigation(texts: Mapping[str, str]) -> list[dict[str, object]]:
    """Of the pages in the site, by path. Raises ValueError for one that is in no section."""
    left = {path for path in texts if path != "index.md"}
    nav: list[dict[str, object]] = [{"Home": "index.md"}]
    for section in SECTIONS:
        here = {
            path
            for path in left
            if any(path == each or (each[-1] == "/" and path.startswith(each)) for each in section.folders)
        }
        left -= here
        order = [path for path in section.first if path in here]
        order += sorted(here - set(order), key=lambda path: (_folder(path, section), path))
        if len(order) == 1 and section.folders[0] == order[0]:
            nav.append({section.title: order[0]})
        elif order:
            nav.append({section.title: [{title(texts[path]): path} for path in order]})
    if left:
        raise ValueError(f"in no section of tools/site.py: {', '.join(sorted(left))}")
    return nav


def _folder(path: str, section: Section) -> int:
    return next(n for n, each in enumerate(section.folders) if path.startswith(each))


def plan(nav: list[dict[str, object]]) -> dict[str, object]:
    return {
        "site_name": "sdlb",
        "docs_dir": str(SOURCE),
        "site_dir": str(SITE),
        "use_directory_urls": False,
        "theme": {
            "name": "material",
            "font": False,
            "features": [
                "content.code.copy",
                "navigation.indexes",
                "navigation.tracking",
                "search.suggest",
                "toc.follow",
            ],
            "palette": [
                {"media": "(prefers-color-scheme: light)", "scheme": "default"},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate"},
            ],
        },
        "plugins": ["search", "offline"],  # offline: the search works in files that are opened without a server
        "markdown_extensions": [
            "tables",
            "attr_list",
            "md_in_html",
            {
                "toc": {
                    "permalink": True,
                    "slugify": "!!python/object/apply:pymdownx.slugs.slugify {kwds: {case: lower}}",
                }
            },
            "pymdownx.highlight",
            "pymdownx.superfences",
        ],
        "validation": {
            "omitted_files": "warn",
            "absolute_links": "warn",
            "unrecognized_links": "warn",
            "anchors": "warn",
        },
        "nav": nav,
    }


def stage() -> None:
    places = pages(ROOT)
    others = [
        path
        for path in sorted((ROOT / "docs").rglob("*"))
        if path.is_file() and path.suffix in (".svg", ".png", ".json", ".yml", ".yaml")
    ]
    files = frozenset(str(path.relative_to(ROOT)) for path in others)
    shutil.rmtree(SOURCE, ignore_errors=True)
    texts: dict[str, str] = {}
    for path, place in places.items():
        texts[place] = converted((ROOT / path).read_text(), path, places, ROOT, files)
        (SOURCE / place).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / place).write_text(texts[place])
    for path in others:
        place = SOURCE / path.relative_to(ROOT / "docs")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    # JSON is YAML; only the function that makes anchors needs a tag.
    text = json.dumps(plan(navigation(texts)), indent=1)
    PLAN.write_text(re.sub(r'"(!!python[^"]*)"', r"\1", text))


def main() -> int:
    stage()
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file", str(PLAN)]
    # Not --quiet: MkDocs then counts no warnings, and strict passes everything.
    done = subprocess.run(words, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print(f"docs: {SITE.relative_to(ROOT)}/index.html")
    else:
        print("\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO ")), file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
