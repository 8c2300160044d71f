"""Builds the shared library of kernels; without a compiler the package installs and says that it has none.

OpenMP's functions are left unresolved on purpose: they come from the runtime that torch has loaded, since a
second runtime would keep a second pool of threads on the same cores.
"""

from __future__ import annotations

import pathlib

from setuptools import Extension, setup

SOURCE = pathlib.Path("qsae_kernels_cpu/src")

setup(
    ext_modules=[
        Extension(
            "qsae_kernels_cpu._native",
            sources=sorted(path.as_posix() for path in SOURCE.glob("*.c")),
            depends=sorted(path.as_posix() for path in SOURCE.glob("*.h")),
            extra_compile_args=[
                "-std=gnu11",
                "-O3",
                "-fopenmp",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-Wall",
                "-Wextra",
            ],
            optional=True,
        )
    ]
)
