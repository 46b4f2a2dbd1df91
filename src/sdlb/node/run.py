"""`sdlb node`: one node from its start to its end.

Start: configuration, state folder and lock, store, incarnation + 1 (durable before it is sent), engine, links,
API, loop. SIGTERM or SIGINT: new clients are refused, open requests are answered, the node drains, parents are
informed, engine and control exit; a second signal ends both immediately. SIGHUP: the node file is reloaded (an invalid
one changes nothing) and the access log is reopened. Signals that arrive while the node starts take effect when it is up
(`node.signals`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from sdlb.core.effects import Note
from sdlb.core.events import Stop
from sdlb.model.identity import Identity
from sdlb.model.problem import Invalid
from sdlb.node import restart
from sdlb.node.config import NodeConfig, Options, read_config
from sdlb.node.hardening import parts
from sdlb.node.journal import Journal
from sdlb.node.signals import ENDING, Signals

Sockets = tuple[socket.socket, socket.socket | None]
"""The sockets of the API and of `listen.metrics`."""
DRAIN_S = 30.0
"""How long a stopping node waits for the requests that it forwards."""
LIVE = (
    "listen_http",
    "listen_https",
    "http_proxies",
    "https_proxies",
    "sites",
    "public",
    "hardening",
    "limits",
    "access_log",
    "identity",
    "hooks",
    "acme",
    "peers",
    "sources",
)
"""The settings that SIGHUP changes in a running node; the others need a restart of control."""


def run_node(options: Options, signals: Signals | None = None) -> int:
    """Runs until stopped. Exit code 0: stopped on request; 1: refused or failed, with one line on stderr; 2: usage.

    `signals`: already held by the caller.
    """
    if signals is None:
        signals = Signals()
        signals.hold()
    gc.disable()  # nearly nothing is released during the start (`_RunningNode.live`)
    try:
        config = read_config(options)
        restarting = asyncio.run(serve(config, options, signals))
        if restarting:
            restart.replace(signals.keep())
    except Invalid as error:
        print(f"sdlb node: {error}", file=sys.stderr)
        return 2 if error.code == "usage" else 1
    except OSError as error:
        print(f"sdlb node: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("sdlb node: stopped by a second signal while starting", file=sys.stderr)
        return 1
    finally:
        gc.enable()
        signals.end()
    return 0


async def serve(config: NodeConfig, options: Options, signals: Signals) -> bool:
    """Whether control is to be restarted. Raises Invalid or OSError (StoreFailed, EngineFailed) when the node
    cannot start."""
    from sdlb.node.local_paths import StateFolder, listen_tcp, listen_unix, remove_socket

    task = asyncio.current_task()
    assert task is not None
    signals.starting(task.cancel)
    folder = StateFolder(config.state_dir)
    try:
        api_socket = listen_unix(config.socket, config.socket_mode)
        probes = None
        try:
            if config.listen_metrics:
                probes = listen_tcp(config.listen_metrics, "listen.metrics")
            return await _serve(config, options, signals, folder, (api_socket, probes))
        finally:
            if probes is not None:
                probes.close()
            remove_socket(config.socket, api_socket)
    finally:
        folder.close()


async def _serve(config: NodeConfig, options: Options, signals: Signals, folder: Any, sockets: Sockets) -> bool:
    journal = Journal(config.name, level=config.log_level)
    logging.lastResort = journal.handler()  # what libraries log must not block control either
    try:
        return await _serve_told(config, options, signals, folder, sockets, journal)
    finally:
        journal.end()


async def _serve_told(
    config: NodeConfig, options: Options, signals: Signals, folder: Any, sockets: Sockets, journal: Journal
) -> bool:
    from sdlb.node.compose import NODE_ID, Node, open_store
    from sdlb.node.loop import INCARNATION

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
        await node.sites.adopt(config.sites, config.hardening)
        await node.acme.adopt(config.acme, config.sites, config.peers)
        await node.start_engine()
        _log_start(node.journal, config)
        return await _RunningNode(node, options, sockets).live(signals)
    finally:
        node.files.close()
        node.drivers.close()
        node.health.close()
        await node.parents.close()
        await node.children.close()
        await node.engine.detach()
        await store.close()


def _log_start(journal: Journal, config: NodeConfig) -> None:
    entry = f", clients on {config.listen_http}" if config.listen_http else ""
    entry += f", with TLS on {config.listen_https} (sites: {len(config.sites)})" if config.listen_https else ""
    entry += f", metrics on {config.listen_metrics}" if config.listen_metrics else ""
    above = f", parents {', '.join(config.parents)}" if config.parents else ", a root"
    text = f"node {config.name} is up: nodes on {config.listen_node}{entry}{above}, API at {config.socket}"
    journal.report(Note("node-started", text))
    if config.identity is None and not config.listen_node.startswith(("127.", "[::1]")):
        text = f"node links on {config.listen_node} are unencrypted and unauthenticated: use them only in a network that you trust"
        journal.report(Note("insecure-link", text, "warning"))


class _RunningNode:
    """The node from the first iteration of its loop to the end."""

    def __init__(self, node: Any, options: Options, sockets: Sockets) -> None:
        from sdlb.node.compose import Node

        assert isinstance(node, Node)
        self._node = node
        self._config = node.config
        self._options = options
        self._socket, self._probes = sockets
        self._stop_signals = 0
        self._signals: Signals | None = None
        self._restarting = False
        self._stop_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._configuring = asyncio.Lock()

    async def live(self, signals: Signals) -> bool:
        """Runs the node; returns whether control is to be restarted."""
        from sdlb.node.server import PROBES, serve_api

        node = self._node
        self._signals = signals
        signals.to(self._take)
        config = node.config
        listen = {"http": config.listen_http, "https": config.listen_https, "node": config.listen_node}
        if config.listen_metrics:
            listen["metrics"] = config.listen_metrics
        node.reaper.start()
        await node.loop.start()
        node.watch_saved()
        looping = asyncio.create_task(node.loop.run(), name="loop")
        serving, stop_api = serve_api(node, self._socket, listen, repeats=config.state_dir / "repeats")
        _, stop_probes = serve_api(node, self._probes, listen, PROBES) if self._probes else (None, _nothing)
        at_once = asyncio.create_task(self._stop_now.wait())
        restart_requested = asyncio.create_task(node.restart.requested.wait())
        retiring = asyncio.create_task(node.retire_removed_roles(), name="removed roles")
        watching = asyncio.create_task(node.sites.run(), name="sites")
        ordering = asyncio.create_task(node.acme.run(), name="acme")
        renewing = asyncio.create_task(node.identity.run(self._take_identity), name="identity")
        gc.collect()
        gc.freeze()  # what was made at the start lives as long as the node
        gc.enable()
        try:
            ends = (looping, watching, renewing, ordering, serving, at_once, restart_requested, node.loop.stopped)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (looping, watching, renewing, ordering):
                if task.done():
                    task.result()
            if restart_requested.done() and not self._stop_signals:
                self._restarting = True
                signals.keep()
                node.journal.report(Note("control-restarting", "control restarts, its engine keeps serving"))
                return True
            clean = node.loop.stopped.done() and node.loop.stopped.result()
            node.journal.report(Note("node-stopping", "drained" if clean else "stopping without draining further"))
            await node.parents.close()
            await self._stop_engine()
            return False
        finally:
            await stop_api()
            await stop_probes()
            node.reaper.close()
            at_once.cancel()
            restart_requested.cancel()
            for task in (looping, watching, renewing, ordering, retiring):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await node.loop.close()

    async def _stop_engine(self) -> None:
        """Drains the engine, unless a second signal arrives."""
        if not self._stop_now.is_set():
            ending = asyncio.create_task(self._node.engine.shut_down(DRAIN_S))
            at_once = asyncio.create_task(self._stop_now.wait())
            await asyncio.wait((ending, at_once), return_when=asyncio.FIRST_COMPLETED)
            at_once.cancel()
            if ending.done():
                ending.result()
                return
            ending.cancel()
        await self._node.engine.shut_down(0.0)

    # ------------------------------------------------------------------ signals

    def _take(self, number: int) -> None:
        if self._restarting and self._signals is not None:
            self._signals.keep(number)
        elif number in ENDING:
            self._stop()
        elif not self._stop_signals:
            self._reload()

    def _stop(self) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            self._node.loop.stopping = True
            self._spawn(self._leave(), "leave")
        else:
            self._stop_now.set()

    async def _leave(self) -> None:
        """Drains clients first, while there are still endpoints for their requests; then the parents stop using this node."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self._config.listen_http or self._config.listen_https:
            await self._node.engine.drain_clients(DRAIN_S)
        self._node.loop.post(Stop(max(1.0, DRAIN_S - (loop.time() - begun))))

    def _reload(self) -> None:
        self._node.engine.reopen_log()
        self._spawn(self._reload_config(), "reload")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_identity(self, identity: Identity) -> str:
        async with self._configuring:
            return await self._node.engine.configure(self._node.engine_config(self._config, identity))

    async def _reload_config(self) -> None:
        report = self._node.journal.report
        if self._options.config is None:
            report(Note("config-kept", "there is no node file to reload"))
            return
        try:
            new = read_config(self._options)
        except Invalid as error:
            report(Note("config-refused", f"the node file was refused and the current settings stay: {error}", "error"))
            return
        changed = [name for name in new.__struct_fields__ if getattr(new, name) != getattr(self._config, name)]
        later = [name for name in changed if name not in LIVE]
        if (new.identity is None) != (self._config.identity is None):  # all links would have to change at once
            later.append("identity")
            new = replace(new, identity=self._config.identity)
        if later:
            text = f"takes effect only after 'sdlb node restart': {_names(later)}"
            report(Note("config-needs-restart", text, "warning"))
        if len(later) == len(changed):
            report(Note("config-kept", "the node file was reloaded; nothing changed"))
            return
        try:
            await self._node.sites.adopt(new.sites, new.hardening)  # before a listener that needs them
            await self._node.identity.adopt(new.identity, self._take_identity)
        except Invalid as error:
            report(Note("config-refused", f"the node file was refused and the current settings stay: {error}", "error"))
            return
        async with self._configuring:
            error = await self._node.engine.configure(self._node.engine_config(new))
        if error:
            with contextlib.suppress(Invalid):  # a file of an earlier site is gone by now: the watch reports it
                await self._node.sites.adopt(self._config.sites, self._config.hardening)
            report(
                Note(
                    "config-refused",
                    f"the engine refused the node file and the current settings stay: {error}",
                    "error",
                )
            )
            return
        self._config = new
        await self._node.acme.adopt(new.acme, new.sites, new.peers)
        self._node.balancer.view.public = new.hardening.refuse_encoded_paths
        self._node.hardening = parts(new)
        self._node.adopt_outside(new)
        report(Note("config-changed", f"changed: {_names([name for name in changed if name not in later])}"))


async def _nothing() -> None: ...


def _names(keys: Sequence[str]) -> str:
    shown = {"services": "role", "hooks": "hook", "sources": "source"}
    return ", ".join(shown.get(key, key.replace("listen_", "listen.")) for key in keys)
