"""What the tests do to nodes, beyond starting and stopping them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdlb.sdk.types import Child, Parent
from tests.e2e.cluster import Node


@contextmanager
def halted(*nodes: Node) -> Generator[None]:
    """SIGSTOP of the controls: silence, as from a partition; their engines serve on."""
    _signal(nodes, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(nodes, signal.SIGCONT)


def _signal(nodes: Sequence[Node], number: signal.Signals) -> None:
    for node in nodes:
        assert node.process is not None
        os.kill(node.process.pid, number)


def move(node: Node, parents: Sequence[Node]) -> None:
    """Another list of parents in its node file, and a new control that reads it; the engine serves on."""
    node.kill_control()
    node.settings[""]["parents"] = [parent.address for parent in parents]
    node.start()


def state_folder(node: Node) -> Path:
    return node.folder / "state"


def copy_state(source: Path, target: Path) -> None:
    """Replaces the files of `target`. Sockets are neither copied nor removed: the engine may still listen there."""
    target.mkdir(mode=0o700, exist_ok=True)
    for file in target.iterdir():
        if file.is_file():
            file.unlink()
    for file in source.iterdir():
        if file.is_file():
            shutil.copy2(file, target)


def codes(node: Node) -> list[str]:
    """Of the node's recent events, oldest first."""
    with node.client() as client:
        return [event.code for event in client.events(follow=False)]


def child(node: Node, name: str) -> Child:
    """How `node` sees its child; one without a state when it does not know it."""
    with node.client() as client:
        return next((each for each in client.tree().children if each.name == name), Child(name=name))


def parent(node: Node, of: Node) -> Parent:
    with node.client() as client:
        return next(each for each in client.tree().parents if each.address == of.address)


def cut_off(node: Node) -> bool:
    with node.client() as client:
        return client.tree().cut_off
