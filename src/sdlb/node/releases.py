"""The calls about releases: a root runs them (`run_here`); the node that got the call sends it to all roots (`Releases`).

A release is added or withdrawn at every root that can be reached, after all of them have agreed. The others get it from the tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sdlb.core.effects import Answered, Execute
from sdlb.core.events import ReleasePut
from sdlb.core.messages import RootAnswer
from sdlb.model.release import Release, read_release
from sdlb.model.version import sort_key
from sdlb.node.answers import body_of, first_refusal, shaped
from sdlb.node.orders import carry_out
from sdlb.node.problems import Refusal
from sdlb.node.schema_rollouts import Release as Entry
from sdlb.node.specs import decode

if TYPE_CHECKING:
    from sdlb.node.authority import Authority
    from sdlb.node.loop import NodeLoop

Json = dict[str, Any]
PATH = "/v1/releases"
REFUSED, UNKNOWN = "release-refused", "no-such-release"


class _Change(msgspec.Struct):
    """What travels between nodes. `release` None: it is withdrawn. `check`: only say whether it would be accepted."""

    name: str
    release: dict[str, Any] | None = None
    by: str = ""
    check: bool = False


async def run_here(loop: NodeLoop, call: Execute) -> Json:
    """At a root. Raises Invalid or Refusal."""
    change: _Change = decode(_Change, call.body, "bad-json", f"{call.path} from {call.asker}")
    view = loop.balancer.view
    before = view.release(change.name)
    if change.release is None:
        body = b""
        if before is None:
            raise Refusal(UNKNOWN, f"there is no release {change.name}; 'sdlb release list' shows them")
    else:
        body = msgspec.json.encode(read_release(change.release, f"release {change.name}").to_data())
    event = ReleasePut(change.name, body, change.by)
    await carry_out(loop, REFUSED, view.release_objection(event), None if change.check else event)
    if not change.check and (objection := view.release_objection(event)):
        raise Refusal(REFUSED, objection)  # another one came in between
    now = view.release(change.name)
    return {"release": now, "changed": now != before}


# ---------------------------------------------------------------------- on any node


class Releases:
    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def all(self, service: str) -> Json:
        """Those of `service`; "": of all."""
        answered = await self._authority.call_roots("GET", PATH)
        found = await asyncio.to_thread(_merged, answered, service)  # there may be thousands
        return {**self._authority.origin(answered), **found}

    async def put(self, release: Release, by: str) -> Json:
        return await self._change(_Change(release.name, release.to_data(), by))

    async def withdraw(self, name: str, by: str) -> Json:
        return await self._change(_Change(name, None, by))

    async def _change(self, change: _Change) -> Json:
        what = f"release {change.name}"
        check = msgspec.structs.replace(change, check=True)
        _all(await self._authority.call_roots("POST", PATH, msgspec.json.encode(check)), what, "nothing was changed")
        answered = await self._authority.call_roots("POST", PATH, msgspec.json.encode(change))
        done = _all(answered, what, "")
        return {
            **self._authority.origin(answered),
            "changed": any(body.get("changed") is True for body in done),
            "by": change.by,
            "release": shaped(Entry, done[0].get("release")),
        }


def _all(answered: Answered, what: str, state: str) -> list[Json]:
    """The answers. Raises Refusal unless all have agreed; `state`: of what holds then, "": those that agreed have it."""
    refused: list[RootAnswer] = [answer for answer in answered.answers if answer.status != 200]
    agreed = [answer for answer in answered.answers if answer.status == 200]
    if not agreed:
        raise first_refusal(refused)
    if refused:
        why = "; ".join(f"{answer.root}: {body_of(answer).get('detail', answer.status)}" for answer in refused)
        state = state or f"{', '.join(sorted(answer.root for answer in agreed))} has it; try again"
        raise Refusal(REFUSED, f"not every root accepted {what} ({why}); {state}")
    return [body_of(answer) for answer in sorted(agreed, key=lambda answer: answer.root)]


def _merged(answered: Answered, service: str) -> Json:
    """Where roots differ, the first root by name wins."""
    found: dict[str, Json] = {}
    differ: dict[str, set[str]] = {}
    reported = [answer for answer in answered.answers if answer.status == 200]
    if not reported:
        raise first_refusal(answered.answers)
    for answer in sorted(reported, key=lambda answer: answer.root):
        for entry in _listed(answer):
            if service in ("", entry["service"]):
                known = found.setdefault(entry["name"], entry)
                if known != entry:
                    differ.setdefault(entry["service"], set()).add(entry["name"])
    order = sorted(found.values(), key=lambda each: (each["service"], sort_key(each["version"]), each["version"]))
    disagree = [
        {"service": name, "text": f"not the same at all roots: {', '.join(sorted(names))}"}
        for name, names in sorted(differ.items())
    ]
    return {"releases": order, "disagree": disagree}


def _listed(answer: RootAnswer) -> Iterable[Json]:
    listed = body_of(answer).get("releases")
    return (shaped(Entry, each) for each in cast("list[object]", listed)) if isinstance(listed, list) else ()
