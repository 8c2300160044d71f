"""What holds for the tests of core and of every plugin.

Hypothesis tries the same examples each time, so that the same code gives the same result, and has no
deadline, since machines that run tests are busy. ``pytest --hypothesis-profile default`` looks for new ones.
"""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

settings.register_profile(
    "qsae", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("qsae")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the million objects of the collected tests no more."""
    gc.collect()
    gc.freeze()
