"""The parts of a state of the whole tree, and the steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from sdlb.sim.explore.local import Problem

State = tuple[int, ...]
NEW, LIVE, LEAVING, STOPPED, RENEWED, LAPSED = range(6)
"""Of an instance. RENEWED: registered again as another version; LAPSED: it lives, and its lease is not renewed any more."""
LINKS_MAX = 8  # numbers of connections of one pair before they are used again


KINDS = (
    *("up", "down", "connect", "engine", "hook", "notice", "renew", "apply", "drained", "time", "start", "act"),
    *("call", "driver"),
    *("kill", "crash", "reset", "cut", "heal", "engine-crash", "detach", "power"),
)


class Broken(Exception):
    """A promise is broken already while the tree starts."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class Link(NamedTuple):
    """One connection at a time. `child`, `parent`: whether that end holds it; `deaf_*`: what is sent that way is lost."""

    number: int = 0
    child: bool = False
    parent: bool = False
    deaf_up: bool = False
    deaf_down: bool = False
    blocked: bool = False  # no new one either


class Env(NamedTuple):
    done: int  # bits of actions taken
    kill: int  # faults that may still happen
    reset: int
    cut: int
    engine: int
    power: int
    detach: int
    status: tuple[int, ...]  # of instances
    served: int  # bits of instances that have had requests
    late: int = 0  # bits of instances for which the node reported a missed drain deadline
    alike: int = 0  # bits of groups of nodes that still differ only in their names


class Step(NamedTuple):
    """`kind` and its argument; see `World.take`."""

    kind: str
    owner: int
    arg: Any = None


def link_number(child: int, parent: int, count: int) -> int:
    return child << 8 | parent << 4 | count
