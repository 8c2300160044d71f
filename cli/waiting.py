"""How torch's threads wait for one another: soon asleep, unless the user's environment says otherwise.

OpenMP's threads spin between two pieces of work: a while that is short where cores are idle, and most of all
time where something else wants them. Sleeping at once has its cost too: small pieces of work begin late. So
threads spin for some microseconds. Thousands of tokens/s of a small ternary SAE (README, "Speed") on two
idle cores and beside three busy processes: at once asleep 74 and 40; 1000 spins of GNU's runtime 121 and 32;
10,000 132 and 16; 100,000 142 and 12. Torch's runtimes read these variables when torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

DEFAULT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
"""Any OpenMP understands the first; GNU's, which torch has on Linux, goes by the second where it is set."""
OF_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user decides it: OpenMP's own, GNU's, and Intel's and LLVM's."""


def let_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Set the default where the user has set nothing; before torch is imported."""
    if not any(name in environ for name in OF_USERS):
        environ.update(DEFAULT)


def describe_waiting(threads: int, environ: Mapping[str, str]) -> str:
    """A line on how many threads there are and how they wait."""
    number = f"{threads} thread{'' if threads == 1 else 's'}"
    chosen = {name: environ[name] for name in OF_USERS if name in environ}
    if not chosen:
        return f"{number}, which wait as OpenMP lets them"
    said = ", ".join(f"{name}={value}" for name, value in chosen.items())
    if chosen == DEFAULT:
        return f"{number}, soon asleep where they wait ({said}; a setting of your own is kept)"
    return f"{number}, which wait as your environment says ({said})"
