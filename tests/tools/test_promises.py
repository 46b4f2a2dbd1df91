"""A promise that lacks a check or a test is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import promises


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project where every promise is shown, and one cannot be checked."""
    monkeypatch.setattr(promises, "ROOT", tmp_path)
    monkeypatch.setattr(promises, "PAGE", tmp_path / "docs" / "promises.md")
    monkeypatch.setattr(promises, "NO_CHECK", {6: "the simulator has no identities"})
    for folder in ("src/sdlb/sim", "tests/e2e", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    checks = [n for n in promises.PROMISES if n not in promises.NO_CHECK]
    (tmp_path / "src/sdlb/sim/checks.py").write_text(
        "".join(f'@check({n}, "c{n}")\ndef c{n}(world):\n    """What {n} means. More."""\n\n\n' for n in checks)
    )
    (tmp_path / "tests/e2e/test_all.py").write_text(
        "".join(f"@pytest.mark.promise({n})\ndef test_{n}_holds(cluster): ...\n\n\n" for n in promises.PROMISES)
    )
    assert promises.main([]) == 0
    return tmp_path


def test_all_are_shown(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert promises.main(["--check"]) == 0, capsys.readouterr().err
    page = (tree / "docs/promises.md").read_text()
    assert "- What 1 means (`src/sdlb/sim/checks.py`: `c1`)" in page
    assert "- 8 holds (`tests/e2e/test_all.py`: `test_8_holds`)" in page


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("src/sdlb/sim/checks.py", '@check(5, "c5")\n', "", "promise 5 (Convergence) has no check"),
        ("src/sdlb/sim/checks.py", "@check(5,", "@check(6,", "promise 6 (No theft) has a check by now"),
        ("tests/e2e/test_all.py", "@pytest.mark.promise(6)\n", "", "promise 6 (No theft) has no test in tests/e2e"),
        ("tests/e2e/test_all.py", "promise(6)", "promise(66)", "there is no promise 66"),
        ("docs/promises.md", "Seed rule", "Seed role", "run `make promises`"),
    ],
)
def test_what_lacks_is_told(
    tree: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str, told: str
) -> None:
    path = tree / name
    path.write_text(path.read_text().replace(old, new))
    assert promises.main(["--check"]) == 1
    assert told in capsys.readouterr().err


def test_a_whole_file_can_be_marked(tree: Path) -> None:
    (tree / "tests/e2e/test_file.py").write_text("pytestmark = pytest.mark.promise(7)\n\n\ndef test_x(): ...\n")
    promises.main([])
    assert "test_file.py" in (tree / "docs/promises.md").read_text()
