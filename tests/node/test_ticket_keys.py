"""The file of ticket keys: what is torn, or was open to others, is never believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.node.ticket_keys import load_keys, make_key, save_keys

KEYS = tuple(make_key(1_800_000_000 + number) for number in range(3))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "ticket-keys"
    save_keys(path, KEYS)
    return path


def test_what_was_saved_is_there_again(file: Path) -> None:
    assert load_keys(file) == (KEYS, "")
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name], "nothing is left beside it"


def test_no_file_is_nothing_wrong(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "ticket-keys") == ((), "")


@given(st.data())
def test_a_file_that_is_torn_or_changed_is_not_believed(file: Path, data: st.DataObject) -> None:
    content = file.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    bad = [content[:cut], content[:cut] + bytes([content[cut] ^ data.draw(st.integers(1, 255))]) + content[cut + 1 :]]
    for number, each in enumerate(bad):
        torn = file.with_name(f"torn-{number}")
        torn.write_bytes(each)
        torn.chmod(0o600)
        keys, why = load_keys(torn)
        assert keys == () and "torn" in why
        torn.unlink()


def test_keys_that_others_could_read_are_not_believed(file: Path) -> None:
    file.chmod(0o640)
    try:
        keys, why = load_keys(file)
    finally:
        file.chmod(0o600)
    assert keys == () and "readable by others" in why


def test_links_and_folders_are_not_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "ticket-keys"
    link.symlink_to(file)
    assert load_keys(link)[0] == ()
    assert load_keys(link)[1]
    save_keys(link, KEYS[:1])
    assert not link.is_symlink()
    assert load_keys(file) == (KEYS, ""), "what the link pointed at is untouched"
    assert load_keys(tmp_path)[1]
