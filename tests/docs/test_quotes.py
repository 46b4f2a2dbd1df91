"""Code that a page quotes from a file, marked with `<!-- file: PATH -->` above its block, is what the file has.

`python -m tests.docs.test_quotes` writes the files' text into the pages.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTE = re.compile(r"^<!-- file: (?P<path>\S+) -->\n(?P<open>```\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md") if "<!-- file: " in page.read_text())
RECIPES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/recipes").glob("*.md") if page.stem != "index")


def quoted(page: str) -> dict[str, str]:
    """The text of each block by the path of its file."""
    return {found["path"]: found["text"] for found in QUOTE.finditer(page)}


def updated(page: str) -> str:
    """The page with the files' present text."""
    return QUOTE.sub(
        lambda found: f"<!-- file: {found['path']} -->\n{found['open']}\n{(ROOT / found['path']).read_text()}```", page
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_page_quotes_what_the_file_has(name: str) -> None:
    page = (ROOT / name).read_text()
    found = quoted(page)
    assert len(found) == page.count("<!-- file: ")
    for path, text in found.items():
        assert text == (ROOT / path).read_text(), f"{name}: {path} has changed: python -m tests.docs.test_quotes"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_quotes_all_files_of_its_folder(name: str) -> None:
    folders = {str(Path(path).parent) for path in quoted((ROOT / name).read_text())}
    assert len(folders) == 1
    files = {
        str(file.relative_to(ROOT))
        for file in (ROOT / folders.pop()).iterdir()
        if file.is_file() and file.name != "go.mod"
    }
    assert files == set(quoted((ROOT / name).read_text()))


if __name__ == "__main__":
    for each in PAGES:
        (ROOT / each).write_text(updated((ROOT / each).read_text()))
