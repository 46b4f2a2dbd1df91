"""Policies at a root: reads, changes of one or several documents, and what a change would do before it is made.

A call that names several documents sets all of them or none (`PUT /v1/policies`). Its etag identifies the content of all
documents, so that roots with the same documents have the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast

import msgspec

from sdlb.core.events import PoliciesPut, PolicyPut
from sdlb.core.policies import BODY_BYTES_MAX
from sdlb.model.policy import loads
from sdlb.model.policy_layers import Document, Layers, check_name, covers, is_pattern, write
from sdlb.model.policy_text import changes
from sdlb.model.problem import Invalid
from sdlb.node.loop import NodeLoop
from sdlb.node.policy_checks import check_together, read_document, read_documents
from sdlb.node.policy_names import Doubt, services_of, unknown
from sdlb.node.problems import Refusal

Json = dict[str, Any]


class Ask(msgspec.Struct):
    """The body of the call between nodes that sets several documents. `if_match`: an etag; "": any."""

    policies: dict[str, Any]
    if_match: str = ""
    dry_run: bool = False


def read_body(content: bytes) -> Json:
    """The documents in the body of `PUT /v1/policies`. Raises Refusal or Invalid; nothing is asked of a root then."""
    try:
        data = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal("bad-json", f"the body is not JSON ({error})") from None
    policies = cast("Json", data).get("policies") if isinstance(data, dict) else None
    if not isinstance(policies, dict) or len(cast("Json", data)) != 1:
        raise Refusal("bad-json", 'the body has to be {"policies": {name: document}}')
    read_documents(cast("Json", policies))
    return cast("Json", policies)


def etag(layers: Layers) -> str:
    text = msgspec.json.encode(dict(layers.documents), order="deterministic")
    return f'"{blake2b(text, digest_size=8).hexdigest()}"'


class Policies:
    def __init__(self, loop: NodeLoop) -> None:
        self._loop = loop

    @property
    def _layers(self) -> Layers:
        return self._loop.balancer.view.policy_layers

    # ------------------------------------------------------------------ reads

    def one(self, name: str) -> Json:
        """The merged policy of a service, or of all services of a pattern, and the document that sets each key."""
        doc, layers = self._loop.balancer.view.policy(check_name(name)), self._layers
        return {
            "service": name,
            "revision": doc.revision if doc is not None else 0,
            "origin": doc.origin if doc is not None else "",
            "policy": layers.of(name).to_data(),
            "document": layers.documents.get(name, {}),
            "sources": layers.sources(name),
        }

    def all(self) -> Json:
        layers = self._layers
        found = [
            {"name": doc.name, "revision": doc.revision, "origin": doc.origin, "document": layers.documents[doc.name]}
            for doc in self._loop.balancer.view.policies()
            if doc.name in layers.documents
        ]
        return {"etag": etag(layers), "policies": found}

    # ------------------------------------------------------------------ changes

    async def put(self, name: str, body: bytes, asker: str) -> Json:
        text = body.decode("utf-8", "replace")
        document = read_document(check_name(name), loads(text, f"policy of {name}"))
        after = check_together(self._layers, {name: document})
        await self._set(after, [name], asker)
        return self.one(name)

    async def put_all(self, body: bytes, asker: str) -> Json:
        ask = msgspec.json.decode(body, type=Ask)
        before = self._layers
        if ask.if_match and ask.if_match != etag(before):
            here = self._loop.balancer.settings.name
            raise Refusal(
                "policies-changed", f"the policies at {here} have changed since they were read; read them again"
            )
        documents = read_documents(ask.policies)
        after = check_together(before, documents)
        changed = [name for name in documents if documents[name] != before.documents.get(name, {})]
        plan = self._plan(before, after, documents, changed)
        if changed and not ask.dry_run:
            await self._set(after, changed, asker)
        return plan

    async def _set(self, after: Layers, names: list[str], asker: str) -> None:
        loop, here, before = self._loop, self._loop.balancer.settings.name, self._layers
        if not loop.writes:
            raise Refusal("not-written", f"{here}: {loop.ready()[1]}; try again later")
        puts: list[PolicyPut] = []
        for name in names:
            body = write(after.documents.get(name, {})).encode()
            if len(body) > BODY_BYTES_MAX:
                raise Invalid("bad-policy", f"policy of {name}", "is longer than 64 KiB", "make it shorter")
            puts.append(PolicyPut(name, body, asker, "; ".join(_changes(before, after, name)) or "no setting differs"))
        await loop.do(PoliciesPut(tuple(puts)))
        if loop.held is not None:
            text = f"the policy of {', '.join(names)} takes effect when {here} can write its state"
            raise Refusal("not-written", f"{text}: {loop.ready()[1]}")
        if any(self._layers.documents.get(name) != after.documents.get(name) for name in names):
            raise Refusal("not-written", f"{here} holds the maximum number of policies; nothing was changed")

    # ------------------------------------------------------------------ before a change

    def _plan(self, before: Layers, after: Layers, documents: Mapping[str, Document], changed: list[str]) -> Json:
        return {
            "etag": etag(after),
            "changes": [{"name": name, "changes": _changes(before, after, name)} for name in changed],
            "effects": self._loop.balancer.view.preview(after) if changed else [],
            "unnamed": sorted(set(before.documents) - set(documents)),
            "doubts": self._doubts(before, after, changed),
        }

    def _doubts(self, before: Layers, after: Layers, names: list[str]) -> list[Doubt]:
        """Names in these documents that this root does not know. A service with a policy is known."""
        view = self._loop.balancer.view
        live = dict.fromkeys(view.service_names())
        found: list[Doubt] = []
        for name in names:
            if name not in after.documents:
                continue  # it is removed
            policy, had = after.of(name), before.of(name)
            if is_pattern(name):
                mine = [each for each in (*live, *after.documents) if covers(name, each) and each != name]
            else:
                mine = [name] if name in live else []
            mine += [name] if name in before.documents else []
            wanted = [each for each in services_of(policy) if each in live or each in after.documents]
            services = {each: view.version_names(each) for each in (*mine, *wanted)}
            found += unknown(name, policy, had, services, live)
        return found


def _changes(before: Layers, after: Layers, name: str) -> list[str]:
    """The settings that differ, or the keys of the document when no value does."""
    found = changes(before.of(name).to_data(), after.of(name).to_data())
    return found or changes(before.documents.get(name, {}), after.documents.get(name, {}))


# ---------------------------------------------------------------------- the answers of several roots


def merge_one(reported: Mapping[str, Json]) -> Json:
    """root -> its answer. The newest policy wins."""
    newest = max(sorted(reported), key=lambda root: (reported[root]["revision"], reported[root]["origin"]))
    found = reported[newest]
    differing = [root for root in sorted(reported) if reported[root]["policy"] != found["policy"]]
    text = f"the policy at {', '.join(differing)} differs from the one at {newest}"
    return {
        "disagree": [{"service": found["service"], "text": text}] if differing else [],
        "service": found["service"],
        "revision": found["revision"],
        "policy": found["policy"],
        "document": found.get("document", found["policy"]),
        "sources": found.get("sources", {}),
        "warnings": [],
    }


def merge_all(reported: Mapping[str, Json]) -> Json:
    """root -> its list. For each document the newest one wins; the etag is that of the result."""
    newest: dict[str, Json] = {}
    for root in sorted(reported):
        for entry in cast("list[Json]", reported[root]["policies"]):
            known = newest.get(entry["name"])
            if known is None or (entry["revision"], entry["origin"]) > (known["revision"], known["origin"]):
                newest[entry["name"]] = entry
    disagree: list[Json] = []
    for name in sorted(newest):
        without = [
            root
            for root in sorted(reported)
            if all(e["name"] != name or e["document"] != newest[name]["document"] for e in reported[root]["policies"])
        ]
        if without:
            disagree.append({"service": name, "text": f"the policy at {', '.join(without)} differs"})
    tag = etag(Layers({name: entry["document"] for name, entry in newest.items()}))
    return {"etag": tag, "disagree": disagree, "policies": [newest[name] for name in sorted(newest)]}


def merge_plans(reported: Mapping[str, Json]) -> Json:
    """root -> its plan. The first root by name stands for all; a name is unknown if no root knows it."""
    first = reported[min(reported)]
    known = [{subject for _, subject, _ in plan["doubts"]} for plan in reported.values()]
    doubts = [doubt for doubt in first["doubts"] if all(doubt[1] in each for each in known)]
    return {**first, "doubts": doubts, "disagree": []}
