"""What roots answer to a forwarded call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import inspect

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


# ---------------------------------------------------------------------- answers as their schema has them

_info = cache(inspect.type_info)


def shaped(kind: type[msgspec.Struct], value: object) -> Json:
    """`value` with exactly the keys of the type: unknown ones are left out, and those that a root of another release does not send
    are empty."""
    return cast("Json", _shaped(_info(kind), value))


def _shaped(info: inspect.Type, value: object) -> object:
    match info:
        case inspect.StructType():
            table = cast("Json", value) if isinstance(value, dict) else {}
            return {each.encode_name: _shaped(each.type, table.get(each.encode_name)) for each in info.fields}
        case inspect.ListType():
            return (
                [_shaped(info.item_type, each) for each in cast("list[object]", value)]
                if isinstance(value, list)
                else []
            )
        case inspect.AnyType():
            return value
        case inspect.DictType():
            table = cast("Json", value) if isinstance(value, dict) else {}
            return {key: _shaped(info.value_type, each) for key, each in table.items()}
        case inspect.UnionType():  # of one type and null
            (inner,) = [each for each in info.types if not isinstance(each, inspect.NoneType)]
            return None if value is None else _shaped(inner, value)
        case inspect.LiteralType():
            return value if value in info.values else info.values[0]
        case inspect.BoolType():
            return value is True
        case inspect.IntType() | inspect.FloatType():
            number = value if isinstance(value, int | float) else 0
            return max(0, int(number) if isinstance(info, inspect.IntType) else number)
        case inspect.StrType():
            return value if isinstance(value, str) else ""
        case _:
            raise TypeError(f"{info} is not a type of an answer")
