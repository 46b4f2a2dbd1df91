"""Becomes the supervisor of a slot, unless there is one."""

from __future__ import annotations

import os
import sys

from sdlb.adapters.supervisor import files
from sdlb.adapters.supervisor.child import become_subreaper
from sdlb.adapters.supervisor.loop import Supervisor


def main(folder: str) -> int:
    """The process that control has started returns at once; the supervisor goes on in the background with the lock."""
    lock = files.lock(folder)
    if lock < 0:
        return 0
    if os.fork():
        return 0
    os.setsid()
    become_subreaper()
    try:
        Supervisor(folder).run()
    except BaseException:
        import traceback

        traceback.print_exc(limit=20)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
