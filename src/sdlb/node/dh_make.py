"""Makes DH parameters with the `openssl` command, as a child process of lower priority that ends with this process.

Python's `cryptography` has deprecated finite-field Diffie-Hellman, so it is not used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

from sdlb.model.problem import Invalid
from sdlb.node.child import die_with_parent
from sdlb.node.dh_files import CODE

LOOK_S = 0.2
NICE = 15
TYPICAL_CPU_S = {2048: (10, 54), 3072: (40, 400), 4096: (120, 1800)}
"""How many CPU seconds it takes: chance decides. Measured for 2048 bits; estimated from that for larger sizes."""


def estimate(bits: int) -> str:
    low, high = TYPICAL_CPU_S.get(bits, (1, 10))
    unit, size = ("minutes", 60) if high > 120 else ("seconds", 1)
    return f"usually {max(1, low // size)} to {high // size} {unit} of CPU time"


def generate(bits: int, show: Callable[[float], None], openssl: str = "openssl") -> str:
    """PEM. `show` gets the elapsed seconds now and then. Raises Invalid."""
    begin = time.monotonic()
    set_parent_death_signal = die_with_parent(signal.SIGKILL)

    def prepare() -> None:
        set_parent_death_signal()
        os.nice(NICE)

    try:
        child = subprocess.Popen(
            [openssl, "dhparam", "-2", str(bits)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=prepare,
        )
    except OSError as error:
        do = "install it (Debian: apt install openssl)"
        raise Invalid(CODE, openssl, f"cannot be run ({error.strerror})", do) from None
    try:
        while True:
            try:
                output, _ = child.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                show(time.monotonic() - begin)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    if child.returncode:
        raise Invalid(CODE, f"{openssl} dhparam", f"exited with code {child.returncode}", "run it by hand to see why")
    return output.decode("ascii", "replace")
