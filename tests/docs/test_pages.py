"""What the pages refer to exists: links, anchors, files, make targets, metrics, keys and reasons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdlb.model.reason import KINDS
from sdlb.node import config, config_identity, config_sites, metric_texts
from tests.docs.links import broken

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for glob in ("*.md", "docs/**/*.md", "examples/*.md", "bench/*.md")
    for path in ROOT.glob(glob)
)
FILE = re.compile(r"`((?:src|docs|tests|tools|proto|engine|bench|examples)/[A-Za-z0-9_./-]*)`")
MAKE = re.compile(r"`make ([a-z-]+)")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert broken(ROOT / name, ROOT) == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[a](other.md) [b](other.md#a-heading-of-it) [c](https://example.com/x) [d](#title)", []),
        ("[a](other.md#again-1) [b](other.md#here)", []),
        ("`[a](none.md)` and\n```\n[b](none.md)\n# no heading\n```", []),
        ("[a](none.md)", ["none.md: no such file"]),
        ("![a](none.svg)", ["none.svg: no such file"]),
        ('<img src="none.svg">', ["none.svg: no such file"]),
        ("[a][b]\n\n[b]: none.md", ["none.md: no such file"]),
        ("[a](other.md#none)", ["other.md#none: no such heading"]),
        ("[a](other.md#not-a-heading)", ["other.md#not-a-heading: no such heading"]),
        ("[a](#none)", ["#none: no such heading"]),
        ("[a](../../outside.md)", ["../../outside.md: outside of the project"]),
        ("[a](/docs/other.md)", ["/docs/other.md: a link inside the project is relative"]),
    ],
)
def test_which_links_are_broken(tmp_path: Path, text: str, problems: list[str]) -> None:
    (tmp_path / "docs").mkdir()
    other = '# A `heading` of it\n## Again\n## Again\n<a id="here"></a>\n```\n# not a heading\n```\n'
    (tmp_path / "docs/other.md").write_text(other)
    page = tmp_path / "docs/page.md"
    page.write_text("# Title\n" + text + "\n")
    assert broken(page, tmp_path) == problems


@pytest.mark.parametrize("name", PAGES)
def test_files_and_make_targets_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(MAKE.findall(text)) <= TARGETS
    missing = [path for path in FILE.findall(text) if not (ROOT / path).exists()]
    assert not missing, f"{name} names {', '.join(missing)}"


def test_every_metric_is_documented() -> None:
    """Of the engine's own counters (`sdlb_engine_...`) those that are named exist."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    names = set(metric_texts.FAMILIES)
    assert len(names) > 20
    documented = set(re.findall(r"\bsdlb_[a-z0-9_]+", page))
    assert names - documented == set()
    counters = re.findall(
        r"^    ([a-z0-9_]+)(?:: BusyCounter)?,$",
        (ROOT / "engine/crates/engine/src/counters.rs").read_text(),
        re.MULTILINE,
    )
    assert len(counters) > 50
    assert documented - names <= {"sdlb_engine_", *(f"sdlb_engine_{name}" for name in counters)}


def test_every_key_of_the_node_file_is_documented() -> None:
    page = (ROOT / "docs/reference/node-file.md").read_text()
    keys = {*config.TOP, *config.LIMITS, *config_sites.KEYS, *config_identity.KEYS}
    assert {key for key in keys if not re.search(rf"^(\[+)?{key}\b|`(listen\.)?{key}\b", page, re.MULTILINE)} == set()


def test_every_reason_is_documented() -> None:
    page = (ROOT / "docs/reference/codes.md").read_text()
    assert {code for code in KINDS if f"| `{code}` |" not in page} == set()
