"""What all tests start from: how hypothesis looks for counter-examples (always the same ones in CI, so that a red run is
about the change), and that Ctrl-C reaches the programs that are started, also when the tests run in the background."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells leave it for what ends in "&"; it would be inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)

slow = [HealthCheck.too_slow]
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, database=None, suppress_health_check=slow
)
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=slow)
settings.register_profile("deep", deadline=None, max_examples=2000, suppress_health_check=slow)
settings.load_profile(os.environ.get("SDLB_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "dev"))
