"""The command line: `main` finds the command; each command is one file, imported only when it is typed.

Exit codes: 0 done; 1 refused or failed, with one line on stderr; 2 wrong usage. `run` ends with its program's code.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    from sdlb.cli.app import execute

    return execute(sys.argv[1:] if argv is None else argv)
