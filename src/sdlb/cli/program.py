"""A program as a child process: started in its own process group, health checked, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

import msgspec

from sdlb.node.child import die_with_parent
from sdlb.node.probe import probe
from sdlb.sdk.types import Health

_POLL_FIRST_S, _POLL_MAX_S, _TRY_S = 0.02, 0.25, 1.0


class Program:
    """A running child. It shares the standard streams of this process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ended = asyncio.create_task(process.wait(), name="program")

    @classmethod
    async def start(cls, words: Sequence[str], env: Mapping[str, str]) -> Program:
        """Raises OSError when there is no such program. It ends with this process: otherwise it would keep running with no
        process to renew its lease or to stop it. It has its own group, so that Ctrl-C reaches only this process,
        which drains first."""
        process = await asyncio.create_subprocess_exec(
            *words, env=dict(env), process_group=0, preexec_fn=die_with_parent()
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """None while it runs; the exit code, 128 + n for signal n."""
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    @property
    def exit_text(self) -> str:
        """ "exit status 3", "signal 9 (SIGKILL)" """
        code = self._process.returncode
        if code is None:
            return "nothing"
        if code >= 0:
            return f"exit status {code}"
        with contextlib.suppress(ValueError):
            return f"signal {-code} ({signal.Signals(-code).name})"
        return f"signal {-code}"

    async def ended(self) -> int:
        await asyncio.shield(self._ended)
        code = self.code
        assert code is not None
        return code

    async def stop(self, grace_s: float) -> bool:
        """Sends SIGTERM to the program's group, and SIGKILL to what is left after the grace time. False: SIGKILL was
        needed."""
        self._signal(signal.SIGTERM)
        self._signal(
            signal.SIGCONT
        )  # a stopped process (for example one that read from a terminal) would not get the signal
        try:
            await asyncio.wait_for(self.ended(), grace_s)
            return True
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended()
            return False

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def healthy(check: Health, endpoint: str) -> None:
    """Returns as soon as the check passes; repeats it without limit."""
    wait_s = _POLL_FIRST_S
    while await health_problem(check, endpoint) is not None:
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, _POLL_MAX_S)


async def health_problem(check: Health, endpoint: str) -> str | None:
    """The result of one health check, made as the node makes it. None: healthy."""
    if check.kind == "none":
        return None
    patient = msgspec.structs.replace(check, timeout_s=max(check.timeout_s, _TRY_S))
    why = await probe(endpoint, patient)
    return f"{endpoint}: {why}" if why else None
