"""Reads the files that operators write. Each error names the file and, where it is known, the line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sdlb.model.problem import Invalid

FILE_MIB_MAX = 1


def read_text(where: str, code: str, expected: str, mib_max: int = FILE_MIB_MAX) -> str:
    """`code`: of the problem; `expected`: what to do if the file is longer than `mib_max`. Raises Invalid."""
    bytes_max = mib_max << 20
    try:
        with Path(where).open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        do = "give a file that this user can read"
        raise Invalid(code, where, f"cannot be read ({error.strerror})", do) from None
    if len(raw) > bytes_max:
        raise Invalid(code, where, f"is longer than {mib_max} MiB", expected)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Invalid(code, f"{where}:{line}", "is not UTF-8", "save the file as UTF-8") from None


def parse_toml(text: str, where: str, code: str, expected: str) -> dict[str, Any]:
    """`expected`: what to do if it is nested too deeply. Raises Invalid."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(code, where, f"is not TOML: {error}", "fix that line; see https://toml.io") from None
    except RecursionError:
        raise Invalid(code, where, "is nested too deeply", expected) from None
