"""How hypothesis looks for counter-examples: always the same ones in CI, so that a red run is about the change."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

slow = [HealthCheck.too_slow]
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, database=None, suppress_health_check=slow
)
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=slow)
settings.register_profile("deep", deadline=None, max_examples=2000, suppress_health_check=slow)
settings.load_profile(os.environ.get("SDLB_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "dev"))
