"""How torch's threads wait for one another: asleep, unless the user's environment says otherwise.

OpenMP's threads spin between two pieces of work: a while that is short where cores are idle, and most of all
time where something else wants them. Torch's runtimes read these variables when torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

DEFAULT = ("OMP_WAIT_POLICY", "passive")
"""Any OpenMP understands it."""
OF_USERS = (DEFAULT[0], "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user decides it: OpenMP's own, GNU's, and Intel's and LLVM's."""


def let_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Set the default where the user has set nothing; before torch is imported."""
    if not any(name in environ for name in OF_USERS):
        name, value = DEFAULT
        environ[name] = value


def describe_waiting(threads: int, environ: Mapping[str, str]) -> str:
    """A line on how many threads there are and how they wait."""
    number = f"{threads} thread{'' if threads == 1 else 's'}"
    chosen = {name: environ[name] for name in OF_USERS if name in environ}
    if not chosen:
        return f"{number}, which wait as OpenMP lets them"
    said = ", ".join(f"{name}={value}" for name, value in chosen.items())
    if chosen == dict([DEFAULT]):
        return f"{number}, asleep while they wait for one another ({said}; a setting of your own is kept)"
    return f"{number}, which wait as your environment says ({said})"
