"""`sdlb node`: one node from its start to its end.

Start: configuration, state folder and lock, store, incarnation + 1 (durable before anybody hears of it), engine, links,
API, loop. SIGTERM or SIGINT: everything through this node is drained, parents are told, engine and control end; a
second signal ends both at once. SIGHUP: the node file is read again, a bad one changes nothing; and the access log's file is opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from sdlb.core.effects import Note
from sdlb.core.events import Stop
from sdlb.model.identity import Identity
from sdlb.model.problem import Invalid
from sdlb.node.config import NodeConfig, Options, read_config
from sdlb.node.journal import Journal

DRAIN_S = 30.0
"""How long a node that is stopped waits for what goes through it."""
LIVE = ("listen_http", "listen_https", "sites", "public", "limits", "access_log", "identity")
"""What SIGHUP changes in a running node; the rest needs a restart of control, which the engine outlives."""


def run_node(options: Options) -> int:
    """Runs until stopped. Exit code 0: stopped as asked; 1: refused or failed, with one line on stderr; 2: usage."""
    try:
        config = read_config(options)
        asyncio.run(serve(config, options))
    except Invalid as error:
        print(f"sdlb node: {error}", file=sys.stderr)
        return 2 if error.code == "usage" else 1
    except OSError as error:
        print(f"sdlb node: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(config: NodeConfig, options: Options | None = None) -> None:
    """Raises Invalid or OSError (StoreFailed, EngineFailed) when the node cannot start."""
    from sdlb.node.places import StateFolder, listen_unix, remove_socket

    folder = StateFolder(config.state_dir)
    try:
        api_socket = listen_unix(config.socket, config.socket_mode)
        try:
            await _serve(config, options, folder, api_socket)
        finally:
            remove_socket(config.socket, api_socket)
    finally:
        folder.close()


async def _serve(config: NodeConfig, options: Options | None, folder: Any, api_socket: Any) -> None:
    journal = Journal(config.name, level=config.log_level)
    logging.lastResort = journal.handler()  # what libraries log must not block control either
    try:
        await _serve_told(config, options, folder, api_socket, journal)
    finally:
        journal.end()


async def _serve_told(
    config: NodeConfig, options: Options | None, folder: Any, api_socket: Any, journal: Journal
) -> None:
    from sdlb.node.compose import INCARNATION, NODE_ID, Node, open_store

    store = open_store(folder.path, journal)
    saved = await store.load()
    identity = {
        NODE_ID: saved.get(NODE_ID) or secrets.token_hex(16),
        INCARNATION: int(str(saved.get(INCARNATION) or 0)) + 1,
    }
    await store.commit(identity, durable=True)
    node = Node(config, folder, journal, store, {**saved, **identity})
    saved.clear()
    try:
        await node.children.start()
        await node.sites.adopt(config.sites)
        await node.start_engine()
        _tell_start(node.journal, config)
        await _Life(node, options, api_socket).live()
    finally:
        node.health.close()
        await node.parents.close()
        await node.children.close()
        await node.engine.detach()
        await store.close()


def _tell_start(journal: Journal, config: NodeConfig) -> None:
    entry = f", clients on {config.listen_http}" if config.listen_http else ""
    entry += f", with TLS on {config.listen_https} (sites: {len(config.sites)})" if config.listen_https else ""
    above = f", parents {', '.join(config.parents)}" if config.parents else ", a root"
    text = f"node {config.name} is up: nodes on {config.listen_node}{entry}{above}, API at {config.socket}"
    journal.tell(Note("node-started", text))
    if config.identity is None and not config.listen_node.startswith(("127.", "[::1]")):
        text = f"node links on {config.listen_node} are in clear text: keep that network to yourself"
        journal.tell(Note("insecure-link", text, "warning"))


class _Life:
    """From the first turn of the loop to the end."""

    def __init__(self, node: Any, options: Options | None, api_socket: Any) -> None:
        from sdlb.node.compose import Node

        assert isinstance(node, Node)
        self._node = node
        self._config = node.config
        self._options = options
        self._socket = api_socket
        self._signals = 0
        self._at_once = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._configuring = asyncio.Lock()

    async def live(self) -> None:
        from sdlb.node.server import serve_api

        node = self._node
        events = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            events.add_signal_handler(number, self._stop)
        events.add_signal_handler(signal.SIGHUP, self._reload)
        config = node.config
        listen = {"http": config.listen_http, "https": config.listen_https, "node": config.listen_node}
        await node.loop.start()
        node.watch_saved()
        turning = asyncio.create_task(node.loop.run(), name="loop")
        serving, stop_api = serve_api(node, self._socket, listen)
        at_once = asyncio.create_task(self._at_once.wait())
        watching = asyncio.create_task(node.sites.run(), name="sites")
        renewing = asyncio.create_task(node.identity.run(self._take_identity), name="identity")
        gc.collect()
        gc.freeze()  # what was made at the start lives as long as the node
        try:
            ends = (turning, watching, renewing, serving, at_once, node.loop.stopped)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (turning, watching, renewing):
                if task.done():
                    task.result()
            clean = node.loop.stopped.done() and node.loop.stopped.result()
            node.journal.tell(Note("node-stopping", "drained" if clean else "stopping without waiting any longer"))
            await node.parents.close()
            await self._end_engine()
        finally:
            await stop_api()
            at_once.cancel()
            for task in (turning, watching, renewing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await node.loop.close()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                events.remove_signal_handler(number)

    async def _end_engine(self) -> None:
        """What is in flight is answered, unless a second signal says otherwise."""
        if not self._at_once.is_set():
            ending = asyncio.create_task(self._node.engine.shut_down(DRAIN_S))
            at_once = asyncio.create_task(self._at_once.wait())
            await asyncio.wait((ending, at_once), return_when=asyncio.FIRST_COMPLETED)
            at_once.cancel()
            if ending.done():
                ending.result()
                return
            ending.cancel()
        await self._node.engine.shut_down(0.0)

    # ------------------------------------------------------------------ signals

    def _stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._node.loop.post(Stop(DRAIN_S))
        else:
            self._at_once.set()

    def _reload(self) -> None:
        self._node.engine.reopen_log()
        task = asyncio.create_task(self._read_again(), name="reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_identity(self, identity: Identity) -> str:
        async with self._configuring:
            return await self._node.engine.configure(self._node.engine_config(self._config, identity))

    async def _read_again(self) -> None:
        tell = self._node.journal.tell
        if self._options is None or self._options.config is None:
            tell(Note("config-kept", "there is no node file to read again"))
            return
        try:
            new = read_config(self._options)
        except Invalid as error:
            tell(Note("config-refused", f"the node file was not taken, what was there is kept: {error}", "error"))
            return
        changed = [each.name for each in fields(new) if getattr(new, each.name) != getattr(self._config, each.name)]
        later = [name for name in changed if name not in LIVE]
        if (new.identity is None) != (self._config.identity is None):  # all links would have to change at once
            later.append("identity")
            new = replace(new, identity=self._config.identity)
        if later:
            text = f"not changed before the next start of control: {_names(later)}"
            tell(Note("config-needs-restart", text, "warning"))
        if len(later) == len(changed):
            tell(Note("config-kept", "the node file was read again; nothing changes now"))
            return
        try:
            await self._node.sites.adopt(new.sites)  # before a listener that needs them
            await self._node.identity.adopt(new.identity, self._take_identity)
        except Invalid as error:
            tell(Note("config-refused", f"the node file was not taken, what was there is kept: {error}", "error"))
            return
        async with self._configuring:
            error = await self._node.engine.configure(self._node.engine_config(new))
        if error:
            with contextlib.suppress(Invalid):  # a file of an earlier site that is gone by now: the watch will tell
                await self._node.sites.adopt(self._config.sites)
            tell(Note("config-refused", f"the engine did not take it, what was there is kept: {error}", "error"))
            return
        self._config = new
        tell(Note("config-changed", f"changed: {_names([name for name in changed if name not in later])}"))


def _names(keys: Sequence[str]) -> str:
    return ", ".join(key.replace("listen_", "listen.") for key in keys)
