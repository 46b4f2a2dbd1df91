"""The command line: `main` finds the command; each command is one file, imported only when it is typed.

Exit codes: 0 done; 1 refused or failed, with one line on stderr; 2 wrong usage. `run` ends with its program's code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    before = _quiet_interrupts()
    try:
        from sdlb.cli.app import execute

        code = execute(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader closed the pipe. Redirect stdout, so that the flush at exit does not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _quiet_interrupts() -> Any:
    """Makes Ctrl-C end the process immediately: as an exception it could be swallowed by an import. None: not
    changed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        return None
    return signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
