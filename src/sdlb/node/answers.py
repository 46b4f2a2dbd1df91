"""What roots answer to a forwarded call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from sdlb.core.messages import RootAnswer
from sdlb.node.problems import Refusal

Json = dict[str, Any]


def body_of(answer: RootAnswer) -> Json:
    """The answer comes from another node, perhaps of another release; anything but an object counts as an empty one."""
    try:
        body = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return {}
    return cast("Json", body) if isinstance(body, dict) else {}


def first_refusal(answers: Sequence[RootAnswer]) -> Refusal:
    first = min(answers, key=lambda answer: answer.root)
    body = body_of(first)
    return Refusal(code_of(first), str(body.get("detail", f"{first.root} answered {first.status}")), first.status)


def code_of(answer: RootAnswer) -> str:
    """The code of a problem document."""
    return str(body_of(answer).get("type", "internal-error")).rpartition("/")[2]
