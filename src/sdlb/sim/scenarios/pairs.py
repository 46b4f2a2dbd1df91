"""C: which versions may serve side by side, by explicit cases: the checks share the rules with the core, a script does not."""

from __future__ import annotations

from msgspec import Struct, field

from sdlb.sim.process import Process
from sdlb.sim.stage import Stage, scenario


class Case(Struct, frozen=True):
    """Version `a` serves, then `b` registers. `declares`: of `b`."""

    a: str
    b: str
    together: bool
    rules: dict[str, object] = field(default_factory=dict[str, object])
    declares: tuple[str, ...] = ()


CASES = (
    Case("1.0.1", "1.0.2", True),
    Case("1.0", "1.1", True),
    Case("1.0.1", "1.1.1", False),
    Case("1.0.1", "2.0.1", False),
    Case("1", "2", False),
    Case("1.0.1", "1.0.1.1", False),
    Case("1.0.1", "1.1.0", True, {"rule": "minor"}),
    Case("1.0.1", "2.1.0", False, {"rule": "minor"}),
    Case("1.0.1", "1.0.2", False, {"rule": "exact"}),
    Case("1.0.1", "2.0.0", True, {"rule": "any"}),
    Case("1.0.1", "1.0.2", False, {"scheme": "opaque"}),
    Case("1.0.1", "1.0.2", False, {"deny": [["1.0.1", "1.0.2"]]}),
    Case("1.0.2", "1.0.1", False, {"deny": [["1.0.1", "1.0.2"]]}),
    Case("1.0.1", "2.0.0", True, {"allow": [["1.0.1", "2.0.0"]]}),
    Case("2.0.0", "1.0.1", True, {"allow": [["1.0.1", "2.0.0"]]}),
    Case("1.0.1", "2.0.0", False, {"allow": [["1.0.1", "2.0.0"]], "deny": [["2.0.0", "1.0.1"]]}),
    Case("1.0.1", "2.0.0", True, {}, (">=1.0,<1.2",)),
    Case("1.2.0", "2.0.0", False, {}, (">=1.0,<1.2",)),
    Case("0.9.0", "2.0.0", False, {}, (">=1.0,<1.2",)),
    Case("1.2", "2.0.0", False, {}, ("<1.2",)),
    Case("1.2.0", "2.0.0", True, {}, ("<=1.2",)),
    Case("1.0.1", "2.0.0", True, {}, ("1.0.1",)),
    Case("1.0.1", "2.0.0", False, {"deny": [["1.0.1", "2.0.0"]]}, ("1.0.1",)),
    Case("1.0.1", "2.0.0", True, {"ranges": [">=1.0,<3.0"]}),
    Case("1.0.1", "3.0", False, {"ranges": [">=1.0,<3.0"]}),
    Case("3.0.0", "1.0.1", False, {"ranges": [">=1.0,<3.0"]}),
)


@scenario("C", 1, root_1="", host_1="root-1", host_2="root-1")
def versions_side_by_side(stage: Stage) -> None:
    """Each pair of versions serves together exactly if the rule, the policy or a declaration says so."""
    stage.run(3.0)
    for number, case in enumerate(CASES):
        if case.rules:
            stage.policy({"compatibility": case.rules}, f"case{number}x")
    stage.run(1.0)
    first: list[Process] = []
    second: list[Process] = []
    for number, case in enumerate(CASES):
        first.append(stage.instance("host-1", f"case{number}x-{case.a}", routes=(f"example.com/{number}x*",)))
    stage.serving(*first)
    for number, case in enumerate(CASES):
        label, routes = f"case{number}x-{case.b}", (f"example.com/{number}x*",)
        second.append(stage.instance("host-2", label, routes=routes, compatible=case.declares))
    stage.run(10.0)
    for case, old, new in zip(CASES, first, second, strict=True):
        stage.expect(1, f"{case.a} serves on: {case}", stage.serves(old))
        stage.expect(1, f"{case.b} serves beside it or waits: {case}", stage.serves(new) == case.together)
    stage.settle(30.0)
