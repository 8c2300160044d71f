"""Runs a command and writes the most memory that it held; imports nothing large.

A process that is started inherits the peak of the one that starts it, so this one has to be small.

    python peak.py OUT COMMAND ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(out: str, command: list[str]) -> int:
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    found = {"peak_bytes": usage.ru_maxrss * unit, "seconds": time.perf_counter() - started}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
