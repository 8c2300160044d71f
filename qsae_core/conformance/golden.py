"""Checkpoints that another library wrote and computed with, beside what is made of them here.

A golden folder has ``checkpoint`` (a file or folder as that library wrote it, with any suffix) and
``expected.safetensors``: ``x [B, D]``, and what the library's own code makes of it: ``latents [B, F]`` and
``reconstruction [B, E]`` of its forward pass. Of a folder of several coders they are beside each other,
``NAME/x`` and so on.
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.artifact import artifact
from qsae_core.artifact.checkpoints import export_checkpoint, format_of, members_of, open_checkpoint
from qsae_core.artifact.coder_sets import load_set
from qsae_core.artifact.composed import compose_checkpoint
from qsae_core.artifact.imported import import_checkpoint
from qsae_core.artifact.places import set_folder
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.verdicts import expect, expect_equal
from qsae_core.contracts.format import Checkpoint
from qsae_core.plugins.records import load_plugins
from qsae_core.reading import safetensors_tensors
from qsae_core.registry import Registry

ROUNDING = 1e-5
"""By which latents and reconstructions may differ, relative to the largest of them: both are float32 sums."""
TIES = 0.02
"""Share of tokens whose active latents may be others, where rounding decides."""


class Computed(NamedTuple):
    """Vectors, and what another library makes of them."""

    x: Tensor
    """``[B, D]``."""
    latents: Tensor
    """``[B, F]``."""
    reconstruction: Tensor
    """``[B, E]``: of its forward pass."""


def check_golden(folder: pathlib.Path, form: str, *, writes: bool = True, ties: float = TIES) -> None:
    """Hold what a format makes of a golden folder to what its library computed.

    The one format recognizes it; encode, decode and forward of the coder are the library's; the artifact of
    it computes what the coder does, bit for bit; and what is exported from there has the same settings and
    the same tensors, in the same types, bit for bit.

    Args:
        form: the format's name.
        writes: whether the format writes.
        ties: the share of tokens whose active latents may be others.

    Raises:
        CheckFailure: with the first difference.
        QsaeError: as importing and exporting raise it.
    """
    registry = load_plugins().registry
    (path,) = folder.glob("checkpoint*")
    expected = safetensors_tensors(folder / "expected.safetensors")
    expect(format_of(path, registry) == form, f"{path} is not recognized as {form}.")
    members = members_of(path, registry, form) or {"": path}
    read = {name: open_checkpoint(member, registry, form) for name, member in members.items()}
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        stored = pathlib.Path(place) / "stored"
        import_checkpoint(path, stored, registry, format=form, message=lambda text: None)
        several = load_set(stored, registry=registry) if set_folder(stored) else None
        for name, checkpoint in read.items():
            coder = compose_checkpoint(checkpoint, registry, str(members[name]))
            wanted = Computed(*(expected[f"{name}/{key}".lstrip("/")] for key in Computed._fields))
            expect_computes(coder, wanted, f"{folder.name} {name}".strip(), ties)
            loaded = artifact.load(stored, registry=registry) if several is None else several[name]
            again, before = (c.encode(wanted.x).to_dense() for c in (loaded, coder))
            expect_equal(again, before, f"latents of the artifact of {folder.name}")
        if writes:
            _expect_written_again(read, stored, pathlib.Path(place) / f"written{path.suffix}", form, registry)


def expect_computes(coder: MatrixCoder, wanted: Computed, what: str, ties: float = TIES) -> None:
    """Fail unless encode, decode and forward give these latents and reconstructions, but for rounding.

    Tokens whose active latents are others are counted, and left out of the rest.
    """
    codes = coder.encode(wanted.x)
    actual_BF = codes.to_dense()
    expect(actual_BF.shape == wanted.latents.shape, f"{what} gives {list(actual_BF.shape)} latents.")
    same_B = ((actual_BF != 0) == (wanted.latents != 0)).all(1)
    others = 1 - same_B.double().mean().item()
    expect(others <= ties, f"{what} has other active latents for {others:.1%} of the tokens.")
    compared = {
        "latents": (actual_BF, wanted.latents),
        "outputs of decode": (coder.decode(codes), wanted.reconstruction),
        "outputs of forward": (coder(wanted.x), wanted.reconstruction),
    }
    for name, (actual, theirs) in compared.items():
        error, size = (actual - theirs)[same_B].abs().max().item(), theirs.abs().max().item()
        expect(error <= ROUNDING * size, f"{what} gives {name} that are off by {error:.3g} of {size:.3g}.")


def _expect_written_again(
    read: dict[str, Checkpoint], stored: pathlib.Path, written: pathlib.Path, form: str, registry: Registry
) -> None:
    export_checkpoint(stored, written, form, registry)
    expect(format_of(written, registry) == form, f"what was written is not recognized as {form}.")
    members = members_of(written, registry, form) or {"": written}
    expect(list(members) == list(read), f"written are {', '.join(members)}, read were {', '.join(read)}.")
    for name, before in read.items():
        after, who = open_checkpoint(members[name], registry, form), name or "the coder"
        expect(after.settings == before.settings, f"the settings of {who} are others when written.")
        expect(after.provenance == before.provenance, f"the provenance of {who} is another when written.")
        for field, tensor in before.form.tensors().items():
            expect_equal(after.form.tensors()[field], tensor, f"{field} of {who}, written")
        for field in ("activation", "k", "ranks_by_norm", "subtracts_b_dec", "layers"):
            own, wanted = (getattr(c.form, field, None) for c in (after, before))
            same = isinstance(wanted, tuple) or own == wanted
            expect(same, f"{field} of {who} is another one when written.")
