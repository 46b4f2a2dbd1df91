"""Prints all versions, then each event as it happens, until Ctrl-C: python examples/watch.py"""

from __future__ import annotations

import contextlib
import sys

import sdlb


def main() -> None:
    with sdlb.Client() as node:
        for service in node.services().services:
            for version in service.versions:
                print(service.name, version.version, version.state, version.reason)
        for event in node.events():
            print(event.at, event.text)


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            main()
    except sdlb.Problem as problem:
        sys.exit(problem.detail)
