"""Interface to what runs the versions of a role's services on this machine.

A **slot** holds at most one version of a service. All calls are idempotent: a caller that was killed repeats its last call. What
runs in a slot outlives control.
"""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from sdlb.model.release import Artifact
from sdlb.model.role import RoleService

Fault = Literal["artifact", "program", "machine", "us"]
"""Whose failure it is: of the release, of the program of the service or of a `command` driver, of this machine (disk, user,
network), or of sdlb or its caller."""
Status = Literal["absent", "running", "pausing", "stopping", "stopped"]
"""`absent`: the slot is empty. `pausing`: the program has exited and is started again after a pause."""


class DriverFailed(Exception):
    """`retry`: the same call may succeed later without a change. `log`: the last lines of the program."""

    def __init__(self, fault: Fault, text: str, *, retry: bool, log: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.fault: Fault = fault
        self.text = text
        self.retry = retry
        self.log = log


class Slot(Struct, frozen=True):
    """`name`: tells two slots of the same service apart, while two versions run side by side."""

    role: str
    service: str
    name: str = "a"


class Plan(Struct, frozen=True):
    """What shall run in a slot. `artifact` None: the machine has everything. `port`: on 127.0.0.1, the choice of the caller."""

    slot: Slot
    version: str
    entry: RoleService
    port: int
    artifact: Artifact | None = None


class SlotState(Struct, frozen=True):
    """`pid` 0: not known, or nothing runs. `since_s`: Unix time of the last change of `status`. `restarts`: since the start of the
    version. `reason`: why it is not running. `log`: the last lines of the program. `warnings`: for example limits that
    this machine cannot enforce. `ended`: how its last run ended, and the last line of that run, also while it runs again; "": not
    known."""

    status: Status
    version: str = ""
    pid: int = 0
    port: int = 0
    since_s: float = 0.0
    restarts: int = 0
    next_start_s: float = 0.0
    """Unix time of the next start while `pausing`."""
    reason: str = ""
    log: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: str = ""


class Driver(Protocol):
    """All calls raise DriverFailed. One call at a time for each slot."""

    async def prepare(self, plan: Plan) -> None:
        """Everything that can be done and found out without starting anything: the artifact is fetched and verified."""
        ...

    async def start(self, plan: Plan) -> SlotState:
        """Starts the version, or finds that it runs. Returns once it was started; whether it is healthy is not known then.

        Fails if another version is in the slot: `stop` it first.
        """
        ...

    async def stop(self, slot: Slot) -> None:
        """Returns when no process of the slot is left."""
        ...

    async def state(self, slot: Slot) -> SlotState: ...

    async def forget(self, slot: Slot) -> None:
        """Removes what is kept about a slot, its log included. Fails if something still runs there."""
        ...
