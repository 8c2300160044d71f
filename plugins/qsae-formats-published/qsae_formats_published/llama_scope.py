"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``.

What the library computes on vectors as they are, with s = sqrt(D) / average norm of the vectors that are read
("in") and written ("out"), and n_j the norm of an atom s_in / s_out w_j, or 1 without
``sparsity_include_decoder_norm``:

    W_enc = n E      b_enc = n e / s_in      W_dec = (s_in / s_out) D^T / n      b_dec = d / s_out
    f = z where z > jump_relu_threshold, else 0;  or max(z, 0), or its k largest        z = W_enc x + b_enc

for the file's encoder E, e and decoder D, d. The threshold is not scaled: it was found with these weights.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings, safetensors_names, safetensors_tensors
from qsae_formats_published.openmoss import OpenMoss, check_settings, norms_of, scales, times
from qsae_formats_published.published import check_size, flag, places_of, whole_number

SETTINGS, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
MODEL = "meta-llama/Llama-3.1-8B"
SAELENS = (
    "SAELens's loader gives the latents in another unit (times sqrt(D) / average norm), and compares the "
    "threshold without the atoms' norms"
)
MOST = torch.finfo(torch.float32).max
"""Of a threshold; NaN is not at most that."""


class LlamaScope(OpenMoss):
    """A folder for each SAE or transcoder; the folders of all layers lie beside one another."""

    def is_it(self, path: pathlib.Path) -> bool:
        """By ``hyperparams.json`` and the tensors."""
        folder = next(iter(self.members(path).values()), path)
        known = {"jump_relu_threshold", "hook_point_in", "norm_activation"} <= json_settings(
            file_in(folder, SETTINGS)
        ).keys()
        return known and set(self.names[:3]) <= safetensors_names(file_in(folder, WEIGHTS)).keys()

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its folder."""
        return self.layers(path, SETTINGS)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The SAE or transcoder of a folder, with its scales folded in."""
        file, weights = self.one(path, SETTINGS, self.members(path)), file_in(path, WEIGHTS)
        settings, where = json_settings(file), str(path)
        check_settings(settings, where)
        tensors = self.matrices(self.with_bias(safetensors_tensors(weights)), str(weights))
        dense = _folded(tensors, settings, where)
        dense.validate(where)
        check_size(settings, "d_sae", dense.n_latents, where)
        hooks = settings.get("hook_point_in"), settings.get("hook_point_out")
        same = hooks[0] == hooks[1] or hooks[1] is None
        model = MODEL if path.name.startswith("Llama3_1-8B-Base-") else None
        place = places_of(hooks[0], hooks[0] if same else hooks[1], model)
        notes = (SAELENS,) if same else ()
        return Checkpoint(
            dense, "sae" if same else "transcoder", place, settings, (file, weights), notes=notes
        )


def _folded(tensors: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> DenseForm:
    E, e, D_T, d = (tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    width = whole_number(settings, "d_model", where)
    norms = settings.get("dataset_average_activation_norm")
    of_both = (norms.get("in"), norms.get("out")) if isinstance(norms, dict) else (None, None)
    s_in, s_out = scales(settings, width, of_both, where)
    check_size(settings, "d_model", E.shape[1], where)
    encoder: float | Tensor = 1.0
    decoder: float | Tensor = s_in / s_out
    if flag(settings, "sparsity_include_decoder_norm", where, True):
        n_F = norms_of(D_T) * (s_in / s_out)
        if not bool((n_F > 0).all()):
            raise ArtifactError("an atom is 0, and its norm is to be divided by", where=where)
        encoder, decoder = n_F, s_in / s_out / n_F
    subtracts = flag(settings, "apply_decoder_bias_to_pre_encoder", where, True)
    return DenseForm(
        times(E, encoder),
        times(e, encoder / s_in),
        times(D_T, decoder),
        times(d, 1 / s_out),
        **_rule(settings, len(E), where),
        subtracts_b_dec=subtracts and flag(settings, "use_decoder_bias", where, True),
    )


def _rule(settings: Mapping[str, Any], n_latents: int, where: str) -> dict[str, Any]:
    """Activation, threshold and k."""
    word, threshold = settings.get("act_fn"), settings.get("jump_relu_threshold")
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not abs(threshold) <= MOST:
        raise ArtifactError(f"jump_relu_threshold is {threshold!r}", where=where, allowed="a number")
    if word == "jumprelu" or (word == "topk" and threshold > 0):  # found for a TopK after its training
        return {"activation": "jumprelu", "threshold": torch.full((n_latents,), float(threshold))}
    if word == "topk":
        return {"activation": "relu", "k": whole_number(settings, "top_k", where)}
    if word == "relu":
        return {"activation": "relu"}
    raise ArtifactError(f"act_fn is {word!r}", where=where, allowed="jumprelu, topk, relu")
