"""The connections between the nodes of a state: messages that are sent, lost and received, and closed connections.

`at` is where a link stands in a state; the queues up and down come after it.
"""

from __future__ import annotations

from typing import Any

from sdlb.core import events as ev
from sdlb.sim.explore.node import Nodes, Out, is_hello
from sdlb.sim.explore.state import LINKS_MAX, Link, link_number
from sdlb.sim.explore.tables import Interned


class Links:
    def __init__(self, nodes: Nodes, pairs: list[tuple[int, int]]) -> None:
        self.nodes = nodes
        self.names = nodes.names
        self.pairs = pairs
        size = len(nodes.names)
        self.at = {pair: size + 3 * number for number, pair in enumerate(pairs)}
        self.pair_at = {at: pair for pair, at in self.at.items()}
        self.as_child = [[(at, p) for (c, p), at in self.at.items() if c == n] for n in range(size)]
        self.as_parent = [[(at, c) for (c, p), at in self.at.items() if p == n] for n in range(size)]
        self.table: Interned[Link] = Interned()
        self._events: dict[tuple[int, int], int] = {}

    # ------------------------------------------------------------------ what leaves a node

    def event(self, message: int, link: int) -> int:
        """`link`: of a child's; below zero: -1 - parent."""
        known = self._events.get((message, link))
        if known is None:
            value = self.nodes.messages[message]
            event: Any
            if link < 0:
                event = ev.ParentMessage(self.names[-1 - link], value)
            elif is_hello(value):
                event = ev.ChildConnected(link, value)
            else:
                event = ev.ChildMessage(link, value)
            known = self._events[message, link] = self.nodes.event("handle", event)
        return known

    def send(self, new: list[int], node: int, kind: str, to: int, message: int) -> None:
        queues = self.nodes.queues
        if kind == "up":
            at = self.at[node, to]
            link = self.table[new[at]]
            if link.child and link.parent and not link.deaf_up:
                event = self.event(message, link_number(node, to, link.number))
                new[at + 1] = queues.put(new[at + 1], event)
        elif kind == "down":
            child = to >> 8
            at = self.at[child, node]
            link = self.table[new[at]]
            if link.number == to & 15 and link.child and link.parent and not link.deaf_down:
                new[at + 2] = queues.put(new[at + 2], self.event(message, -1 - node))
        elif kind == "hangup":
            self.child_lets_go(new, self.at[node, to], node, to)
        else:
            at = self.at[to >> 8, node]
            if self.table[new[at]].number == to & 15:
                self.parent_lets_go(new, at, node)

    def child_lets_go(self, new: list[int], at: int, child: int, parent: int, noticed: bool = True) -> None:
        link = self.table[new[at]]
        if not link.child:
            return
        new[at] = self.table.number(link._replace(child=False))
        new[at + 2] = 0
        if noticed and link.parent and not link.deaf_up:
            closed = self.nodes.event("handle", ev.ChildClosed(link_number(child, parent, link.number)))
            new[at + 1] = self.nodes.queues.put(new[at + 1], closed)

    def parent_lets_go(self, new: list[int], at: int, parent: int, noticed: bool = True) -> None:
        link = self.table[new[at]]
        if not link.parent:
            return
        new[at] = self.table.number(link._replace(parent=False))
        new[at + 1] = 0
        if noticed and link.child and not link.deaf_down:
            closed = self.nodes.event("handle", ev.ParentClosed(self.names[parent], "closed"))
            new[at + 2] = self.nodes.queues.put(new[at + 2], closed)

    # ------------------------------------------------------------------ made, and found closed

    def connect(self, new: list[int], at: int) -> None:
        number = self.table[new[at]].number % LINKS_MAX + 1
        new[at] = self.table.number(Link(number, True, True))
        new[at + 2] = 0

    def ends(self, new: list[int], at: int, event: int) -> None:
        """A node that learns that a connection is closed no longer has it."""
        what = self.nodes.events[event][1]
        link = self.table[new[at]]
        if isinstance(what, ev.ChildClosed) and what.link & 15 == link.number:
            new[at] = self.table.number(link._replace(parent=False))
        elif isinstance(what, ev.ParentClosed):
            new[at] = self.table.number(link._replace(child=False))

    def beat(self, new: list[int], node: int, out: Out) -> tuple[int, int]:
        """(receiver, event) of a message. (-1, -1): no node receives it."""
        child, parent = (node, out.to) if out.kind == "up" else (out.to >> 8, node)
        at = self.at[child, parent]
        link = self.table[new[at]]
        number = link_number(child, parent, link.number)
        if not link.child or not link.parent or (link.deaf_up if out.kind == "up" else link.deaf_down):
            return -1, -1
        if out.kind == "up":
            return parent, self.event(out.message, number)
        return (child, self.event(out.message, -1 - parent)) if out.to == number else (-1, -1)

    def dies(self, new: list[int], node: int, noticed: bool = True) -> None:
        """The control of a node has ended. Messages to it are lost."""
        for at, parent in self.as_child[node]:
            self.child_lets_go(new, at, node, parent, noticed)
            new[at + 2] = 0
        for at, _ in self.as_parent[node]:
            self.parent_lets_go(new, at, node, noticed)
            new[at + 1] = 0
