"""sdlb: a self-organising tree of HTTP balancers.

A program that wants to talk to its host's node needs only this package: `sdlb.serve`, `sdlb.lifespan` (for uvicorn), `sdlb.Client`,
`sdlb.AsyncClient` and the exceptions `sdlb.Problem` and `sdlb.Unreachable`; `sdlb.sdk` has the rest. Names are imported
when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlb.sdk import AsyncClient, Client, Health, Problem, Spec, Unreachable, lifespan, serve

__all__ = ["AsyncClient", "Client", "Health", "Problem", "Spec", "Unreachable", "lifespan", "serve"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdlb import sdk

    value = getattr(sdk, name)
    globals()[name] = value
    return value
