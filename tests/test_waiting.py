"""How threads wait: what the ``qsae`` command sets before torch is there, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qsae_cli.waiting import OF_USERS, describe_waiting, let_threads_sleep


def test_threads_sleep_where_nobody_says_otherwise():
    environ = {"OMP_NUM_THREADS": "3"}
    let_threads_sleep(environ)
    assert environ == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
    said = describe_waiting(3, environ)
    assert said.startswith(
        "3 threads, soon asleep where they wait (OMP_WAIT_POLICY=passive, GOMP_SPINCOUNT=1000;"
    )


@pytest.mark.parametrize(
    "own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "1000"}, {"KMP_BLOCKTIME": "200"}]
)
def test_what_a_user_set_is_kept_and_said(own):
    environ = dict(own)
    let_threads_sleep(environ)
    assert environ == own
    ((name, value),) = own.items()
    assert describe_waiting(1, environ) == f"1 thread, which wait as your environment says ({name}={value})"


def test_without_the_command_nothing_is_set():
    """Whoever calls qsae from Python decides for the process."""
    assert describe_waiting(2, {}) == "2 threads, which wait as OpenMP lets them"


SHOW = """
import ctypes, sys
sys.argv = ["qsae", "list-plugins"]
import qsae_cli.main
try:
    qsae_cli.main.main()
finally:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    print("found", getenv(b"OMP_WAIT_POLICY"), getenv(b"GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


def test_the_command_sets_it_for_libraries_before_torch_is_imported():
    """These read the process's environment; Python's own mapping would prove nothing."""
    environ = {name: value for name, value in os.environ.items() if name not in OF_USERS}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "found b'passive' b'1000' False", done
