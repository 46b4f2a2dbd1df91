"""Releases of the demo's application: a tar with one program, and what release and node files need."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

from sdlb.cli.demo.launch import APP

COMMAND = ("./app", "--service", "catalog", "--version", "{version}", "--instance", "{port}")
"""The program's name is the only thing that node files and artifacts have in common."""


def pack(file: Path, program: str = "", *, comment: str = "") -> str:
    """Writes a tar whose file `app` is the program, a Python source; returns its SHA-256. `comment`: makes another digest."""
    source = f"#!{sys.executable} -IS\n# {comment}\n{program or APP.read_text()}".encode()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("app")
        entry.size, entry.mode = len(source), 0o755
        archive.addfile(entry, io.BytesIO(source))
    file.write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def release(
    folder: Path, version: str, program: str = "", platform: str = "any", service: str = "catalog"
) -> dict[str, Any]:
    """A release, as a release file has it; its artifact is in the folder."""
    file = folder / f"{service}-{version}.tar"
    sha256 = pack(file, program, comment=version)
    artifact = {platform: {"url": str(file), "sha256": sha256}}
    return {"service": service, "version": version, "artifact": artifact}
