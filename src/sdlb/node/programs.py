"""Watches the processes of the programs that drivers run, so that the end of one is known in the same moment.

Health checks alone would miss a program that exits and is healthy again between two checks. A pidfd names one process; after its end
the driver is asked until it has started the next one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from sdlb.seams.driver import DriverFailed, Slot, SlotState

POLL_S, POLL_S_MAX = 0.2, 60.0
NOTICE_S, NOTICE_POLL_S = 1.0, 0.02
"""The driver may learn of the end a moment after this watch."""
EXITED = "its program has exited"


class Programs:
    """`ended`: the program on this port has exited, and why. `started`: another one runs there. `state`: of a slot."""

    state: Callable[[Slot], Awaitable[SlotState]]

    def __init__(self, ended: Callable[[int, str], None], started: Callable[[int], None]) -> None:
        self._ended = ended
        self._started = started
        self._watched: dict[Slot, tuple[int, int]] = {}  # process id and its pidfd
        self._asking: dict[Slot, asyncio.Task[None]] = {}
        self._down: set[Slot] = set()

    def watch(self, slot: Slot, state: SlotState) -> None:
        """`state`: what the driver has just reported."""
        if state.pid and self._watched.get(slot, (0, -1))[0] == state.pid:
            return
        self.drop(slot)
        if state.status == "pausing":
            self._exited(slot, state)
        elif state.status == "running":
            if slot in self._down:
                self._down.discard(slot)
                self._started(state.port)
            if state.pid:
                self._watch_process(slot, state)

    def _watch_process(self, slot: Slot, state: SlotState) -> None:
        try:
            fd = os.pidfd_open(state.pid)
        except ProcessLookupError:
            self._exited(slot, state)
        except OSError:  # no pidfd here: health checks have to do
            pass
        else:
            self._watched[slot] = state.pid, fd
            asyncio.get_running_loop().add_reader(fd, self._exited, slot, state)

    def drop(self, slot: Slot) -> None:
        """It is stopped on purpose."""
        self._unwatch(slot)
        task = self._asking.pop(slot, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def close(self) -> None:
        for slot in {*self._watched, *self._asking}:
            self.drop(slot)

    def _unwatch(self, slot: Slot) -> None:
        _, fd = self._watched.pop(slot, (0, -1))
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _exited(self, slot: Slot, last: SlotState) -> None:
        self._unwatch(slot)
        self._down.add(slot)
        self._asking[slot] = asyncio.create_task(self._ask(slot, last), name=f"program of {slot.service}")

    async def _ask(self, slot: Slot, last: SlotState) -> None:
        """Until the driver has started the next program, or has nothing to start."""
        why, until = "", time.monotonic() + NOTICE_S
        while True:
            try:
                state = await self.state(slot)
            except DriverFailed as error:
                state = SlotState("stopping", reason=error.text)  # what runs is not known now
            unnoticed = state.status == "running" and bool(state.pid) and state.pid == last.pid
            if unnoticed and time.monotonic() < until:
                await asyncio.sleep(NOTICE_POLL_S)
                continue
            if state.status == "running" and not unnoticed:
                if not why:
                    self._ended(last.port, EXITED)
                self.watch(slot, state)
                return
            now = EXITED if unnoticed else _reason(state)
            if now != why:
                why = now
                self._ended(last.port, why)
            if state.status in ("absent", "stopped"):
                self._asking.pop(slot, None)
                return
            left_s = state.next_start_s - time.time() if state.status == "pausing" else 0.0
            await asyncio.sleep(min(max(POLL_S, left_s), POLL_S_MAX))


def _reason(state: SlotState) -> str:
    reason = state.reason or EXITED
    return f"{reason}: {state.log[-1]}" if state.log else reason
