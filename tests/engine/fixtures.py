"""Fixtures that a module may want for longer than one test: `recorder = recording("module")`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.compliance.recorder import Recorder


def recording(scope: Literal["function", "module"]) -> Any:
    """An endpoint that records, under the name `recorder`."""

    @pytest.fixture(scope=scope, name="recorder")
    def recorder() -> Iterator[Recorder]:
        with Recorder() as recorder:
            yield recorder

    return recorder
