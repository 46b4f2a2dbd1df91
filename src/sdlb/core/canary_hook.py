"""The hook of an analysis in the current step, as pure functions: when it is asked, what it gets, and what its answers mean.

It is asked when the time of a step is over and all else has passed; with `hook_each = "block"` also at the end of each block. "no" is a
failure at any time. Only "yes" to the question at the end is a pass; it is repeated until then. So a hook that cannot be asked is no pass.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.analysis import Verdict
from sdlb.model.canary import Analysis, block_of
from sdlb.model.gate import Hook
from sdlb.model.rollout import Rollout

END = "end"
TIMEOUT_S = 60.0
"""For one attempt."""
RETRY_S = 5.0
WHY_CHARS_MAX = 300


class HookState(Struct, frozen=True):
    """What the hook has answered in this step. `yes`: at the end of the step. `no`: why it has refused. `why`: why the last attempt had no
    answer. `block`: the last one for which it was asked."""

    yes: bool = False
    no: str = ""
    why: str = ""
    block: int = 0

    @property
    def decided(self) -> bool:
        return self.yes or bool(self.no)


def due(spec: Analysis, rollout: Rollout, state: HookState, wall_s: float, *, passed: bool) -> str:
    """What it is asked about now: END, or the number of a block. "": nothing. `passed`: all else at the end of the step."""
    if not spec.hook or state.decided or not rollout.step_since:
        return ""
    if passed:
        return END
    block = block_of(wall_s)
    ended = block > max(state.block, block_of(rollout.step_since))
    return str(block) if spec.hook_each == "block" and ended else ""


def hook_of(spec: Analysis) -> Hook:
    url = spec.hook if ":" in spec.hook else ""
    return Hook("analysis", timeout_s=TIMEOUT_S, run="" if url else spec.hook, url=url)


def asked(state: HookState, about: str) -> HookState:
    return state if about == END else replace(state, block=int(about))


def answered(state: HookState, about: str, outcome: str, detail: str) -> HookState:
    """`outcome`: as in `HookDone`."""
    if outcome == "no":
        return replace(state, no=(detail or "no reason given")[:WHY_CHARS_MAX])
    if outcome == "yes":
        return replace(state, yes=state.yes or about == END, why="")
    return replace(state, why=(detail or "it has not decided")[:WHY_CHARS_MAX])


def report(found: Verdict, rollout: Rollout) -> dict[str, object]:
    """What the hook gets to decide: the verdict on all else, with the numbers. Only JSON."""
    return {
        "rollout": rollout.id,
        "step": rollout.at_step + 1,
        "of": len(rollout.spec.step),
        "result": found.result,
        "metric": found.metric,
        "text": found.text,
        "requests": found.requests,
        "metrics": {name: msgspec.to_builtins(each) for name, each in found.numbers.items()},
        "values": dict(found.values),
    }
