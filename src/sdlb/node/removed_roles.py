"""Services that are no longer in the node file: their instances are drained, then their programs are stopped and forgotten.

The folders of slots show what a control before this one has run. If this control ends meanwhile, the next one continues.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

from sdlb.core.effects import Note, RunDriver
from sdlb.core.events import InstanceRemove
from sdlb.core.instance import AGENT
from sdlb.model.role import RoleService
from sdlb.node.drivers import Drivers
from sdlb.node.loop import NodeLoop
from sdlb.seams.driver import Slot

PAUSE_S, PAUSE_S_MAX = 1.0, 60.0


def removed(folder: Path, services: Collection[RoleService]) -> list[Slot]:
    """The slots on disk whose services are not in the node file. `folder`: of the slots."""
    known = {(each.role, each.service) for each in services}
    slots = [Slot(*path.relative_to(folder).parts) for path in sorted(folder.glob("*/*/*")) if path.is_dir()]
    return [slot for slot in slots if (slot.role, slot.service) not in known]


async def retire(slots: Collection[Slot], drivers: Drivers, loop: NodeLoop) -> None:
    for done in await asyncio.gather(*(_retire(slot, drivers, loop) for slot in slots), return_exceptions=True):
        if isinstance(done, Exception):
            text = "".join(traceback.format_exception(done, limit=-6))
            loop.report(Note("internal-error", text, "error"))


async def _retire(slot: Slot, drivers: Drivers, loop: NodeLoop) -> None:
    text = f"the node file has no [role.{slot.role}.{slot.service}] any more: draining its instance and stopping it"
    loop.report(Note("role-removed", text, "warning", {"service": slot.service}))
    for name in list(_instances(slot, loop)):
        await loop.do(InstanceRemove(name, None))
        while loop.balancer.view.instance(name) is not None:
            await loop.instances.wait(name, PAUSE_S)
    pause_s = PAUSE_S
    for call in ("stop", "forget"):
        while (done := await drivers.run(RunDriver("removed", slot.role, slot.service, call, slot.name))).fault:
            text = f"{slot.service} of the removed role {slot.role} cannot be stopped: {done.detail}"
            loop.report(Note("role-removed", text, "error", {"service": slot.service}))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)


def _instances(slot: Slot, loop: NodeLoop) -> Iterator[str]:
    """What the agent has registered for the slot."""
    end = f".{slot.role}-{slot.name}"
    for each in loop.balancer.view.instances():
        if each["owner"] == AGENT and each["service"] == slot.service and each["id"].endswith(end):
            yield each["id"]
