"""A stored coder as the SAE that eai-delphi asks for.

delphi takes sparsify's ``SparseCoder``: ``encode(x)`` with its three fields, ``to(device)``, ``num_latents``
and ``cfg``. Nothing of delphi or sparsify is imported. Shapes: B tokens, D width of the input, E width of the
output, F latents, K latents a token.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import qsae_core
from qsae_core.coders import LinearCoder, MatrixCoder
from qsae_core.contracts import SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import Kind
from qsae_format_onnx.forms import ROWS_AT_ONCE


@dataclass(frozen=True)
class DelphiConfig:
    """What delphi reads of sparsify's ``SparseCoderConfig``."""

    num_latents: int
    k: int | None
    """Latents of every token; None where their number varies, so that ``encode`` gives as many as the token
    with the most of them has."""
    transcode: bool
    """Whether delphi gives it what the hooked module reads, and not what it writes."""
    skip_connection: bool


class EncoderOutput:
    """sparsify's ``EncoderOutput``, whose third field is computed when it is asked for: it takes a product
    with every row of the encoder, and delphi does not read it."""

    def __init__(self, top_acts: Tensor, top_indices: Tensor, pre_acts: Callable[[], Tensor]) -> None:
        self.top_acts, self.top_indices = top_acts, top_indices
        self._pre_acts = pre_acts

    @functools.cached_property
    def pre_acts(self) -> Tensor:
        """float32 ``[B, F]``: the latents before the sparsity rule, ``max(W_enc x' + b_enc, 0)`` of a ReLU.

        Raises:
            ConfigError: for a coder with another encoder than one matrix.
        """
        return self._pre_acts()

    def __iter__(self) -> Iterator[Tensor]:
        yield self.top_acts
        yield self.top_indices
        yield self.pre_acts


class DelphiCoder(nn.Module):
    """A coder of one layer, in delphi's words. It encodes as the coder does, from packed rows where it has
    them, and stays float32; vectors may have any floating-point type."""

    def __init__(self, coder: MatrixCoder) -> None:
        """Take a loaded coder.

        Raises:
            ConfigError: for a coder of several layers, whose vectors no single module of delphi's gives.
        """
        super().__init__()
        if coder.shape.layers_in > 1 or coder.shape.layers_out > 1:
            raise ConfigError(
                f"this coder reads {coder.shape.layers_in} layers and writes {coder.shape.layers_out}",
                where="delphi_coder",
                allowed="a coder of one layer: delphi reads the vectors of one module",
                next="of a run with a coder for each layer, give the folder of one layer",
            )
        self.coder = coder
        self.num_latents, self.d_in = coder.n_latents, coder.shape.d_in
        with torch.no_grad():
            k = coder.encode(torch.zeros(1, self.d_in, device=coder.device)).k
        self.cfg = DelphiConfig(coder.n_latents, k, not coder.is_autoencoder, coder.has_skip)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.coder.device

    @property
    def dtype(self) -> torch.dtype:
        """float32, in which every coder computes."""
        return torch.float32

    def encode(self, x: Tensor) -> EncoderOutput:
        """``[B, D]`` -> the latents that stay, float32 ``[B, K]``, and their numbers, int64 ``[B, K]``.

        Numbers do not repeat within a token; where fewer than K latents are active, some have the value 0.
        """
        codes = self.coder.encode(x)
        return EncoderOutput(*_rectangle(codes), functools.partial(_pre_acts, self.coder, x))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, D]`` -> ``[B, E]``, the coder's output."""
        x_hat: Tensor = self.coder(x)
        return x_hat


def delphi_coder(
    path: str | os.PathLike[str], *, device: str = "cpu", screen: Kind = "none", level: int | None = None
) -> DelphiCoder:
    """The stored coder at a path, as delphi takes it; packed weights stay packed.

    Args:
        path, device, screen, level: as ``qsae_core.load`` takes them.

    Raises:
        ArtifactError, PluginError, ConfigError: as ``qsae_core.load`` raises them; ConfigError also for a
            coder of several layers.
    """
    return DelphiCoder(qsae_core.load(path, device=device, screen=screen, level=level))


def _rectangle(codes: SparseCodes) -> tuple[Tensor, Tensor]:
    """Values and int64 indices, ``[B, K]``: k of every token, or as many as the token with the most has."""
    if codes.k is not None:
        shape = (codes.batch_size, codes.k)
        return codes.values.view(shape), codes.indices.view(shape).long()
    latents_BF = codes.to_dense()
    most = int(codes.l0().max()) if codes.batch_size else 0
    top_indices = (
        latents_BF.abs().topk(most, dim=1).indices
    )  # behind the active ones come others, which are 0
    return latents_BF.gather(1, top_indices), top_indices


@torch.no_grad()
def _pre_acts(coder: MatrixCoder, x: Tensor) -> Tensor:
    own: type[Any] = type(coder)
    names = ("encode", "encode_normalized", "normalized", "encoder_offset")
    plain = isinstance(coder, LinearCoder) and all(getattr(own, n) is getattr(LinearCoder, n) for n in names)
    if not isinstance(coder, LinearCoder) or not plain:
        raise ConfigError(
            f"{qsae_core.name_of(coder)} does not encode by one matrix, so there are no pre-activations",
            where="pre_acts",
            allowed="top_acts and top_indices, which are all that delphi reads",
        )
    x_BD, rows = coder.normalized(x), coder.W_enc.rows()
    if coder.encoder_offset is not None:
        x_BD = x_BD - coder.encoder_offset
    numbers = torch.arange(coder.n_latents, device=coder.device)
    parts = [x_BD @ rows.take(part).T for part in numbers.split(ROWS_AT_ONCE)]
    pre_acts_BF: Tensor = coder.activation(torch.cat(parts, dim=1) + coder.b_enc)
    return pre_acts_BF
