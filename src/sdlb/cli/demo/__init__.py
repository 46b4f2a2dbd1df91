"""`sdlb demo`: a whole tree of real processes on this machine, with real services and traffic, and its results.

Two edges, two middle nodes and four hosts; the story is in `story.py`, the load in `load.py` (a process of its own),
the checking of every answer in `check.py`, the starting and ending of processes in `launch.py`.

Exit code 0: every request was answered, each by a version that was allowed; 1: a request was lost or answered wrongly,
or the demo failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlb.cli.args import Commands
    from sdlb.cli.demo.screen import Screen
    from sdlb.cli.demo.story import Story
    from sdlb.cli.demo.traffic import TrafficStats

INTERRUPTED = 130
TAKES_INTERRUPTS = True
KEYS = ("requests", "answered", "lost", "wrong_version", "longest_wait_ms")


class Interrupted(BaseException):
    """Ctrl-C or another signal to stop: all started processes are stopped first."""


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="run a whole tree with real services and traffic on this machine",
        description="Runs the catalog story on this machine: 2 edge, 2 middle and 4 host nodes as real processes on "
        "loopback ports, with real web applications and real traffic. Every response is checked. Takes about a minute.",
    )
    parser.add_argument("--keep", action="store_true", help="keep it running at the end, until Ctrl-C")
    parser.add_argument(
        "--engines",
        type=_engines,
        default=("native",),
        metavar="KIND[,KIND]",
        help="engines of the nodes of each tier, in turn: native, haproxy (native)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end; progress goes to stderr")
    return parser


def run(args: argparse.Namespace) -> int:
    """Plays the story; see the module for the exit codes."""
    from sdlb.cli.demo.launch import Launcher, WaitTimeout
    from sdlb.cli.demo.screen import screen
    from sdlb.cli.demo.story import Story
    from sdlb.sdk.problem import Problem

    ending = _catch_signals()
    try:
        with Launcher("sdlb-demo-") as launcher, screen(json=args.json) as shown:
            story = Story(launcher, shown, args.engines)
            try:
                shown.say(f"starting 2 edge nodes, 2 middle nodes and 4 host nodes in {launcher.folder}")
                story.build()
                story.play()
                if args.keep:
                    story.traffic.send(0)
                stats = story.traffic.stop()
                shown.end(stats)
                code = _verdict(stats, shown)
                if args.json:
                    print(json.dumps(result(stats)), flush=True)
                if args.keep:
                    _keep(story, shown, ending)
                return code
            except (WaitTimeout, Problem) as error:
                story.calm()
                shown.failure(f"the demo failed: {error}")
                if args.json:
                    print(json.dumps(result(story.stats)), flush=True)
                return 1
            except Interrupted:
                story.calm()  # requests that fail because the nodes stop are not reported
                raise
    except Interrupted:
        print("interrupted; all processes of the demo were stopped", file=sys.stderr)
        return INTERRUPTED


def _engines(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if not set(kinds) <= {"native", "haproxy"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of native and haproxy")
    return kinds


def result(stats: TrafficStats) -> dict[str, object]:
    """The object that `--json` ends with."""
    total: dict[str, object] = {key: stats.total(key) for key in KEYS[:-1]}
    total["longest_wait_ms"] = stats.longest_wait_ms
    phases = {name: {key: phase[key] for key in (*KEYS, "by_version")} for name, phase in stats.phases.items()}
    return {**total, "phases": phases}


def _verdict(stats: TrafficStats, shown: Screen) -> int:
    lost, wrong, requests = stats.total("lost"), stats.total("wrong_version"), stats.total("requests")
    if lost or wrong or stats.total("answered") != requests or not requests:
        shown.say(f"{requests:,} requests: {lost:,} lost, {wrong:,} answered by a wrong version")
        return 1
    shown.say(f"{requests:,} requests, all answered, each by a permitted version")
    return 0


def _keep(story: Story, shown: Screen, ending: threading.Event) -> None:
    host, edge = story.hosts[0], story.edges[0]
    shown.say(
        "\nThe demo keeps running until Ctrl-C. Try:\n"
        f"  export SDLB_SOCKET={host.socket}\n"
        "  sdlb status; sdlb tree; sdlb routes; sdlb events -f\n"
        f"  curl -H 'Host: shop.example' http://{edge.http}/catalog/items"
    )
    with contextlib.suppress(Interrupted):
        ending.wait()


def _catch_signals() -> threading.Event:
    """The first Ctrl-C, SIGTERM or SIGHUP stops the demo; later ones do not disturb the clean-up."""
    ending = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not ending.is_set():
            ending.set()
            raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    return ending
