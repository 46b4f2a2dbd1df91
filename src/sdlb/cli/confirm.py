"""Confirmation of a change that looks like a mistake."""

from __future__ import annotations

import sys

from sdlb.cli import out


def confirmed(what: str, question: str) -> bool:
    """Asks at a terminal. Elsewhere the change is refused with one line that names the option for scripts."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        out.message(f"{what}; nothing was changed (--yes skips this check)")
        return False
    print(f"{out.clean(what)}\n{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    out.message("nothing was changed")
    return False
