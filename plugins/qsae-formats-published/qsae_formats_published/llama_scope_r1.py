"""Llama Scope R1: ``config.json`` and ``sae_weights.safetensors``.

What the library computes, with s = sqrt(D) / average norm of the vectors that are read and written, and n_j
the norm of the file's atom, or 1 without ``sparsity_include_decoder_norm``:

    z = E (s_in x) + e
    f = z where n z > exp(log_jumprelu_threshold), else 0
    x_hat = (D f + d) / s_out
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings, safetensors_names, safetensors_tensors
from qsae_formats_published.openmoss import OpenMoss, check_settings, norms_of, scales, times
from qsae_formats_published.published import check_size, flag, places_of

SETTINGS, WEIGHTS = "config.json", "sae_weights.safetensors"
THRESHOLD, NORM = "log_jumprelu_threshold", "dataset_average_activation_norm."
SAELENS = "SAELens's loader leaves out the atoms' norms, with which the threshold is compared"


class LlamaScopeR1(OpenMoss):
    """A folder for each SAE; the folders of all layers lie beside one another."""

    more = frozenset({THRESHOLD})

    def is_it(self, path: pathlib.Path) -> bool:
        """By the tensors, and hooks in ``config.json``."""
        folder = next(iter(self.members(path).values()), path)
        found = safetensors_names(file_in(folder, WEIGHTS)).keys()
        known = {*self.names[:3], THRESHOLD} <= found
        return known and "hook_point_in" in json_settings(file_in(folder, SETTINGS))

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its folder."""
        return self.layers(path, SETTINGS)

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The SAE of a folder, with its scales folded in."""
        file, weights = self.one(path, SETTINGS, self.members(path)), file_in(path, WEIGHTS)
        settings, where = json_settings(file), str(path)
        check_settings(settings, where)
        if settings.get("act_fn", "jumprelu") != "jumprelu":
            raise ArtifactError(f"act_fn is {settings['act_fn']!r}", where=where, allowed="jumprelu")
        tensors = self.with_bias(safetensors_tensors(weights))
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(NORM)}
        hook = settings.get("hook_point_in")
        hooks = hook, settings.get("hook_point_out") or hook
        norms = [_number(tensors.get(f"{NORM}{hook}")) for hook in hooks]
        dense = _folded(
            self.matrices(own, str(weights)), own.get(THRESHOLD), settings, (norms[0], norms[1]), where
        )
        dense.validate(where)
        check_size(settings, "d_model", dense.W_enc.shape[1], where)
        kind: Literal["sae", "transcoder"] = "sae" if hooks[0] == hooks[1] else "transcoder"
        return Checkpoint(dense, kind, places_of(*hooks, None), settings, (file, weights), notes=(SAELENS,))


def _number(tensor: Tensor | None) -> float | None:
    return tensor.item() if tensor is not None and tensor.numel() == 1 else None


def _folded(
    tensors: Mapping[str, Tensor],
    log_threshold: Tensor | None,
    settings: Mapping[str, Any],
    norms: tuple[float | None, float | None],
    where: str,
) -> DenseForm:
    E, e, D_T, d = (tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if log_threshold is None or log_threshold.shape != e.shape:
        raise ArtifactError(f"there is no {THRESHOLD} {list(e.shape)}", where=where)
    s_in, s_out = scales(settings, E.shape[1], norms, where)
    threshold = log_threshold.double().exp()
    if flag(settings, "sparsity_include_decoder_norm", where, True):
        threshold = threshold / norms_of(D_T)
    subtracts = flag(settings, "apply_decoder_bias_to_pre_encoder", where, False)
    form = DenseForm(
        times(E, s_in), e, times(D_T, 1 / s_out), times(d, 1 / s_out), "jumprelu", threshold.float()
    )
    if subtracts and flag(settings, "use_decoder_bias", where, True):  # from s_in x, the bias d
        form = form.moved_by(d.double() / s_in)
    return form
