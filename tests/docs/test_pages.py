"""What the pages point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdlb.model.reason import KINDS
from sdlb.node import config, config_identity, config_sites

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for glob in ("*.md", "docs/**/*.md", "examples/*.md", "bench/*.md")
    for path in ROOT.glob(glob)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:src|docs|tests|tools|proto|engine|bench|examples)/[A-Za-z0-9_./-]*)`")
MAKE = re.compile(r"`make ([a-z-]+)")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in LINK.findall(page.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), f"{name} points at {link}"
        assert not anchor or anchor in anchors(target), f"{name} points at {link}, which has no such heading"


@pytest.mark.parametrize("name", PAGES)
def test_files_and_make_targets_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(MAKE.findall(text)) <= TARGETS
    missing = [path for path in FILE.findall(text) if not (ROOT / path).exists()]
    assert not missing, f"{name} names {', '.join(missing)}"


def test_every_metric_is_documented() -> None:
    """Of the engine's own counters (`sdlb_engine_...`) those that are named exist."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    source = (ROOT / "src/sdlb/node/metrics.py").read_text()
    names = set(re.findall(r'"(sdlb_[a-z_]+)"', source))
    names |= {f"sdlb_{kind}_{what}" for kind in ("parent", "child") for what in ("link", "silent_seconds")}
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
    page = (ROOT / "docs/reference/api.md").read_text()
    assert {code for code in KINDS if f"| `{code}` |" not in page} == set()
