"""The interface of a program to its host's node: `Client`, `AsyncClient`, `serve`. See docs/reference/api.md.

The names are imported when they are first used: a command that needs no HTTP client starts without one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlb.sdk.aio import AsyncClient
    from sdlb.sdk.asgi import lifespan
    from sdlb.sdk.client import Client
    from sdlb.sdk.problem import Problem, Unreachable
    from sdlb.sdk.serving import Serving, serve
    from sdlb.sdk.types import (
        Event,
        Explanation,
        Health,
        Instance,
        Policies,
        Policy,
        PolicyPlan,
        Routes,
        Service,
        Services,
        Spec,
        Tree,
        Version,
    )

_MODULES = {
    "AsyncClient": "aio",
    "Client": "client",
    "Event": "types",
    "Explanation": "types",
    "Health": "types",
    "Instance": "types",
    "Policies": "types",
    "PolicyPlan": "types",
    "Policy": "types",
    "Problem": "problem",
    "Routes": "types",
    "Service": "types",
    "Services": "types",
    "Serving": "serving",
    "Spec": "types",
    "Tree": "types",
    "Unreachable": "problem",
    "Version": "types",
    "lifespan": "asgi",
    "serve": "serving",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Event",
    "Explanation",
    "Health",
    "Instance",
    "Policies",
    "Policy",
    "PolicyPlan",
    "Problem",
    "Routes",
    "Service",
    "Services",
    "Serving",
    "Spec",
    "Tree",
    "Unreachable",
    "Version",
    "lifespan",
    "serve",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sdlb.sdk.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
