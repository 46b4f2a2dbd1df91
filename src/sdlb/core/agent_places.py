"""What the control of a node knows of a slot of the driver, from the driver's answers since the control was started."""

from __future__ import annotations

from msgspec import Struct

from sdlb.core.events import DriverDone

PAUSE_S_MAX = 60.0
"""Longest pause before a failed call is repeated, or a program is started again. The pauses grow from one second."""
STABLE_S = 60.0
"""A program that was healthy for so long is started again without the pauses of earlier starts."""
LOOK_S_MAX = 30.0
LOOK_VERIFYING_S_MAX = 4.0
"""Longest pause between two looks at a program that is not healthy."""


def pause_s(times: int) -> float:
    return min(2.0 ** (times - 1), PAUSE_S_MAX)


class Call(Struct):
    """A call of the driver in progress, since `at`."""

    key: str
    call: str
    at: float
    version: str = ""


def no_answer(call: Call, now: float) -> DriverDone:
    text = f"the driver has not answered `{call.call}` for {now - call.at:.0f} s"
    return DriverDone(call.key, "us", text, retry=True)


class Runtime(Struct):
    """`status`: as reported last; "": not known. `due`: time of the next call. `fails`: failed calls in a row. `starts`: since the
    program was last healthy for long. `looks`: in a row, at a program that is not healthy. `fault`, `retry`: of the last `start`.
    `up_since`: since when it is healthy. `broke`: how often it was healthy or running and was no more, which the rules have not seen
    yet. `counted`: the end of this run was seen by them. `ended`: how a run last ended, in the driver's words, and its last line.
    `exits`: of the program, as the driver counts them; None: not known yet. `lost`: it was not healthy any more at `lost_at`, and the
    driver has not been asked since. `fresh`: the driver has reported nothing since the start of this control. `renew`: this control has
    found a program that exits again and again and waits for its next start: perhaps the node file has been corrected, which only
    another `start` puts into effect."""

    status: str = ""
    version: str = ""
    pid: int = 0
    port: int = 0
    call: Call | None = None
    due: float = 0.0
    fails: int = 0
    starts: int = 0
    looks: int = 0
    fault: str = ""
    detail: str = ""
    retry: bool = False
    log: tuple[str, ...] = ()
    up_since: float | None = None
    lost_at: float = 0.0
    broke: int = 0
    counted: bool = True
    ended: str = ""
    exits: int | None = None
    lost: bool = False
    fresh: bool = False
    renew: bool = False

    def begin_anew(self) -> None:
        """Something else shall be in the slot from now on."""
        self.due, self.fails, self.looks, self.starts, self.fault, self.ended = 0.0, 0, 0, 0, "", ""

    def failed(self, call: Call, event: DriverDone, now: float) -> None:
        self.fails += 1
        self.due = now + pause_s(self.fails)
        self.detail, self.log = event.detail, event.log
        if call.call == "start":
            self.fault, self.retry = event.fault, event.retry
            self.status = ""  # something may run there after all

    def reported(self, call: Call, event: DriverDone, now: float) -> None:
        """The answer to `start` or `state`."""
        runs = event.status == "running"
        self.renew = self.fresh and event.status == "pausing"
        self.fresh = False
        again = runs and bool(self.pid) and event.pid != self.pid
        if call.call == "start":
            self.fault, self.counted, again = "", False, False
            self.starts += 1
        if not self.fault:
            self.fails, self.detail = 0, event.detail
        exits = self._exits(call, event)
        if (again or event.status in ("pausing", "stopped", "absent")) and not self.counted:
            self.counted = True
            exits = max(exits, 1)
        self.broke += exits
        if runs:
            self.counted = False
        if event.ended:
            self.ended = event.ended
        elif event.status in ("pausing", "stopped") and event.detail:
            self.ended = f"{event.detail}: {event.log[-1]}" if event.log else event.detail
        if event.status != self.status:
            self.looks = 0
        if event.status in ("stopped", "absent") and self.starts:
            self.due = now + pause_s(self.starts)  # it does not stay
        self.status, self.version, self.pid, self.port = event.status, event.version, event.pid, event.port
        self.log = event.log or self.log

    def _exits(self, call: Call, event: DriverDone) -> int:
        """How often the program has exited since the driver was last asked, and since it was last seen not to be healthy. Between two
        looks it may exit many times."""
        before, lost = self.exits, self.lost
        self.exits, self.lost = event.restarts + (event.status == "pausing"), False
        return 0 if call.call == "start" or before is None else max(0, self.exits - before - lost)

    def watch(self, up: bool, now: float) -> None:
        """`up`: the driver and the health checks agree that it is healthy."""
        if up and self.up_since is None:
            self.up_since, self.looks, self.counted = now, 0, False
        elif not up and self.up_since is not None:
            self.starts = self.starts if now < self.up_since + STABLE_S else 0
            self.up_since, self.counted, self.due, self.lost, self.lost_at = None, True, 0.0, True, now
            self.broke += 1

    def look(self, now: float, *, verifying: bool) -> bool:
        """Whether to look now at a program that is not healthy. It was seen at the first time."""
        self.due = now + min(2.0**self.looks, LOOK_VERIFYING_S_MAX if verifying else LOOK_S_MAX)
        self.looks = min(self.looks + 1, 16)
        return self.looks > 1
