"""The set as core sees it: what it offers at each instruction set, and when it is unavailable."""

from __future__ import annotations

import pathlib

import pytest
import torch
from qsae_kernels_cpu import CpuKernelsConfig, library, lookup, rotation, sparse, updates
from qsae_kernels_cpu.kernels import CpuKernels

from qsae_core.errors import ConfigError


@pytest.fixture
def fresh_library():
    """The library is loaded anew in the test, and forgotten after it."""
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_a_screen_is_offered_where_there_is_vnni(isa):
    kernels = CpuKernels(CpuKernelsConfig())
    assert kernels.unavailable() is None
    assert kernels.describe()["isa"] == isa
    assert ("screen" in kernels.operations()) == (isa in ("vnni", "amx"))


def test_core_agrees_with_every_operation(isa):
    verification = pytest.importorskip("qsae_core.kernels.verification")
    assert verification.disagreements(CpuKernels(CpuKernelsConfig()).operations(), "cpu") == {}


@pytest.mark.usefixtures("isa")
def test_there_is_one_openmp_runtime():
    """Torch's. Other wheels that were imported meanwhile have one of their own, in a folder NAME.libs."""
    maps = pathlib.Path("/proc/self/maps").read_text(encoding="utf-8")
    found = {pathlib.Path(line.split()[-1]) for line in maps.splitlines() if "libgomp" in line}
    assert len([path for path in found if path.parent.suffix != ".libs"]) == 1


_results: dict[str, list[torch.Tensor]] = {}


def test_every_instruction_set_gives_the_same_bits(isa):
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(90, 500, generator=generator) for _ in range(2))
    indices = torch.randint(0, 90, (720,), generator=generator, dtype=torch.int32)
    offsets, values = torch.arange(0, 721, 8), torch.randn(720, generator=generator)
    codes = torch.randint(0, 4, (90, 500), generator=generator, dtype=torch.uint8)
    points, scales = torch.randn(4, generator=generator), torch.rand(90, generator=generator)
    packed = (lookup.lookup_pack(codes, 2), points, scales, 500, 2)
    turn = (torch.ones(500, dtype=torch.int8), torch.eye(4), torch.randn(125, 125, generator=generator))
    _results[isa] = [
        rotation.rotate(left, *turn),
        rotation.unrotate(left, *turn),
        sparse.gather_dot(left, right, indices, offsets),
        sparse.sparse_product(indices, offsets, values, right),
        lookup.lookup_product(*packed, indices, offsets, values),
        lookup.lookup_gather_dot(*packed, left, indices, offsets),
        updates.ternary_scales(right.abs()),
        torch.tensor(updates.project_rows(right, left / 30)),
        right,
    ]
    first, *_ = _results.values()
    assert all(torch.equal(a, b) for a, b in zip(first, _results[isa], strict=True))


@pytest.mark.usefixtures("fresh_library")
def test_an_unknown_instruction_set_is_an_error(monkeypatch):
    monkeypatch.setenv(library.ISA_VARIABLE, "sse9")
    with pytest.raises(ConfigError) as caught:
        CpuKernels(CpuKernelsConfig()).unavailable()
    assert "sse9" in str(caught.value)
    assert "avx2, avx512, vnni, amx" in str(caught.value)


@pytest.mark.usefixtures("fresh_library")
def test_without_a_library_the_set_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "compiler" in str(CpuKernels(CpuKernelsConfig()).unavailable())


@pytest.mark.usefixtures("isa", "fresh_library")
def test_a_machine_without_avx2_is_unavailable(monkeypatch):
    monkeypatch.setattr(library, "level_limit", lambda: 0)
    assert "AVX2" in str(CpuKernels(CpuKernelsConfig()).unavailable())
