"""Names in a policy that no instance has registered: with a typing error a canary gets traffic, or nothing changes.

A version that the previous policy already named is accepted.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from sdlb.model.policy import Policy


def versions_of(policy: Policy) -> set[str]:
    """The versions that the policy names individually; a range names none."""
    pairs = (*policy.compatibility.allow, *policy.compatibility.deny)
    return {*policy.shares, *(version for pair in pairs for version in pair)}


def unknown(service: str, policy: Policy, had: Policy, known: Collection[str] | None) -> list[tuple[str, str]]:
    """(code, sentence) for each unknown name. `known`: the service's versions; None: no root knows the service."""
    if known is None:
        return [("unknown-service", f"no root knows a service named {service}")]
    found: list[tuple[str, str]] = []
    for version in sorted(versions_of(policy) - versions_of(had) - set(known)):
        near = get_close_matches(version, list(known), 1)
        has = f"it has {', '.join(sorted(known))}" if known else "it has no versions at the moment"
        hint = f" (did you mean {near[0]}?)" if near else ""
        found.append(("unknown-version", f"{service} has no version {version}{hint}; {has}"))
    return found
