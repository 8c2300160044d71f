"""ckkissane's SAEs of attention's z, and the crosscoder of two models.

    SAE           f = max(W_enc (x - b_dec) + b_enc, 0)        x_hat = W_dec^T f + b_dec
    crosscoder    f = max(sum_l W_enc_l x_l + b_enc, 0)        x_hat_l = W_dec_l^T f + b_dec_l

Shapes: D width, F latents; l the first and the second model.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings, only_tensors, torch_contents
from qsae_formats_published.published import Published, check_size

WEIGHTS, CONFIG, BESIDE = "cc_weights.pt", "cfg.json", "_cfg.json"
SCALED = (
    "the crosscoder is for vectors of each model that are scaled to an average norm of sqrt(D), as in its "
    "training; the two factors are not in the file"
)
PROCESSED = (
    "the vectors are hook_z of TransformerLens, heads one after another, of a model whose value biases are "
    "folded (HookedTransformer.from_pretrained); no site of qsae has them"
)


class Ckkissane(Published):
    """``NAME.pt`` with ``NAME_cfg.json``; or a folder with ``cc_weights.pt`` and ``cfg.json``."""

    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    turned = frozenset({"W_enc"})

    def is_it(self, path: pathlib.Path) -> bool:
        """By the settings beside the weights, and the names and shapes of these."""
        if not path.is_dir():
            return {"act_name", "act_size"} <= _beside(path).keys() and self.fits(_state(path))
        if is_file_in(path, WEIGHTS):
            return "hook_point" in json_settings(file_in(path, CONFIG)) and _is_pair(_state(path / WEIGHTS))
        return any(self.is_it(file) for file in _files(path))

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its file, by the ``layer`` of their settings; of a crosscoder nothing."""
        if not path.is_dir() or is_file_in(path, WEIGHTS):
            return {}
        layers = [(_beside(file).get("layer"), file) for file in _files(path)]
        if not layers or not all(type(layer) is int for layer, _ in layers):
            raise ArtifactError("has no NAME.pt with the layer in NAME_cfg.json", where=str(path))
        if len({layer for layer, _ in layers}) < len(layers):
            raise ArtifactError(
                "has several SAEs of one layer", where=str(path), next="give one of its files"
            )
        return {str(layer): file for layer, file in sorted(layers)}

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The SAE of a file, or the crosscoder of a folder."""
        if path.is_dir():
            return _crosscoder(path)
        settings, where = _beside(path), str(path)
        dense = DenseForm(**self.matrices(_state(path), where), subtracts_b_dec=True)
        dense.validate(where)
        check_size(settings, "act_size", dense.W_enc.shape[1], where)
        check_size(settings, "dict_size", dense.n_latents, where)
        notes = (PROCESSED,) if settings.get("site") == "z" else ()
        return Checkpoint(dense, "sae", settings=settings, files=(path, _config(path)), notes=notes)


def _crosscoder(path: pathlib.Path) -> Checkpoint:
    """The two models' vectors are one long vector."""
    weights, config = file_in(path, WEIGHTS), file_in(path, CONFIG)
    settings, state, where = json_settings(config), _state(weights), str(weights)
    if not _is_pair(state):
        found = {name: list(tensor.shape) for name, tensor in state.items()}
        raise ArtifactError(
            f"its tensors are {found}"[:400],
            where=where,
            allowed="W_enc [2, D, F], b_enc [F], W_dec [F, 2, D], b_dec [2, D]",
        )
    W_enc, b_enc, W_dec, b_dec = (state[name] for name in Ckkissane.names)
    dense = DenseForm(W_enc.flatten(0, 1).T, b_enc, W_dec.flatten(1), b_dec.flatten(), layers=2)
    dense.validate(where)
    check_size(settings, "dict_size", dense.n_latents, where)
    check_size(settings, "d_in", W_enc.shape[1], where)
    return Checkpoint(dense, "sae", settings=settings, files=(weights, config), notes=(SCALED,))


def _is_pair(state: Mapping[str, Tensor]) -> bool:
    if state.keys() != set(Ckkissane.names) or state["W_enc"].dim() != 3:
        return False
    models, d, n_latents = state["W_enc"].shape
    sizes = ((n_latents,), (n_latents, models, d), (models, d))
    return models == 2 and tuple(tuple(state[name].shape) for name in Ckkissane.names[1:]) == sizes


def _state(path: pathlib.Path) -> dict[str, Tensor]:
    return only_tensors(torch_contents(path), path)


def _config(path: pathlib.Path) -> pathlib.Path:
    return file_in(path.parent, path.name.removesuffix(".pt") + BESIDE)


def _beside(path: pathlib.Path) -> dict[str, Any]:
    return json_settings(_config(path))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Weights that have settings beside them."""
    found = (path for path in sorted(folder.glob("*.pt")) if is_file_in(folder, path.name))
    return [path for path in found if is_file_in(folder, path.name.removesuffix(".pt") + BESIDE)]
