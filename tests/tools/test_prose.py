"""The check of words: it finds each one, where a reader reads it, and lets pass what the field says too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.prose import ROOT, check, hits, of_engine, of_page, of_program, read

RULES = read()
PAGE = "docs/reference/page.md"

BAD = (
    "a member of the group",
    "the targets of a route",
    "it is asked again",
    "requests tried again",
    "after the first try",
    "tries beyond the first",
    "control is told of it",
    "the node says why",
    "figures of two cores",
    "connections that ended",
    "it ends nobody",
    "a connection at rest",
    "those that have rested",
    "it is taken out",
    "the root takes it out",
    "dribbled bytes",
    "links in clear text",
    "links in the clear",
    "authorities of certificates",
    "requests are judged",
    "the facts of a request",
    "after so many seconds",
    "silent for so long",
    "no room for it",
    "an engine take-over",
    "the engine takes over",
    "connections go over to it",
    "a turn of the loop, one turn of it",
    "it mends the table",
    "nobody reads it",
    "she waits",
    "clients, who wait",
    "a node whose lease ran out",
    "it opens by itself",
    "a time-out",
    "a roll-out",
    "what can't be used",
)
GOOD = (
    "the request target",
    "a make target",
    "the team members",
    "it cannot tell the two apart",
    "an operator who restarts it",
    "encrypted at rest",
    "in fact",
    "figure 1",
    "it tries to connect",
    "storytelling",
    "reclaimed, extended, suspended, recommended",
    "a clear text",
    "timeout, rollout, idle, endpoint",
    "it turns off",
)


@pytest.mark.parametrize("text", BAD)
def test_words_are_found(text: str) -> None:
    assert list(hits(text, PAGE, RULES.words))


def test_every_word_has_an_example() -> None:
    for word in RULES.words:
        assert any(word.find.search(text) for text in BAD), word.find.pattern


@pytest.mark.parametrize("text", GOOD)
def test_what_the_field_says_passes(text: str) -> None:
    assert list(hits(text, PAGE, RULES.words)) == []


def test_a_hit_has_file_line_and_a_better_word() -> None:
    found = list(hits("Links\nare in\nClear.", PAGE, RULES.words))
    assert [str(hit) for hit in found] == [f'{PAGE}:2: "in Clear": say "plaintext, unencrypted"']


def test_short_forms_are_for_guides_only() -> None:
    assert list(hits("it can't", "docs/guide/page.md", RULES.words)) == []
    assert list(hits("it can't", "src/sdlb/cli/run.py", RULES.words))


def test_code_links_and_comments_of_a_page_are_not_read() -> None:
    page = "\n".join(
        [
            "The `target` of [a link](docs/engine-take-over.md) <!-- nobody -->",
            "```toml",
            "target = 1",
            "```",
            '``a `member` `` and <span class="member">text</span>',
            "a target",
        ]
    )
    assert [hit.line for hit in hits(of_page(page), PAGE, RULES.words)] == [6]


def test_messages_are_read_and_nothing_else_of_a_program() -> None:
    source = "\n".join(
        [
            '"""Docstring: nobody reads it."""',
            "def target(member: str) -> None:",
            '    """Told so."""',
            '    print("nobody", f"{member} says: no", "the target is gone")  # so many',
            "    raise ValueError(",
            '        "asked "',
            '        "again"',
            "    )",
        ]
    )
    messages = list(of_program(source))
    assert [line for line, _ in messages] == [4, 4, 6]
    assert [hit.found for _, text in messages for hit in hits(text, "src/a.py", RULES.words)] == [
        "says",
        "target",
        "asked again",
    ]


def test_messages_of_the_engine_are_read() -> None:
    source = "\n".join(
        [
            '/// nobody says "it is told"',
            'let mark = \'"\'; let name = "target";',
            'warn!("the {member} of \\',
            '    the target {} is gone");',
            "#[cfg(test)]",
            'fn test() { panic!("nobody is there") }',
        ]
    )
    messages = list(of_engine(source))
    assert [line for line, _ in messages] == [3]
    assert [hit.found for _, text in messages for hit in hits(text, "a.rs", RULES.words)] == ["target"]


def test_pages_and_messages_of_a_tree_are_checked(tmp_path: Path) -> None:
    for file in ("docs/a.md", "src/sdlb/a.py", "engine/crates/engine/src/a.rs"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text('\n\ntext = "the member left"\n')
    found = [(hit.file, hit.line) for hit in check(tmp_path, RULES)]
    assert found == [("docs/a.md", 3), ("engine/crates/engine/src/a.rs", 3), ("src/sdlb/a.py", 3)]


def test_the_tree_passes() -> None:
    assert [str(hit) for hit in check(ROOT, RULES)] == []
