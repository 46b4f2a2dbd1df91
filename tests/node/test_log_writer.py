"""A log that is not read blocks nothing, and reports afterwards how many lines are missing."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable

from sdlb.node.log_writer import LogWriter


def full_pipe() -> tuple[int, int]:
    """A pipe of 4 KiB that takes nothing more: (what reads, what writes)."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writes, False)
    try:
        while True:
            os.write(writes, b"-" * 512)
    except BlockingIOError:
        os.set_blocking(writes, True)
    return reads, writes


def drain(reads: int, done: Callable[[bytes], bool]) -> bytes:
    found = b""
    end = time.monotonic() + 10
    while not done(found) and time.monotonic() < end:
        found += os.read(reads, 65536)
    return found.replace(b"-", b"")


def test_lines_past_the_bound_are_dropped_counted_and_reported() -> None:
    reads, writes = full_pipe()
    outlet = LogWriter(writes, lambda n: f"missing {n}\n", lines_max=5)
    for number in range(20):
        outlet.write(f"line {number}\n")
    assert 14 <= outlet.dropped <= 15  # one may be in the thread's hands
    kept = 20 - outlet.dropped
    said = drain(reads, lambda found: b"missing" in found)
    lines = said.decode().splitlines()
    assert lines == [*(f"line {number}" for number in range(kept)), f"missing {20 - kept}"]
    outlet.write("again\n")
    outlet.end()
    assert drain(reads, lambda found: b"again" in found) == b"again\n"
    os.close(reads)
    os.close(writes)


def test_the_end_does_not_wait_for_a_log_that_is_not_read() -> None:
    reads, writes = full_pipe()
    outlet = LogWriter(writes, lambda n: f"missing {n}\n")
    outlet.write("line\n")
    begun = time.monotonic()
    outlet.end()
    assert time.monotonic() - begun < 10
    drain(reads, lambda found: b"line" in found)  # frees the thread
    os.close(reads)
    os.close(writes)
