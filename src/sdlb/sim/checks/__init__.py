"""The promises, checked after every step. Each check is registered under the number of its promise.

A check knows the truth (`World`), not what the nodes know. Exemptions of a promise are as narrow as the truth allows
(`sdlb.sim.affected`), and every exemption has its reason.
"""

from sdlb.sim.checks import (
    authority,
    canaries,
    capacity,
    cost,
    drains,
    flow,
    gates,
    generation,
    lost,
    policies,
    records,
    seed_rule,
    stability,
    theft,
)

__all__ = [
    "authority",
    "canaries",
    "capacity",
    "cost",
    "drains",
    "flow",
    "gates",
    "generation",
    "lost",
    "policies",
    "records",
    "seed_rule",
    "stability",
    "theft",
]
