"""A program that a hook gate can name: the table `[hook.NAME]` of a root's node file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HookProgram:
    """`command`: the absolute path of the program, then its arguments. `timeout_s` 0: the gate's time-out decides alone.
    `env`: added to the environment."""

    command: tuple[str, ...]
    timeout_s: float = 0.0
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str = "/"
