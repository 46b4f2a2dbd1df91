"""The record of what is in a slot, as the drivers `command`, `container` and `systemd` keep it in the folder of the slot.

It is written before anything is done, so that a call that is repeated finds what the last one has begun.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from sdlb.adapters.supervisor import files
from sdlb.seams.driver import DriverFailed, Plan, Slot, SlotState

STOPPING, STOPPED = "stopping", "stopped"
"""Phases that all drivers have. STOPPED: nothing runs in the slot, for certain."""


class Record(Protocol):
    """A NamedTuple."""

    @property
    def phase(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def version(self) -> str: ...
    def _replace(self, **values: Any) -> Self: ...


R = TypeVar("R", bound=Record)


def put(folder: str, name: str, record: Record) -> None:
    """Raises DriverFailed."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files.write(folder, name, record)
    except OSError as error:
        raise DriverFailed("machine", f"{folder} cannot be written ({error.strerror})", retry=True) from None


def fingerprint(record: NamedTuple) -> str:
    """Of a record whose own fingerprint and time are not set yet."""
    return hashlib.sha256(json.dumps(record._asdict(), sort_keys=True).encode()).hexdigest()


def about(plan: Plan) -> dict[str, str]:
    """The variables that tell a program what it is."""
    return {
        "SDLB_ROLE": plan.slot.role,
        "SDLB_SERVICE": plan.slot.service,
        "SDLB_VERSION": plan.version,
        "SDLB_SLOT": plan.slot.name,
    }


async def check_free(
    plan: Plan, known: Record | None, wanted: str, state: Callable[[Slot], Awaitable[SlotState]] | None = None
) -> None:
    """Before a start. `wanted`: the fingerprint of what shall run. `state`: of the slot, if something else that has stopped by
    itself may be replaced. Raises DriverFailed."""
    if known is None or known.phase == STOPPED:
        return
    if known.fingerprint != wanted and (state is None or (await state(plan.slot)).status != "stopped"):
        raise DriverFailed("us", f"the slot has {plan.slot.service}-{known.version}; stop it first", retry=False)
    if known.phase == STOPPING:
        raise DriverFailed("us", "the slot is being stopped", retry=True)


def begin_stop(folder: str, name: str, kind: type[R]) -> R | None:
    """The record, which says from now on that the slot is being stopped. None: nothing runs in it. Raises DriverFailed."""
    record = files.read(folder, name, kind)
    if record is None or record.phase == STOPPED:
        return None
    # A public method of every NamedTuple.
    begun = record._replace(phase=STOPPING, since_s=time.time())  # pyright: ignore[reportPrivateUsage]
    put(folder, name, begun)
    return record


def check_forgettable(record: Record) -> None:
    """Raises DriverFailed."""
    if record.phase != STOPPED:
        raise DriverFailed("us", "something may run in the slot; stop it first", retry=False)
