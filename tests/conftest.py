"""Real servers, and Hypothesis profiles: `dev` by default, `ci` on CI, `long` for the figures that an issue asks for."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["support.server_fixtures"]

_ALWAYS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("dev", max_examples=100, **_ALWAYS)
settings.register_profile("ci", max_examples=300, **_ALWAYS)
settings.register_profile("long", max_examples=10_000, **_ALWAYS)
settings.load_profile("long" if os.environ.get("SLUICEGATE_LONG") else "ci" if os.environ.get("CI") else "dev")
