"""`[hook.NAME]` of the node file: the programs that hook gates of policies can name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from sdlb.model.address import check_name
from sdlb.model.hook_program import HookProgram
from sdlb.node.config_reader import Reader

HOOKS_MAX = 256
WORDS_MAX = 256
TIMEOUT_S_MAX = 86_400
KEYS = ("command", "timeout_s", "env", "cwd")
OURS = "SDLB_"
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_COMMAND = 'a list: the absolute path of the program and its arguments, for example ["/usr/local/bin/migrate", "--yes"]'


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
        _command(table),
        table.number("timeout_s", 0.0, 0, TIMEOUT_S_MAX),
        tuple(sorted(_env(table).items())),
        "/" if cwd is None else str(cwd),
    )


def _command(table: Reader) -> tuple[str, ...]:
    if "command" not in table:
        table.refuse("command", "is missing", f"expected {_COMMAND}")
    value = table.get("command")
    if not isinstance(value, list):
        table.fail("command", f"{_COMMAND}; no shell reads it")
    words = cast("list[object]", value)
    if not 1 <= len(words) <= WORDS_MAX or not all(map(_word, words)):
        table.fail("command", f"{_COMMAND}; at most {WORDS_MAX} strings of up to 4096 characters")
    found = tuple(cast("list[str]", words))
    if not found[0].startswith("/"):
        table.fail("command", _COMMAND)
    return found


def _word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 4096 and "\0" not in value


def _env(table: Reader) -> dict[str, str]:
    if "env" not in table:
        return {}
    inner = table.table("env", ())
    data = cast("dict[str, object]", table.get("env"))
    if len(data) > WORDS_MAX:
        table.refuse("env", f"has {len(data)} variables", f"use at most {WORDS_MAX}")
    for name, value in data.items():
        if not _VARIABLE.match(name):
            inner.refuse(name, "is not a variable's name", "use letters, digits and underscores")
        if name.startswith(OURS):
            inner.refuse(name, f"starts with {OURS}, which sdlb sets itself", "use another name")
        if not _word(value):
            inner.fail(name, "a string of at most 4096 characters")
    return cast("dict[str, str]", data)
