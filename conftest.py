"""How Hypothesis tries examples, in the tests of core and of every plugin.

The same examples each time, so that the same code gives the same result; and no deadline, since machines
that run tests are busy. ``pytest --hypothesis-profile default`` looks for new examples.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "qsae", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("qsae")
