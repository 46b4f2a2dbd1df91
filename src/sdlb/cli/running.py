"""The life cycle of `sdlb run`: start, healthy, registered, (signal) drained, stopped.

The order loses no request: the program is registered only when it is healthy, and stopped only after the node has
reported it as drained. It ends early when the program exits (the node is informed) or a second signal arrives.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from sdlb.cli.program import Program, health_problem, healthy
from sdlb.node.reaper import Reaper
from sdlb.sdk import calls
from sdlb.sdk.asyncio_http import carry_out
from sdlb.sdk.pids import visible_pid
from sdlb.sdk.problem import Problem, Unreachable
from sdlb.sdk.renewal import Renewal
from sdlb.sdk.types import Spec

T = TypeVar("T")
GONE_WITHIN_S = 5.0
_RETRY_S = 0.2


class Job(Struct, frozen=True):
    """`spec.pid` is filled in once the program runs; `words` is its command line, with the port or socket filled in.
    `variables` are added to its environment; `listens_at` describes in words where it shall listen."""

    spec: Spec
    words: tuple[str, ...]
    variables: Mapping[str, str]
    listens_at: str
    socket: str
    start_timeout_s: float
    drain_deadline_s: float
    stop_grace_s: float


class Run:
    """The life cycle of one program. `report` gets one line for each step, `fail` one for each error."""

    def __init__(self, job: Job, report: Callable[[str], None], fail: Callable[[str], None]) -> None:
        self.job = job
        self.report = report
        self.fail = fail
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._leave = asyncio.Event()

    async def live(self) -> int:
        """Returns the exit code. Raises OSError when the program can't be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # keep signals ignored that nohup ignores
                loop.add_signal_handler(number, self._signals.put_nowait, number)
        job = self.job
        program = await Program.start(job.words, {**os.environ, **job.variables})
        reaper = Reaper(lambda pid: pid == program.pid)
        reaper.start()
        try:
            return await self._serve(program)
        finally:
            reaper.close()
            if program.code is None:
                await program.stop(job.stop_grace_s)

    async def _serve(self, program: Program) -> int:
        code = await self._until_healthy(program)
        if code is not None:
            return code
        spec = msgspec.structs.replace(
            self.job.spec, pid=await asyncio.to_thread(visible_pid, self.job.socket, program.pid)
        )
        renewal = Renewal(spec, self.report)
        keeping = asyncio.create_task(self._keep(renewal), name="renew")
        which = await _first(program.ended(), self._signals.get(), asyncio.shield(keeping))
        self._leave.set()
        # A renewal in progress must not arrive after the deregistration; only a second signal does not wait for it.
        hurried = await _first(asyncio.shield(keeping), self._signals.get()) == 1
        if hurried:
            keeping.cancel()
        elif (refusal := keeping.result()) is not None:
            self.fail(refusal.detail)
            await program.stop(self.job.stop_grace_s)
            return 1
        drained = which == 1 and not hurried and renewal.registered and await self._drain(spec, program)
        ended = program.code
        code = await self._stop(program) if ended is None else ended
        if renewal.registered and not drained:
            await self._gone(spec)
        if ended is not None:
            self.fail(f"{spec.label} exited with {program.exit_text}")
        return code

    async def _until_healthy(self, program: Program) -> int | None:
        """None: the program is healthy; else the exit code."""
        job = self.job
        label = job.spec.label
        healthy_in_time = _within(healthy(job.spec.health, job.spec.endpoint), job.start_timeout_s)
        which = await _first(program.ended(), self._signals.get(), healthy_in_time)
        if which == 0:
            self.fail(f"{label} exited with {program.exit_text} before it was healthy")
            return program.code or 1
        if which == 1:
            return await self._stop(program)
        why = await health_problem(job.spec.health, job.spec.endpoint)
        if why is None:
            return None
        self.fail(
            f"{label} was not healthy within {job.start_timeout_s:g} s ({why}); check that it "
            f"listens on {job.listens_at}, or change --health or --start-timeout"
        )
        await program.stop(job.stop_grace_s)
        return 1

    async def _keep(self, renewal: Renewal) -> Problem | None:
        """Renews until it is time to leave (None), or until the registration is refused for good (the Problem)."""
        while not self._leave.is_set():
            try:
                wait_s = renewal.succeeded(await carry_out(self.job.socket, calls.register(renewal.spec)))
            except Problem as problem:
                if renewal.is_final(problem):
                    return problem
                wait_s = renewal.failed(problem)
            await _within(self._leave.wait(), wait_s)
        return None

    async def _drain(self, spec: Spec, program: Program) -> bool:
        """True when the node knows; False when the program exited first, or a second signal arrived."""
        which = await _first(program.ended(), self._signals.get(), self._deregister(spec))
        if which == 1:
            self.fail(f"{spec.label}: second signal; stopping without draining")
        return which == 2

    async def _deregister(self, spec: Spec) -> None:
        until = asyncio.get_running_loop().time() + self.job.drain_deadline_s
        reported = False
        while (left_s := until - asyncio.get_running_loop().time()) > 0:
            try:
                last = await carry_out(self.job.socket, calls.deregister(spec.id, left_s, False, spec.pid))
            except Unreachable as problem:
                if not reported:
                    self.fail(f"{problem.detail} (retrying for {left_s:.0f} s, then stopping without draining)")
                reported = True
                await asyncio.sleep(_RETRY_S)
                continue
            except Problem as problem:
                if problem.status not in (404, 409):  # already removed, or another program has the id now
                    self.fail(f"{spec.label} was not drained: {problem.detail}")
                return
            if last.drained:
                self.report(f"{spec.label} is drained")
            else:
                self.fail(f"{spec.label} still has {last.in_flight} requests in flight; stopping it anyway")
            return

    async def _gone(self, spec: Spec) -> None:
        """Reports the exit to the node. If the node cannot be reached, it notices the exit of the process or the end of
        the lease."""

        async def say() -> None:
            while True:
                try:
                    await carry_out(self.job.socket, calls.deregister(spec.id, 0, True, spec.pid))
                    return
                except Unreachable:
                    await asyncio.sleep(_RETRY_S)
                except Problem as problem:
                    if problem.status not in (404, 409):
                        self.fail(f"{spec.label}: {problem.detail}")
                    return

        await _within(say(), GONE_WITHIN_S)

    async def _stop(self, program: Program) -> int:
        """0 when the SIGTERM of this process ended the program; else its own exit code."""
        label, grace_s = self.job.spec.label, self.job.stop_grace_s
        if not await program.stop(grace_s):
            self.fail(f"{label} did not stop within {grace_s:g} s of SIGTERM and was killed")
        code = program.code
        assert code is not None
        return 0 if code == 128 + signal.SIGTERM else code


async def _within(work: Awaitable[object], seconds: float) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return


async def _first(*works: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> int:
    """The index of the first work that is done (if several are, the lowest); the others are cancelled.

    Raises the exception of that work.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done = next(index for index, task in enumerate(tasks) if task.done())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    tasks[done].result()
    return done
