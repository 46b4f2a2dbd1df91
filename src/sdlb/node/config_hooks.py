"""`[hook.NAME]` of the node file: the programs that hook gates of policies can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sdlb.model.address import check_name
from sdlb.model.hook_program import HookProgram
from sdlb.node.config_programs import read_command, read_env
from sdlb.node.config_reader import Reader

HOOKS_MAX = 256
TIMEOUT_S_MAX = 86_400
KEYS = ("command", "timeout_s", "env", "cwd")


def read_hooks(top: Reader) -> Mapping[str, HookProgram]:
    """The programs by name. Raises Invalid."""
    if "hook" not in top:
        return {}
    if not isinstance(top.get("hook"), dict):
        top.fail("hook", 'tables: write [hook.NAME], and command = ["/path/of/the/program"]')
    all_hooks = top.table("hook", ())
    names = list(cast("dict[str, object]", top.get("hook")))
    if len(names) > HOOKS_MAX:
        top.refuse("hook", f"has {len(names)} tables", f"use at most {HOOKS_MAX}")
    return {name: _hook(all_hooks, name) for name in names}


def _hook(all_hooks: Reader, name: str) -> HookProgram:
    try:
        check_name(name)
    except ValueError as error:
        all_hooks.refuse(name, "is not a name of a hook", f"expected {error}")
    if not isinstance(all_hooks.get(name), dict):
        all_hooks.fail(name, f'a table: write [hook.{name}], and command = ["/path/of/the/program"]')
    table = all_hooks.table(name, KEYS)
    cwd = table.path("cwd")
    return HookProgram(
        read_command(table, "command"),
        table.number("timeout_s", 0.0, 0, TIMEOUT_S_MAX),
        tuple(sorted(read_env(table).items())),
        "/" if cwd is None else str(cwd),
    )
