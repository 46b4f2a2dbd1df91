"""Asks the hooks of gates and analyses: a POST to a URL, or a program that the node file names (`hook_program`).

| answer | outcome |
| --- | --- |
| 2xx, exit code 0 | "yes" |
| 202, 408, 425, 429, exit code 75 | "later" |
| other 4xx, other exit codes | "no" |
| all else: no connection, 3xx, 5xx, no answer in time, killed, not startable | "failed" |
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sdlb.adapters.hook_program import FAILED, LATER, NO, YES, Programs, environment, printable
from sdlb.adapters.http_client import error_text, load_http, new_client, read_start
from sdlb.core.effects import RunHook
from sdlb.model.hook_program import HookProgram

if TYPE_CHECKING:
    import httpx

URL_TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64 * 1024
SHOWN_CHARS = 300
RUNNING_MAX = 64
NOT_YET = frozenset((202, 408, 425, 429))

Outcome = tuple[str, str]


class Hooks:
    """`programs`, `file`: the tables `[hook.NAME]` of the node file, and its name. They may be replaced at any time."""

    def __init__(self, folder: Path, programs: Mapping[str, HookProgram], file: str) -> None:
        self.programs = programs
        self.file = file
        self._runner = Programs(folder)
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        self._http: tuple[Any, ssl.SSLContext] | None = None

    def reaps(self, pid: int) -> bool:
        """Whether this object waits for that child process itself."""
        return self._runner.reaps(pid)

    async def run(self, effect: RunHook) -> Outcome:
        """-> (outcome, detail). Never raises. A second call with the same key gets the result of the first one."""
        task = self._running.get(effect.key)
        if task is None:
            if len(self._running) >= RUNNING_MAX:
                return LATER, f"{len(self._running)} other hooks are running on this node"
            task = asyncio.create_task(self._run(effect), name=f"hook {effect.key}")
            self._running[effect.key] = task
            task.add_done_callback(lambda _: self._running.pop(effect.key, None))
        return await asyncio.shield(task)

    async def _run(self, effect: RunHook) -> Outcome:
        try:
            return await (self._program(effect) if effect.hook.run else self._url(effect))
        except Exception as error:
            return FAILED, f"the hook could not be asked: {error_text(error, SHOWN_CHARS)}"

    # ------------------------------------------------------------------ programs

    async def _program(self, effect: RunHook) -> Outcome:
        name = effect.hook.run
        program = self.programs.get(name)
        if program is None:
            return FAILED, self._unknown(name)
        about = {
            "SDLB_SERVICE": effect.service,
            "SDLB_VERSION": effect.version,
            "SDLB_REPLACES": " ".join(effect.replaces),
            "SDLB_KEY": effect.key,
            "SDLB_GATE": effect.hook.name,
        }
        if effect.analysis:
            about["SDLB_ANALYSIS"] = json.dumps(effect.analysis)
        limits = [limit for limit in (program.timeout_s, effect.hook.timeout_s) if limit]
        env = environment(program, os.environ, about)
        try:
            return await self._runner.run(program, effect.key, min(limits, default=0.0), env)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else error_text(error, SHOWN_CHARS)
            return FAILED, f"the program of hook {name} cannot be started: {what}"

    def _unknown(self, name: str) -> str:
        if not self.file:
            return f"this root has no node file, so there is no hook {name!r}; start it with --config FILE"
        near = get_close_matches(name, self.programs, 1)
        known = f"; did you mean {near[0]!r}?" if near else ""
        return f"{self.file} has no table [hook.{printable(name)}]{known or '; add it and send control SIGHUP'}"

    # ------------------------------------------------------------------ URLs

    async def _url(self, effect: RunHook) -> Outcome:
        hook = effect.hook
        shown = _shown(hook.url)
        limit_s = min(URL_TIMEOUT_S, hook.timeout_s or URL_TIMEOUT_S)
        body: dict[str, object] = {
            "service": effect.service,
            "version": effect.version,
            "replaces": list(effect.replaces),
            "gate": hook.name,
            "key": effect.key,
            **({"analysis": effect.analysis} if effect.analysis else {}),
        }
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "sdlb-hook",
            "idempotency-key": effect.key,
        }
        if self._http is None:
            self._http = await asyncio.to_thread(load_http)
        httpx, tls = self._http
        try:
            async with (
                asyncio.timeout(limit_s),
                new_client(tls) as client,
                client.stream("POST", hook.url, content=json.dumps(body).encode(), headers=headers) as answer,
            ):
                outcome = _outcome(answer.status_code)
                text = await _text(answer)
        except TimeoutError:
            return FAILED, f"{shown} did not answer within {limit_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return FAILED, f"{shown} could not be asked: {error_text(error, SHOWN_CHARS)}"
        what = f"{shown} answered {answer.status_code}"
        if answer.is_redirect:
            return FAILED, f"{what}; redirects are not followed: use the URL that it leads to"
        return outcome, f"{what}: {text}" if text else what


def _outcome(status: int) -> str:
    if status in NOT_YET:
        return LATER
    return YES if 200 <= status < 300 else NO if 400 <= status < 500 else FAILED


async def _text(answer: httpx.Response) -> str:
    """The start of a body that explains a refusal. Without one that can be read, the status says enough."""
    if answer.is_success and answer.status_code not in NOT_YET:
        return ""
    try:
        found = await read_start(answer.aiter_raw(), ANSWER_BYTES_MAX)
    except Exception:
        return ""
    return printable(found.decode("utf-8", "replace"))[:SHOWN_CHARS]


def _shown(url: str) -> str:
    """Without user name, password and query, which may be secret."""
    try:
        parts = urlsplit(url)
        return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")[:SHOWN_CHARS]
    except ValueError:
        return "the URL"
