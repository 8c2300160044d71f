"""The compiled library: loaded once, on the OpenMP runtime of torch, at the level that the machine allows."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import pathlib
import re
from dataclasses import dataclass
from typing import Any

from qsae_core.errors import ConfigError

ISA_VARIABLE = "QSAE_KERNELS_ISA"
LEVELS = {"avx2": 1, "avx512": 2, "vnni": 3, "amx": 4}


@dataclass(frozen=True)
class Library:
    """The loaded library.

    Attributes:
        level: 1 AVX2, 2 AVX-512, 3 with VNNI, 4 with AMX.
        openmp: the path of the OpenMP runtime whose threads it uses.
    """

    native: ctypes.CDLL
    level: int
    openmp: str

    @property
    def isa(self) -> str:
        """The level's name."""
        return next(name for name, level in LEVELS.items() if level == self.level)


def level_limit() -> int:
    """The highest level that ``QSAE_KERNELS_ISA`` allows.

    Raises:
        ConfigError: the variable has a value that names no level.
    """
    name = os.environ.get(ISA_VARIABLE, "")
    if name and name not in LEVELS:
        raise ConfigError(
            f"there is no instruction set {name!r}", where=ISA_VARIABLE, allowed=", ".join(LEVELS)
        )
    return LEVELS.get(name, max(LEVELS.values()))


@functools.cache
def load() -> Library | str:
    """The library, or the reason why it cannot be used.

    Raises:
        ConfigError: ``QSAE_KERNELS_ISA`` names no level.
    """
    limit = level_limit()
    spec = importlib.util.find_spec("qsae_kernels_cpu._native")
    if spec is None or spec.origin is None:
        return "qsae-kernels-cpu was installed without a compiler (gcc), so it has no library"
    openmp = _openmp()
    if openmp is None:
        return "no OpenMP runtime (libgomp.so.1) is there, neither torch's nor the system's"
    try:
        native = ctypes.CDLL(spec.origin)
    except OSError as error:
        return f"the compiled library does not load: {error}"
    _declare(native)
    level = native.cpu_level(limit)
    if level == 0:
        return "the processor lacks AVX2, FMA or BMI2"
    return Library(native, level, openmp)


def library() -> Library:
    """The library, where it is known to be usable."""
    loaded = load()
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


@functools.cache
def compiled(operation: str) -> Any:
    """The library's function of an operation, for AVX-512 or AVX2 where it is there for both."""
    loaded = library()
    suffix = "_avx512" if loaded.level >= LEVELS["avx512"] else "_avx2"
    return getattr(loaded.native, operation + suffix if operation in _IN_LANES else operation)


def _openmp() -> str | None:
    """Open the OpenMP runtime for the library to find its functions in: the one loaded, else the system's.

    A second runtime in one process would have threads of its own, which spin beside those of torch. Where
    several are loaded, that of torch is taken. Those of Intel and LLVM have the functions of gcc too.
    """
    maps = pathlib.Path("/proc/self/maps")
    text = maps.read_text(encoding="utf-8", errors="replace") if maps.exists() else ""
    pattern = r" (/\S.*/lib(?:gomp|iomp5|omp)\b[^/\n]*\.so[^/\n]*)$"
    loaded = sorted(
        dict.fromkeys(re.findall(pattern, text, re.MULTILINE)), key=lambda path: "/torch" not in path
    )
    for path in [*loaded, "libgomp.so.1"]:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return path
    return None


_LETTERS: dict[str, Any] = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_int64,
    "i": ctypes.c_int,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
_IN_LANES = {  # operation: arguments; see the sources' headers
    "gather_dot": "pppppnni",
    "sparse_product": "pppppnni",
    "top_k": "pppnnni",
    "compress_begin": "pfpnni",
    "compress_end": "pppp",
    "project_rows": "ppnni",
    "adam": "ppppnnddddndii",
    "ternary_scales": "ppnni",
    "lookup_pack": "ppnnnii",
    "lookup_product": "ppnpnnippppni",
    "lookup_gather_dot": "ppnpnnippppni",
    "rotate": "pppppnnni",
    "unrotate": "pppppnnni",
}
_PLAIN = {
    "cpu_level": "i",
    "transpose_codes": "pppppnni",
    "expand_rows": "ppppnni",
    "collect_rows": "ppppnni",
    "screen_prepare": "ppppnni",
    "screen": "pppppppnnnnii",
    "fused_encode": "pppppnnni",
    "fused_decode": "pppppnni",
}
_RESULTS = {  # the others give nothing
    "project_rows": ctypes.c_double,
    "compress_begin": ctypes.c_void_p,
    "cpu_level": ctypes.c_int,
    **dict.fromkeys(("top_k", "ternary_scales", "transpose_codes", "screen"), ctypes.c_int),  # 1: no memory
    **dict.fromkeys(("rotate", "unrotate", "fused_encode", "fused_decode"), ctypes.c_int),  # see fused.c
}


def _declare(native: ctypes.CDLL) -> None:
    """Argument and result types of every function."""
    names = {f"{name}_{isa}": letters for name, letters in _IN_LANES.items() for isa in ("avx2", "avx512")}
    for name, letters in (names | _PLAIN).items():
        function = getattr(native, name)  # kept by the library, which native[name] would not be
        function.argtypes = [_LETTERS[letter] for letter in letters]
        function.restype = _RESULTS.get(name.removesuffix("_avx2").removesuffix("_avx512"))
