"""How many examples the tests with random data run: HYPOTHESIS_PROFILE or --hypothesis-profile names a profile."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# A loaded machine makes an example slow, and says nothing about the package.
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # which traces every line, and takes minutes
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=PHASES,
    derandomize=True,  # a check of a change shows what the change does; nightly looks for the new
)
settings.register_profile(
    "nightly", settings.get_profile("default"), max_examples=10_000, derandomize=False, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
