"""Qwen-Scope: ``config.json`` and ``layer{n}.sae.pt``.

z = W_enc x + b_enc
f_j = z_j where z_j is among the k largest, else 0        (z_j may be negative)
x_hat = W_dec^T f + b_dec
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, json_settings, only_tensors, torch_contents
from qsae_formats_published.published import Published, check_size, whole_number

CONFIG = "config.json"
LAYER = re.compile(r"layer(0|[1-9]\d{0,3})\.sae\.pt")
SAELENS = (
    "SAELens's loader puts a ReLU behind the k largest, so that it has other latents where fewer than k are "
    "positive"
)


class QwenScope(Published):
    """A file a layer; ``config.json`` beside them has k."""

    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    turned = frozenset({"W_dec"})
    elsewhere = "none: an SAE whose k largest latents keep their signs is in no format that is written"

    def is_it(self, path: pathlib.Path) -> bool:
        """By ``model_type`` in ``config.json``, and the file's tensors."""
        if path.is_dir():
            return _settings(path).get("model_type") == "topk_sae" and bool(_layers(path))
        return _settings(path.parent).get("model_type") == "topk_sae" and self.fits(_state(path))

    def members(self, path: pathlib.Path) -> Mapping[str, pathlib.Path]:
        """Layer -> its file."""
        return _layers(path) if path.is_dir() else {}

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The SAE of a layer's file."""
        if path.is_dir():
            raise ArtifactError(
                f"holds an SAE for each of the layers {', '.join(_layers(path)) or '(none)'}",
                where=str(path),
                allowed="the file of one layer, layer0.sae.pt",
            )
        settings, state, where = _settings(path.parent), _state(path), str(path)
        k = whole_number(settings, "k", f"{path.parent / CONFIG}")
        dense = DenseForm(**self.matrices(state, where), activation="identity", k=k)
        dense.validate(where)
        check_size(settings, "d_sae", dense.n_latents, where)
        check_size(settings, "d_model", dense.W_enc.shape[1], where)
        return Checkpoint(
            dense, "sae", _place(path, settings), settings, (path, path.parent / CONFIG), notes=(SAELENS,)
        )


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    return json_settings(file_in(folder, CONFIG))


def _state(path: pathlib.Path) -> Mapping[str, Any]:
    return only_tensors(torch_contents(path), path)


def _layers(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    names = {int(m[1]): path.name for path in folder.iterdir() if (m := LAYER.fullmatch(path.name))}
    return {str(n): folder / names[n] for n in sorted(names) if is_file_in(folder, names[n])}


def _place(path: pathlib.Path, settings: Mapping[str, Any]) -> Provenance:
    """The layer is in the file's name; the site and the model are in ``config.json``."""
    model, named = settings.get("base_model"), LAYER.fullmatch(path.name)
    if named is None or settings.get("hook_point") != "resid_post":
        return Provenance()
    return Provenance.at(int(named[1]), "resid_post", model=model if isinstance(model, str) else None)
