"""`[hook.NAME]` of the node file: the programs that hook gates of policies can name."""

from __future__ import annotations

from collections.abc import Mapping

from sdlb.model.hook_program import HookProgram
from sdlb.node.config_programs import read_command, read_env
from sdlb.node.config_reader import Reader

HOOKS_MAX = 256
TIMEOUT_S_MAX = 86_400
KEYS = ("command", "timeout_s", "env", "cwd")
EXAMPLE = 'command = ["/path/of/the/program"]'


def read_hooks(top: Reader) -> Mapping[str, HookProgram]:
    """The programs by name. Raises Invalid."""
    return {name: _hook(table) for name, table in top.named("hook", KEYS, HOOKS_MAX, EXAMPLE)}


def _hook(table: Reader) -> HookProgram:
    cwd = table.path("cwd")
    return HookProgram(
        read_command(table, "command"),
        table.number("timeout_s", 0.0, 0, TIMEOUT_S_MAX),
        tuple(sorted(read_env(table).items())),
        "/" if cwd is None else str(cwd),
    )
