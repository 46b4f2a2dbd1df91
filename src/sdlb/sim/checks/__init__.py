"""The promises of design.md, looked at after every step; each check is registered under its promise's number.

A check knows the truth (`World`), not what the nodes believe. What a promise exempts is exempted as narrowly as the
truth allows (`sdlb.sim.affected`), and every exemption says why.
"""

from sdlb.sim.checks import authority, cost, drains, flow, generation, lost, policies, seed_rule, stability, theft

__all__ = ["authority", "cost", "drains", "flow", "generation", "lost", "policies", "seed_rule", "stability", "theft"]
