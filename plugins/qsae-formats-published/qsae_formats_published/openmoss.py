"""What OpenMOSS' two layouts share: settings that change the function, norms of vectors, folders of layers.

Shapes: D width, F latents.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in
from qsae_formats_published.published import Published, flag

ROWS_AT_ONCE = 4096
FOLDER = re.compile(r"(?:.*-)?L(0|[1-9]\d{0,3})(?:R|A|M|TC)(?:-\d+x)?")
"""``L5R``, ``Llama3_1-8B-Base-L5R-8x``."""


class Scales(NamedTuple):
    """``sqrt(D) / average norm``: by which the library multiplies vectors before it uses them; 1 where the
    file's weights are for vectors as they are."""

    source: float
    target: float


class OpenMoss(Published):
    """A folder for each SAE, with settings and ``encoder``, ``decoder``."""

    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    turned = frozenset({"W_dec"})

    def layers(self, path: pathlib.Path, settings_file: str) -> dict[str, pathlib.Path]:
        """Of a folder of folders: layer -> folder."""
        if not path.is_dir() or is_file_in(path, settings_file):
            return {}
        found = {int(m[1]): p for p in path.iterdir() if p.is_dir() and (m := FOLDER.fullmatch(p.name))}
        return {str(n): found[n] for n in sorted(found) if is_file_in(found[n], settings_file)}

    def one(
        self, path: pathlib.Path, settings_file: str, of_layers: Mapping[str, pathlib.Path]
    ) -> pathlib.Path:
        """The settings of a folder of one SAE.

        Raises:
            ArtifactError: if it is another folder.
        """
        if of_layers:
            raise ArtifactError(
                f"holds an SAE for each of the layers {', '.join(of_layers)}",
                where=str(path),
                allowed="the folder of one layer",
            )
        return file_in(path, settings_file)

    def with_bias(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """With the decoder's bias, which is 0 where ``use_decoder_bias`` is false."""
        weight = tensors.get("decoder.weight")
        if "decoder.bias" in tensors or weight is None:
            return tensors
        return {**tensors, "decoder.bias": weight.new_zeros(weight.shape[:1])}


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Refuse what a dense form cannot hold.

    Raises:
        ArtifactError: which names the setting.
    """
    if flag(settings, "use_glu_encoder", where, False):
        raise ArtifactError("use_glu_encoder is true: latents are products of two encoders", where=where)
    known = ("dataset-wise", "inference", "none")
    norm = settings.get("norm_activation")
    if norm not in known:
        by_token = ": each token or batch is scaled by its own norm" * (norm in ("token-wise", "batch-wise"))
        raise ArtifactError(f"norm_activation is {norm!r}{by_token}", where=where, allowed=", ".join(known))


def scales(settings: Mapping[str, Any], d: int, norms: tuple[Any, Any], where: str) -> Scales:
    """By average norms of the vectors that are read and written, where ``norm_activation`` asks for them.

    Raises:
        ArtifactError: if one is no positive number.
    """
    if settings["norm_activation"] != "dataset-wise":
        return Scales(1.0, 1.0)
    for norm in norms:
        if not isinstance(norm, int | float) or isinstance(norm, bool) or not 0 < norm < math.inf:
            raise ArtifactError(
                f"the average norm of the vectors is {norm!r}", where=where, allowed="a positive number"
            )
    return Scales(*(math.sqrt(d) / norm for norm in norms))


def times(tensor: Tensor, factor: float | Tensor) -> Tensor:
    """Rounded once, to float32; the tensor itself where the factor is 1.

    Args:
        factor: a number, or float64 with one for each row.
    """
    if isinstance(factor, float) and factor == 1:
        return tensor
    out = torch.empty(tensor.shape, dtype=torch.float32)
    for start in range(0, len(tensor), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        by = factor[rows] if isinstance(factor, Tensor) else factor
        by = by[:, None] if isinstance(by, Tensor) and tensor.dim() == 2 else by
        out[rows] = tensor[rows].double() * by
    return out


def norms_of(W_dec: Tensor) -> Tensor:
    """float64 ``[F]``."""
    return torch.cat([rows.double().norm(dim=1) for rows in W_dec.split(ROWS_AT_ONCE)])
