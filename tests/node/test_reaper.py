"""The reaper of child processes beside programs whose exit codes are waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdlb.adapters import engine_process
from sdlb.node.reaper import Reaper


def test_the_exit_code_of_a_program_that_the_engine_runs_is_not_taken() -> None:
    async def scenario() -> None:
        reaper = Reaper(engine_process.reaps)
        reaper.start()
        try:
            words = ["/bin/sh", "-c", "echo said; exit 3"]
            found = [await engine_process.output(words, Path("/"), 20.0) for _ in range(20)]
        finally:
            reaper.close()
        assert set(found) == {(3, "said\n")}

    asyncio.run(scenario())
