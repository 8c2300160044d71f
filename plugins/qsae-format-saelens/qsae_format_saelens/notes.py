"""Where SAELens' own loaders compute something else than the file says, and what cfg.json says of vectors."""

from __future__ import annotations

import pathlib

import torch

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings
from qsae_format_saelens.hooks import CENTRED, is_centred
from qsae_format_saelens.normalizations import AVERAGE
from qsae_format_saelens.understood import K, Understood
from qsae_format_saelens.weights import ROWS_AT_ONCE

SCALER = "activation_scaler.json"
"""Beside the weights of a training state: what vectors were multiplied with."""
NORM_TOLERANCE = 1e-4


def notes_of(found: Understood, dense: DenseForm, folder: pathlib.Path) -> list[str]:
    """A sentence for each thing that whoever imports the coder should know."""
    notes = []
    if found.normalizes == AVERAGE:
        notes.append(_of_average(folder))
    if found.reads_heads:
        notes.append("it is for hook_z with the heads of a token one after another: [tokens, heads * d_head]")
    dtype = getattr(torch, found.dtype)
    wider = sorted(n for n, t in dense.tensors().items() if torch.promote_types(t.dtype, dtype) != dtype)
    if wider:
        notes.append(
            f"SAELens rounds {', '.join(wider)} to the {found.dtype} of cfg.json as it loads them, unless "
            "another dtype is asked for; here they are as the file has them"
        )
    if dense.ranks_by_norm and not _has_unit_norms(dense):
        notes.append(
            "rescale_acts_by_decoder_norm: SAELens' latents are these times the norms of their atoms, and "
            "decoding divides by these again; reconstructions are the same"
        )
    if dense.k is not None and not found.names_k:
        notes.append(f"cfg.json names no k; SAELens takes {K}, and so does this")
    if is_centred(found):
        notes.append(
            f"its vectors are of a model that TransformerLens loads with {CENTRED}=True, which takes the "
            "mean off the stream of GPT-2, Pythia and OPT: they are those of no site here"
        )
    return notes


def _of_average(folder: pathlib.Path) -> str:
    said = (
        f"normalize_activations is {AVERAGE}: as by SAELens' load_from_disk, vectors are taken as they are; "
        "from_pretrained multiplies W_enc with a number of its own list, and divides W_dec and b_dec by it"
    )
    try:
        factor = json_settings(file_in(folder, SCALER)).get("scaling_factor")
    except ArtifactError:
        return said
    if not isinstance(factor, int | float) or isinstance(factor, bool):
        return said
    return f"{said}; in training vectors were multiplied with {factor:.6g} ({SCALER})"


def _has_unit_norms(dense: DenseForm) -> bool:
    return all(
        bool(((rows.float().norm(dim=1) - 1).abs() < NORM_TOLERANCE).all())
        for rows in dense.W_dec.split(ROWS_AT_ONCE)
    )
