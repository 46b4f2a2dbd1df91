"""Names in a policy that no instance has registered: with a typing error a canary gets traffic, or nothing changes.

A version that the previous policy already named is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from sdlb.model.gate import DependsOn
from sdlb.model.opening import ALL
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import covers, is_pattern
from sdlb.model.version import parse_declaration


class Doubt(NamedTuple):
    """`subject`: what is unknown; roots may have different sentences for it."""

    code: str
    subject: str
    text: str


def versions_of(policy: Policy) -> set[str]:
    """The versions that the policy names individually; a range names none."""
    pairs = (*policy.compatibility.allow, *policy.compatibility.deny)
    texts = [text for text in (*policy.opening.hold, *policy.opening.pin) if text != ALL]
    single = [conditions[0] for text in texts if len(conditions := parse_declaration(text)) == 1]
    named = {version for operator, version in single if operator == "="}
    return {*policy.shares, *(version for pair in pairs for version in pair), *named}


def services_of(policy: Policy) -> set[str]:
    """The services on which gates depend."""
    return {gate.service for gate in policy.gates if isinstance(gate, DependsOn)}


def unknown(
    name: str, policy: Policy, had: Policy, services: Mapping[str, Collection[str]], names: Collection[str] = ()
) -> list[Doubt]:
    """What the document `name` names and no root knows. `services`: with their versions, those to which it applies and those on
    which they depend. `names`: of all services, for suggestions."""
    mine = [each for each in services if covers(name, each)]
    found: list[Doubt] = []
    if not mine:
        text = (
            f"no root knows a service that matches {name}"
            if is_pattern(name)
            else f"no root knows a service named {name}"
        )
        found.append(Doubt("unknown-service", name, text))
    known = {version for each in mine for version in services[each]}
    for version in sorted(versions_of(policy) - versions_of(had) - known) if mine else ():
        has = f"it has {', '.join(sorted(known))}" if known else "it has no versions at the moment"
        text = f"{name} has no version {version}{_hint(version, known)}; {has}"
        found.append(Doubt("unknown-version", f"{name} {version}", text))
    for service in sorted(services_of(policy) - services_of(had) - set(services)):
        text = f"{name} depends on {service}, and no root knows a service of that name{_hint(service, names)}"
        found.append(Doubt("unknown-service", service, text))
    return found


def _hint(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""
