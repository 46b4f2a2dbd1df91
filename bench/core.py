"""What decisions cost, in process: one root with many children, without engines or links.

    python -m bench.core [--json]

Prints for each row the CPU time of one event (median of several) or of the whole case, or the number of messages that
follow. "at most" is the project's limit; a row above its limit makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import Beat, Cause, Claim, ClaimKey, DownState, Gone, Hello, Stage, UpState, Welcome
from sdlb.core.settings import Settings
from sdlb.core.slot import digest_of
from sdlb.model.instance import InstanceSpec

ROUTE = "example.com/catalog*"
OLD, NEW = ClaimKey("catalog", "1.0.1", ROUTE), ClaimKey("catalog", "2.0.0", ROUTE)
Row = tuple[str, float, str, float]


class Tree:
    """A root and well-behaved children: they open and drain when the root orders it, and acknowledge."""

    def __init__(self, children: int, parents: tuple[str, ...] = ()) -> None:
        self.now = 1000.0
        self.root = Balancer(Settings("root", "root-id", 1, parents, nonce="n"), {}, Random(1))
        self.messages = 0
        self.queue: list[ev.Event] = []
        self.seq: dict[int, int] = {}
        self.claims: dict[tuple[int, ClaimKey], Claim] = {}
        self.engine: set[ev.MemberKey] = set()
        self.take(self.root.start(self.now))
        self.handle(ev.EngineAttached("boot", 0, 0))
        for number in range(1, children + 1):
            self.connect(number)

    def connect(self, number: int, digest: int = 0, verdicts: int = 0) -> list[ef.Effect]:
        hello = Hello(
            f"host-{number}",
            f"id-{number}",
            1,
            f"10.0.{number >> 8}.{number & 255}:80",
            digest,
            nonce=f"n-{number}",
            verdicts_digest=verdicts,
        )
        self.seq[number] = 0
        return self.handle(ev.ChildConnected(number, hello))

    def handle(self, *events: ev.Event) -> list[ef.Effect]:
        effects = self.root.handle_all(events, self.now, self.now)
        self.take(effects)
        return effects

    def take(self, effects: list[ef.Effect]) -> None:
        for effect in effects:
            match effect:
                case ef.Apply():
                    gone = set(effect.delete_endpoints)
                    if effect.replace:
                        gone |= self.engine - {m.key for m in effect.put_endpoints}
                    self.engine |= {m.key for m in effect.put_endpoints}
                    self.engine -= gone
                    self.queue.append(ev.EngineApplied(effect.epoch))
                    self.queue += [ev.EngineDrained(key, effect.epoch) for key in sorted(gone)]
                case ef.ToChild(link, message):
                    self.messages += 1
                    if isinstance(message, DownState):
                        self._obey(link, message)
                case ef.ToParent():
                    self.messages += 1
                case _:
                    pass

    def _obey(self, link: int, message: DownState) -> None:
        for verdict in message.verdicts:
            claim = self.claims.get((link, verdict.key))
            if claim is None:
                continue
            active = verdict.state == "active"
            self.claim(
                link,
                verdict.key,
                capacity=100 if active else 0,
                stage=Stage.OPEN if active else Stage.WAITING,
                generation=verdict.generation,
                scope=verdict.scope,
                seen=verdict.epoch,
            )
        for ack in message.drained:
            self.withdraw(link, ack.key)

    def claim(self, link: int, key: ClaimKey, **fields: object) -> None:
        host = f"host-{link}"
        claim = Claim(key, count=1, hosts=(host,), hosts_digest=digest_of(host), lease_s=10, **fields)  # type: ignore[arg-type]
        if self.claims.get((link, key)) != claim:
            self.claims[link, key] = claim
            self.send(link, claims=(claim,))

    def withdraw(self, link: int, key: ClaimKey) -> None:
        if self.claims.pop((link, key), None) is not None:
            self.send(link, withdrawn=(Gone(key, Cause.STOPPED),))

    def send(self, link: int, **fields: object) -> None:
        self.messages += 1
        self.seq[link] += 1
        self.queue.append(ev.ChildMessage(link, UpState(self.seq[link], self.seq[link] == 1, **fields)))  # type: ignore[arg-type]

    def settle(self) -> None:
        while self.queue:
            self.handle(self.queue.pop(0))


def timed(action: Callable[[], object], times: int = 1) -> float:
    """The median of several runs, in milliseconds of CPU."""
    spent: list[float] = []
    for _ in range(times):
        begin = time.process_time()
        action()
        spent.append(1000 * (time.process_time() - begin))
    return statistics.median(spent)


def longest_iteration(tree: Tree) -> float:
    """The longest iteration while timers are due, in milliseconds of CPU."""
    iterations: list[float] = []
    while (wake := tree.root.wake_at()) is not None and wake <= tree.now:
        iterations.append(timed(lambda: tree.handle(ev.Tick())))
    return max(iterations)


def grown(children: int) -> Tree:
    tree = Tree(children)
    for number in range(1, children + 1):
        tree.claim(number, OLD)
    tree.settle()
    return tree


def change() -> Row:
    tree = grown(1000)
    count = iter(range(1, 10_000))

    def one() -> None:
        number = next(count) % 1000 + 1
        old = tree.claims[number, OLD]
        tree.claim(
            number,
            OLD,
            capacity=old.capacity + 50,
            stage=old.stage,
            generation=old.generation,
            scope=old.scope,
            seen=old.seen,
        )
        tree.settle()

    return "one change of a service that 1,000 children have", timed(one, 200), "", 0.5


def cut_over() -> tuple[Row, Row]:
    tree = grown(1000)
    for number in range(1, 1001):
        tree.claim(number, NEW)
    tree.settle()
    tree.messages = 0

    def all_leave() -> None:
        for number in range(1, 1001):
            old = tree.claims[number, OLD]
            tree.claims[number, OLD] = Claim(
                OLD,
                100,
                1,
                old.hosts,
                old.hosts_digest,
                stage=Stage.OPEN,
                leaving=number,
                generation=old.generation,
                scope=old.scope,
                seen=old.seen,
                lease_s=10,
            )
            tree.send(number, claims=(tree.claims[number, OLD],))
            tree.settle()

    spent = timed(all_leave)
    assert tree.root.view.service("catalog")["versions"][0]["version"] == "2.0.0"  # type: ignore[index]
    return (
        ("cut-over of a service on 1,000 children", spent, "", 1000.0),
        ("messages of that cut-over", float(tree.messages), "messages", 5000.0),
    )


def lapses(children: int) -> Row:
    tree = grown(children)
    for number in range(1, children // 2):
        tree.handle(ev.ChildClosed(number))
    for _ in range(4):  # the other half keeps sending beats
        tree.now += 2.0
        for number in range(children // 2, children + 1):
            tree.root.handle(ev.ChildMessage(number, Beat(tree.seq[number], 0)), tree.now, tree.now)
    tree.now += 2.5
    return f"longest turn when half of {children:,} children lapse", longest_iteration(tree), "", 50.0


def held_back() -> Row:
    tree = Tree(2)
    tree.claim(1, ClaimKey("wide", "1.0.0", "example.com/*"))
    tree.settle()
    for number in range(3000):
        tree.claim(2, ClaimKey(f"s{number}", "1.0.0", f"example.com/{number}/*"))
        tree.claims.pop((2, ClaimKey(f"s{number}", "1.0.0", f"example.com/{number}/*")))  # it never opens
    tree.settle()
    numbers = iter(range(3000))

    def one() -> None:
        number = next(numbers)
        tree.send(2, withdrawn=(Gone(ClaimKey(f"s{number}", "1.0.0", f"example.com/{number}/*"), Cause.STOPPED),))
        tree.settle()

    return "a withdrawn route among 3,000 that are held back", timed(one, 200), "", 1.0


def stopping() -> Row:
    tree = Tree(1, parents=("edge:1",))
    for number in range(10_000):
        key = ClaimKey(f"s{number}", "1.0.0", f"h{number}.example.com/*")
        tree.claims[1, key] = Claim(key, count=1, hosts=("host-1",), hosts_digest=1)
    tree.send(1, claims=tuple(tree.claims.values()))
    tree.settle()
    tree.handle(ev.Stop(30.0))
    tree.settle()
    numbers = iter(range(10_000))

    def one() -> None:
        number = next(numbers)
        key = ClaimKey(f"s{number}", "1.0.0", f"h{number}.example.com/*")
        tree.send(1, withdrawn=(Gone(key, Cause.STOPPED),))
        tree.settle()

    return "an event at a stopping node with 10,000 claims", timed(one, 200), "", 0.5


def reconnect() -> Row:
    tree = grown(1)
    from sdlb.core.digest import claims_digest, verdicts_digest

    sent = tree.root._children.by_name["host-1"].sent  # pyright: ignore[reportPrivateUsage]
    tree.handle(ev.ChildClosed(1))
    effects = tree.connect(1, claims_digest(tree.claims.values()), verdicts_digest(sent.values()))
    verdicts = sum(
        len(e.message.verdicts) for e in effects if isinstance(e, ef.ToChild) and isinstance(e.message, DownState)
    )
    welcomed = any(isinstance(e, ef.ToChild) and isinstance(e.message, Welcome) for e in effects)
    return "verdicts sent again on a reconnect with equal digests", float(verdicts if welcomed else -1), "verdicts", 0.0


def instances() -> Row:
    tree = Tree(0)
    for number in range(5000):
        spec = InstanceSpec(
            f"i{number}", f"s{number}", "1.0.0", (f"h{number}.example.com/*",), f"127.0.0.1:{number + 1}"
        )
        tree.handle(ev.InstancePut(spec))
    tree.settle()
    tree.now += 9.9
    tree.root.handle(ev.Tick(), tree.now)
    tree.now += 0.2
    return "longest turn when 5,000 instances lapse", longest_iteration(tree), "", 50.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: list[Row] = [change(), *cut_over(), *(lapses(n) for n in (1000, 4000, 8000)), held_back(), stopping()]
    rows += [reconnect(), instances()]
    if args.json:
        print(json.dumps([dict(zip(("what", "value", "unit", "at_most"), row, strict=True)) for row in rows]))
    else:
        for what, value, unit, at_most in rows:
            shown = f"{value:,.2f} ms" if not unit else f"{value:,.0f} {unit}"
            print(f"{what:<56} {shown:>18}   at most {at_most:g}{'' if value <= at_most else '   MISSED'}")
    return 0 if all(value <= at_most for _, value, _, at_most in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
