"""``load(path, level=i)`` reads the bytes of that level alone: all others may be ruined on disk.

Which bytes a level needs is written down here by hand: of a nested coder the rows of its first latents, of
bit planes the first ones. Shapes: F latents, D width.
"""

from __future__ import annotations

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import safetensors
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import artifact, places, tensor_files
from qsae_core.artifact import description as coder_json
from qsae_core.errors import ArtifactError
from qsae_core.reading import safetensors_files

F, D = 96, 64
SMALL = (
    f"--n-latents {F} --data synthetic --preset tiny --steps 12 --batch-size 128 --statistics-tokens 256 "
    "--eval-tokens 512 --eval-every 0 --threads 1 --eval reconstruction --no-compare-float"
)


class Levels(NamedTuple):
    """What a run's levels are: latents of each, or how many bit planes there are."""

    flags: str
    latents: Sequence[int] = ()
    planes: int = 0

    @property
    def count(self) -> int:
        return len(self.latents) or self.planes


CODERS = {
    # 8 equal groups
    "matryoshka": Levels("--sae matryoshka --k 4", latents=range(12, F + 1, 12)),
    "packed-matryoshka": Levels(
        "--sae matryoshka --k 4 --quantizer ste --n-bits 4", latents=range(12, F + 1, 12)
    ),
    # 1 + 1 + 2 + 4 eighths
    "quantized-matryoshka": Levels("--sae quantized-matryoshka", latents=(12, 24, 48, 96)),
    # 4 equal levels
    "residual-quantized": Levels("--sae residual-quantized", latents=(24, 48, 72, 96)),
    "quantized-matryoshka-topk": Levels(
        "--sae quantized-matryoshka --sparsity topk --k 3", latents=(12, 24, 48, 96)
    ),
    "residual-quantized-topk": Levels(
        "--sae residual-quantized --sparsity topk --k 3", latents=(24, 48, 72, 96)
    ),
    "uniform-planes": Levels("--sae topk --k 4 --quantizer ste --n-bits 4", planes=4),
    "binary-planes": Levels("--sae binary", planes=4),
    "sign-planes": Levels("--sae topk --k 4 --quantizer residual-binary --n-bits 3", planes=3),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Name -> the artifact of a short run, trained when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("results"), {}

    def train(name: str) -> pathlib.Path:
        if name not in done:
            line = f"train {CODERS[name].flags} {SMALL} --name {name} --out"
            result = CliRunner().invoke(cli, [*shlex.split(line), str(folder)])
            assert result.exit_code == 0, result.output
            (done[name],) = (folder / name).glob("*/*/checkpoints/final")
        return done[name]

    return train


class Stored(NamedTuple):
    """A tensor as the file's header describes it."""

    shape: list[int]
    start: int
    end: int


def stored_tensors(file: pathlib.Path) -> dict[str, Stored]:
    """From the format itself: 8 bytes of length, a JSON header, the tensors."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {
        n: Stored(e["shape"], *(start + offset for offset in e["data_offsets"])) for n, e in found.items()
    }


def needed(name: str, stored: Stored, levels: Levels, level: int) -> np.ndarray:
    """bool ``[bytes]``: those of a tensor that a level is made of."""
    per_entry = (stored.end - stored.start) // int(np.prod(stored.shape))
    mask = np.zeros((*stored.shape, per_entry), dtype=bool)
    if levels.planes:
        mask[: level if name.startswith("W_dec.") and stored.shape[0] == levels.planes else None] = True
    elif name.startswith("sparsity.rules."):
        mask[...] = int(name.split(".")[2]) < level
    elif F in stored.shape:
        np.moveaxis(mask, stored.shape.index(F), 0)[: levels.latents[level - 1]] = True
    else:
        mask[...] = True
    return mask.reshape(-1)


def masks(file: pathlib.Path, levels: Levels, level: int) -> Mapping[str, np.ndarray]:
    return {name: needed(name, stored, levels, level) for name, stored in stored_tensors(file).items()}


def copy_with(source: pathlib.Path, folder: pathlib.Path, altered: Mapping[str, np.ndarray], bits: int):
    """A copy of an artifact in which these bits of these bytes are flipped."""
    folder.mkdir()
    (folder / coder_json.DESCRIPTION).write_bytes((source / coder_json.DESCRIPTION).read_bytes())
    raw = np.frombuffer((source / places.TENSORS).read_bytes(), dtype=np.uint8).copy()
    for name, stored in stored_tensors(source / places.TENSORS).items():
        raw[stored.start : stored.end][altered[name]] ^= bits
    (folder / places.TENSORS).write_bytes(raw.tobytes())
    return folder


@pytest.fixture
def bytes_read(monkeypatch):
    """Bytes of tensor data that are taken out of safetensors files from now on, one number for each read."""
    counts: list[int] = []

    def counted(tensor):
        counts.append(tensor.numel() * tensor.element_size())
        return tensor

    class Slice:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __getitem__(self, where):
            return counted(self.inner[where])

    class Reader:
        def __init__(self, *arguments, **options):
            self.inner = real(*arguments, **options)

        def __enter__(self):
            self.inner.__enter__()
            return self

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get_tensor(self, name):
            return counted(self.inner.get_tensor(name))

        def get_slice(self, name):
            return Slice(self.inner.get_slice(name))

    real = safetensors.safe_open
    monkeypatch.setattr(tensor_files.safetensors, "safe_open", Reader)
    in_memory = safetensors_files.values_in_memory
    monkeypatch.setattr(safetensors_files, "values_in_memory", lambda *place: counted(in_memory(*place)))
    return counts


@pytest.mark.parametrize("name", CODERS)
def test_a_level_from_disk_is_that_level_of_the_whole_bit_for_bit(trained, name):
    whole, levels = qsae_core.load(trained(name)), CODERS[name]
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(0))
    for level in range(1, levels.count + 1):
        part, expected = qsae_core.load(trained(name), level=level), whole.at_level(level)
        assert part.n_latents == (levels.latents[level - 1] if levels.latents else F)
        assert torch.equal(part.encode(x).to_dense(), expected.encode(x).to_dense())
        assert torch.equal(part.reconstruct(x), expected.reconstruct(x))


@pytest.mark.parametrize("name", [name for name in CODERS if name.startswith(("quantized-", "residual-"))])
def test_levels_with_rules_of_their_own_keep_their_codes_in_the_whole(trained, name):
    whole, x = qsae_core.load(trained(name)), torch.randn(40, D, generator=torch.Generator().manual_seed(0))
    codes = whole.encode(x).to_dense()
    for level, n_latents in enumerate(CODERS[name].latents, 1):
        part = qsae_core.load(trained(name), level=level)
        assert torch.equal(part.encode(x).to_dense(), codes[:, :n_latents])


@pytest.mark.parametrize("name", CODERS)
def test_what_a_level_does_not_need_may_be_ruined_on_disk(trained, tmp_path, name):
    path, levels = trained(name), CODERS[name]
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(0))
    assert qsae_core.load(path).levels == levels.count
    for level in range(1, levels.count):
        of_level = masks(path / places.TENSORS, levels, level)
        ruined = copy_with(path, tmp_path / str(level), {n: ~m for n, m in of_level.items()}, 0xFF)
        sound, read = qsae_core.load(path, level=level), qsae_core.load(ruined, level=level)
        assert torch.equal(sound.encode(x).to_dense(), read.encode(x).to_dense())
        assert torch.equal(sound.reconstruct(x), read.reconstruct(x))
        for larger in (level + 1, None):
            with pytest.raises(ArtifactError, match="was altered"):
                qsae_core.load(ruined, level=larger)


@pytest.mark.parametrize("name", CODERS)
def test_each_needed_byte_counts(trained, tmp_path, name):
    path, levels = trained(name), CODERS[name]
    for tensor, mask in masks(path / places.TENSORS, levels, 1).items():
        if mask.any():
            flips = {n: np.zeros_like(m) for n, m in masks(path / places.TENSORS, levels, 1).items()}
            flips[tensor][np.flatnonzero(mask)[-1]] = True
            altered = copy_with(path, tmp_path / tensor, flips, 1)
            with pytest.raises(ArtifactError, match="was altered"):
                qsae_core.load(altered, level=1)


@pytest.mark.parametrize("name", CODERS)
def test_a_level_reads_as_many_bytes_as_it_is_made_of(trained, bytes_read, name):
    path, levels = trained(name), CODERS[name]
    for level in range(1, levels.count + 1):
        bytes_read.clear()
        qsae_core.load(path, level=level)
        expected = sum(int(mask.sum()) for mask in masks(path / places.TENSORS, levels, level).values())
        assert sum(bytes_read) == expected
        bytes_read.clear()
        assert artifact.level_bytes(path)[level - 1] == expected
        assert sum(bytes_read) == 0  # sizes are in the header


def test_qsae_evaluate_reads_no_more_of_a_level(trained, bytes_read):
    path, levels = trained("matryoshka"), CODERS["matryoshka"]
    line = ["evaluate", str(path), "--level", "2", "--eval", "reconstruction", "--json"]
    result = CliRunner().invoke(cli, line)
    assert result.exit_code == 0, result.output
    expected = sum(int(mask.sum()) for mask in masks(path / places.TENSORS, levels, 2).values())
    assert sum(bytes_read) == expected
    assert json.loads(result.stdout)["artifact"]["bytes"] == expected
