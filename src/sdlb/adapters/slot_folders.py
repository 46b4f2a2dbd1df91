"""The folders of slots, `FOLDER/ROLE/SERVICE/NAME`, which both drivers of programs use."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from sdlb.seams.driver import Slot

_SEGMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def path(folder: Path, slot: Slot) -> str:
    """Raises ValueError for a name that could lead out of the folder."""
    for segment in (slot.role, slot.service, slot.name):
        if not _SEGMENT.match(segment):
            raise ValueError(f"not a name: {segment!r}")
    return str(folder / slot.role / slot.service / slot.name)


def remove(folder: str) -> None:
    """Removes the folder of a slot, and the folders of its service and role if no other slot is in them."""
    shutil.rmtree(folder, ignore_errors=True)
    for above in (os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))):
        with contextlib.suppress(OSError):
            os.rmdir(above)
