"""The command line: `main` finds the command; each command is one file, imported only when it is typed.

Exit codes: 0 done; 1 refused or failed, with one line on stderr; 2 wrong usage. `run` ends with its program's code.
"""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    from sdlb.cli.app import execute

    try:
        code = execute(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # the reader of a pipe has seen enough; nothing may be flushed to it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
