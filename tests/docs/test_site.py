"""What `make docs` makes of the pages before MkDocs reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.site import ROOT, SECTIONS, converted, navigation, pages, title

PLACES = {"docs/guide/a.md": "guide/a.md", "docs/index.md": "index.md", "SECURITY.md": "operate/security.md"}


def of(text: str, path: str = "docs/guide/a.md") -> str:
    return converted(text, path, PLACES, ROOT, frozenset({"docs/concepts/tree.svg"})).removesuffix("\n")


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[x](../index.md#top)", "[x](../index.md#top)"),
        ("[x](../../SECURITY.md)", "[x](../operate/security.md)"),
        ("[x](../../README.md)", "[x](../index.md)"),
        ("[x](#here)", "[x](#here)"),
        ("[x](https://example.com/a)", "[x](https://example.com/a)"),
        ("![x](../concepts/tree.svg)", "![x](../concepts/tree.svg)"),
        ("[`tools/site.py`](../../tools/site.py)", "`tools/site.py`"),
        ("[x](none.md)", "[x](none.md)"),
    ],
)
def test_links(link: str, becomes: str) -> None:
    assert of(f"see {link}.") == f"see {becomes}."


def test_links_of_a_page_outside_of_docs() -> None:
    assert of("[x](docs/guide/a.md) [y](docs/concepts/tree.svg)", "SECURITY.md") == (
        "[x](../guide/a.md) [y](../concepts/tree.svg)"
    )


def test_commands_can_be_copied_and_output_cannot() -> None:
    assert of("Do:\n```console\nsdlb tree [x](none)\n```\n```output\nedge\n```") == (
        "Do:\n\n```bash\nsdlb tree [x](none)\n```\n\n``` { .text .no-copy }\nedge\n```"
    )


def test_lists_and_tables_get_a_blank_line() -> None:
    assert of("Text:\n- a\n- b\n  more\n- c\n\nText:\n| a |\n| - |\n| b |") == (
        "Text:\n\n- a\n- b\n  more\n- c\n\nText:\n\n| a |\n| - |\n| b |"
    )


def test_every_page_is_in_the_navigation() -> None:
    places = pages(ROOT)
    nav = str(navigation({place: (ROOT / path).read_text() for path, place in places.items()}))
    assert [place for place in places.values() if f"'{place}'" not in nav] == []


def test_sections_are_in_order_and_a_page_without_one_fails() -> None:
    nav = navigation({"index.md": "", "reference/b.md": "# B", "reference/cli.md": "# `sdlb`", "faq.md": "# Questions"})
    assert nav == [
        {"Home": "index.md"},
        {"Reference": [{"sdlb": "reference/cli.md"}, {"B": "reference/b.md"}]},
        {"FAQ": "faq.md"},
    ]
    with pytest.raises(ValueError, match=r"in no section of tools/site\.py: other/a\.md"):
        navigation({"other/a.md": "# A"})


def test_pages_that_a_section_names_exist() -> None:
    places = {place for place in pages(ROOT).values() if Path(place).name != "index.md"}
    named = {page for section in SECTIONS for page in section.first if Path(page).name != "index.md"}
    assert named <= places | {"reference/policy.md"}


def test_the_title_is_the_heading() -> None:
    assert title("<!-- x -->\n# The `sdlb` command\ntext") == "The sdlb command"
