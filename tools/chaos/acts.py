"""What a step does to the tree: one method for each kind of fault. What it returns ends the fault."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sdlb.cli.demo.launch import until
from tools.chaos.network import Rule
from tools.chaos.plan import HOSTS, KINDS, Step
from tools.chaos.report import Done
from tools.chaos.tree import SERVICES, Tree, paused

LOSS = 0.05
DELAY_MS = 40.0
ROLLOUT_S = 4.0
"""The minimum time that a rollout runs before the fault ends."""
SETTLE_S = 1.0
"""The pause between two steps, in which the last requests are answered."""
PRIORITIES = ("higher", "lower", "even")


class Acts:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._priorities = itertools.cycle(PRIORITIES)
        self._pool = ThreadPoolExecutor(1)

    def do(self, done: Done) -> None:
        """Returns when the tree has converged again. Raises `WaitTimeout` if it does not converge in time."""
        step = done.step
        done.struck_from = time.monotonic()
        with self._fault(done):
            done.struck_to = time.monotonic()
            rollout = self._pool.submit(self._rollout, step) if step.rollout else None
            time.sleep(max(step.duration_s, ROLLOUT_S if step.rollout else 0.0))
        done.over = time.monotonic()
        if rollout is not None:
            rollout.result()
        done.converged = self._tree.wait_converged()
        time.sleep(SETTLE_S)

    @contextmanager
    def _fault(self, done: Done) -> Generator[None]:
        begin: Callable[[Step], Callable[[], object] | None] = getattr(self, method(done.step.kind))
        end = begin(done.step)
        try:
            yield
        finally:
            touched = end() if end is not None else None
        if KINDS[done.step.kind].frames:
            assert isinstance(touched, int)
            done.frames = touched

    # ------------------------------------------------------------- planned changes

    def _roll(self, step: Step) -> None:
        """Host by host: the newer one is started, then the older stopped."""
        service = "web"
        self._tree.versions[service] = next_version(self._tree.versions[service], -1)
        for host in HOSTS:
            old = self._tree.running[service, host]
            self._tree.start_instance(service, host).wait("active", 40.0)
            old.stop(60.0)

    def _rollout(self, step: Step) -> None:
        """All new ones are started and wait, then all old ones are stopped."""
        service = "shop"
        self._tree.versions[service] = next_version(self._tree.versions[service], 0)
        old = [self._tree.running[service, host] for host in HOSTS]
        new = [self._tree.start_instance(service, host) for host in HOSTS]
        for instance in new:
            until(f"{instance.name} on {instance.node.name} is registered", instance.state, 40.0)
        for instance in old:
            instance.terminate()
        for instance in old:
            instance.stop(60.0)

    def _policy(self, step: Step) -> None:
        for service in SERVICES:
            self._tree.sdlb("policy", "set", service, "--priority", next(self._priorities), node=HOSTS[0])

    def _drain(self, step: Step) -> None:
        """Replaces both instances of a host, one after the other."""
        (host,) = step.targets
        for service in SERVICES:
            self._tree.stop_instance(service, host)
            self._tree.start_instance(service, host).wait("active", 40.0)

    def _restart(self, step: Step) -> None:
        self._tree.sdlb("node", "restart", node=step.targets[0])

    def _upgrade(self, step: Step) -> None:
        self._tree.sdlb("node", "upgrade", "--deadline", "10", node=step.targets[0])

    def _stop(self, step: Step) -> Callable[[], object]:
        """Stops a node by SIGTERM; on a host its instances first, as an init system does."""
        (name,) = step.targets
        mine = [service for service, host in self._tree.running if host == name]
        self._tree.off.add(name)
        for service in mine:
            self._tree.stop_instance(service, name)
        self._tree.nodes[name].stop(60.0)

        def start() -> None:
            self._tree.start_node(name)
            self._tree.nodes[name].wait_ready()
            for service in mine:
                self._tree.start_instance(service, name)

        return start

    def _stop_node(self, step: Step) -> Callable[[], object]:
        """Stops a node by SIGTERM while its instances keep running; they register again."""
        (name,) = step.targets
        self._tree.off.add(name)
        self._tree.nodes[name].stop(60.0)
        return lambda: self._tree.start_node(name)

    # ------------------------------------------------------------- killed processes

    def _kill_control(self, step: Step) -> Callable[[], object]:
        name = step.targets[0]
        self._tree.nodes[name].kill_control()
        return lambda: self._tree.start_node(name)

    def _kill_engine(self, step: Step) -> None:
        """Kills the engine; control starts another one."""
        self._tree.nodes[step.targets[0]].kill_engine()

    def _kill_node(self, step: Step) -> Callable[[], object]:
        name = step.targets[0]
        self._tree.nodes[name].kill()
        return lambda: self._tree.start_node(name)

    def _kill_machine(self, step: Step) -> Callable[[], object]:
        (name,) = step.targets
        mine = [service for service, host in self._tree.running if host == name]
        self._tree.kill_machine(name)

        def start() -> None:
            self._tree.start_node(name)
            for service in mine:
                self._tree.start_instance(service, name)

        return start

    def _power_off(self, step: Step) -> Callable[[], object]:
        """The processes of a node vanish without a FIN or reset."""
        (name,) = step.targets
        self._tree.network.plug(name, False)
        start = self._kill_machine(step)

        def plug_and_start() -> None:
            self._tree.network.plug(name, True)
            start()

        return plug_and_start

    def _pause_control(self, step: Step) -> Callable[[], object]:
        return self._paused(self._tree.control_pids(step.targets[0]))

    def _pause_engine(self, step: Step) -> Callable[[], object]:
        return self._paused(self._tree.nodes[step.targets[0]].engine_pids())

    @staticmethod
    def _paused(pids: Sequence[int]) -> Callable[[], object]:
        stack = contextlib.ExitStack()
        stack.enter_context(paused(pids))
        return stack.close

    # ------------------------------------------------------------- the network

    def _unplug(self, step: Step) -> Callable[[], object]:
        (name,) = step.targets
        self._tree.network.plug(name, False)
        return lambda: self._tree.network.plug(name, True)

    def _cut(self, step: Step) -> Callable[[], object]:
        return self._between(step, loss=1.0)

    def _one_way(self, step: Step) -> Callable[[], object]:
        return self._between(step, both=False, loss=1.0)

    def _loss(self, step: Step) -> Callable[[], object]:
        return self._between(step, loss=LOSS)

    def _delay(self, step: Step) -> Callable[[], object]:
        return self._between(step, delay_ms=DELAY_MS)

    def _between(self, step: Step, *, both: bool = True, **what: float) -> Callable[[], int]:
        parent, child = (self._tree.network[name].address for name in step.targets)
        up, down = Rule(child, parent, **what), Rule(parent, child, **what)
        self._tree.network.fault(step.targets[1], [up, down] if both else [up] if step.up else [down])
        return lambda: self._tree.network.heal(step.targets[1])

    # ------------------------------------------------------------- state

    def _old_state(self, step: Step) -> Callable[[], object]:
        (name,) = step.targets
        self._tree.nodes[name].kill_control()
        self._tree.set_back(name)
        return lambda: self._tree.start_node(name)

    def _blank_state(self, step: Step) -> Callable[[], object]:
        (name,) = step.targets
        self._tree.nodes[name].kill_control()
        self._tree.blank(name)
        return lambda: self._tree.start_node(name)


def next_version(version: str, part: int) -> str:
    """Increments one part of a version and sets the later parts to 0.

    >>> next_version("1.0.4", -1), next_version("1.0.4", 0)
    ('1.0.5', '2.0.0')
    """
    numbers = [int(number) for number in version.split(".")]
    numbers[part] += 1
    if part >= 0:
        numbers[part + 1 :] = [0] * (len(numbers) - part - 1)
    return ".".join(map(str, numbers))


def method(kind: str) -> str:
    """The methods of `Acts` by the name of the kind."""
    return "_" + kind.replace("-", "_")
