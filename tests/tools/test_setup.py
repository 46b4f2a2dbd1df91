"""`make setup` names each thing that this machine lacks, in one line each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "machine.sh"
ALL = {"python3", "cargo", "rustc", "cc", "uname", "awk"}


def told(folder: Path, names: set[str], **scripts: str) -> tuple[int, list[str]]:
    """What tools/machine.sh says on a machine that has just these programs; `scripts` are fakes, by name."""
    for name in names - set(scripts):
        found = sys.executable if name == "python3" else shutil.which(name)
        assert found is not None, name
        wrapper = f'#!/bin/sh\nPATH="{Path(found).parent}:/usr/bin:/bin" exec {found} "$@"\n'
        scripts[name] = wrapper
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    done = subprocess.run(["/bin/sh", SCRIPT], env={"PATH": str(folder)}, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_machine_that_has_all(tmp_path: Path) -> None:
    assert told(tmp_path, ALL, rustc="#!/bin/sh\necho rustc 1.95.0 \\(x\\)\n") == (0, [])


@pytest.mark.parametrize(
    ("lacking", "words"), [("python3", "Python 3.11"), ("cargo", "Rust"), ("rustc", "Rust"), ("cc", "C compiler")]
)
def test_one_thing_is_missing(tmp_path: Path, lacking: str, words: str) -> None:
    code, lines = told(tmp_path, ALL - {lacking})
    assert code == 1 and len(lines) == 1 and words in lines[0], lines


def test_all_are_missing(tmp_path: Path) -> None:
    code, lines = told(tmp_path, {"uname", "awk"})
    assert code == 1 and len(lines) == 3, lines


@pytest.mark.parametrize(("version", "code"), [("1.94.1", 1), ("1.95.0", 0), ("1.100.0", 0), ("2.0.0", 0)])
def test_the_age_of_rust(tmp_path: Path, version: str, code: int) -> None:
    assert told(tmp_path, ALL, rustc=f"#!/bin/sh\necho 'rustc {version} (x)'\n")[0] == code


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n'
    code, lines = told(tmp_path, ALL, python3=old)
    assert code == 1 and "Python 3.9.2" in lines[0] and len(lines) == 1
