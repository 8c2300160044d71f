"""A run over many tokens takes no more memory than a run over few."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, sys
from tests.test_training_run import Silent, configuration, run
from tests.test_memory import resident_bytes

class Measuring(Silent):
    def logged(self, step, values):
        if step in (400, 2000):
            print(step, resident_bytes())

train = {"steps": 2000, "batch_size": 64, "checkpoint_every": 100, "log_every": 1}
run(configuration(pathlib.Path(sys.argv[1]), train=train), Measuring())
"""


def resident_bytes() -> int:
    """What the process holds in memory now (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stands_still(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(tmp_path / "states.npy", rng.normal(size=(4096, 24)).astype(np.float32))
    root = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "states.npy")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    early, late = (int(line.split()[1]) for line in done.stdout.splitlines()[:2])
    assert late - early < 8e6, f"{(late - early) / 1e6:.1f} MB more after 1600 further steps"
