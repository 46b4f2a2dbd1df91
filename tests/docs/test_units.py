"""The systemd units of docs/install/systemd.md are accepted by systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/install/systemd.md").read_text()
UNITS = re.findall(r"`/etc/systemd/system/([\w@.]+)`.*?^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_both_units_are_found() -> None:
    assert [name for name, _ in UNITS] == ["sdlb.service", "catalog@.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(("name", "text"), UNITS)
def test_systemd_accepts_the_unit(name: str, text: str, tmp_path: Path) -> None:
    installed = str(Path(sys.executable).with_name("sdlb"))
    for other, unit in UNITS:  # one orders itself after the other
        (tmp_path / other).write_text(unit.replace("/opt/sdlb/bin/sdlb", installed))
    unit = tmp_path / name.replace("@.", "@1.0.1.")
    if not unit.exists():
        unit.symlink_to(name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "sdlb" in line or "catalog" in line]
    assert not said, done.stderr
    assert done.returncode == 0, done.stderr
