"""A coder whose numbers are worked by hand, and language models that load in no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from qsae_core.coder_options import CoderConfig
from qsae_core.contracts import CoderShape, LanguageModel, LossOutput, Parts, SparseCoder, SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.runs import load_plugins, read_block

torch.set_num_threads(1)  # these models are too small to gain from more


class HandCoder(SparseCoder):
    """``f = relu(x W_enc - t)``, ``xhat = f W_dec + b``.

    Args:
        W_enc: ``[D, F]``.
        W_dec: ``[F, D]``.
    """

    def __init__(self, W_enc: Tensor, W_dec: Tensor, t: float = 0.0, is_autoencoder: bool = True) -> None:
        shape = CoderShape(W_enc.shape[0], W_dec.shape[1])
        super().__init__(CoderConfig(n_latents=len(W_dec)), shape, cast(Parts, None))
        self.register_buffer("W_enc", W_enc)
        self.register_buffer("W_dec", W_dec)
        self.t, self.b, self.is_autoencoder = t, 0.125, is_autoencoder

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense((x @ self.get_buffer("W_enc") - self.t).relu())

    def decode(self, codes: SparseCodes) -> Tensor:
        return codes.to_dense() @ self.get_buffer("W_dec") + self.b

    def atoms(self) -> Tensor:
        return self.get_buffer("W_dec")

    def atom_norms(self) -> Tensor:
        return self.get_buffer("W_dec").norm(dim=1)

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


@pytest.fixture
def random_coder() -> Callable[..., HandCoder]:
    """A coder with random matrices: width, latents, seed, and what else a ``HandCoder`` takes."""

    def make(width: int, n_latents: int, seed: int, **options: Any) -> HandCoder:
        generator = torch.Generator().manual_seed(seed)
        W_enc = torch.randn(width, n_latents, generator=generator)
        return HandCoder(W_enc, torch.randn(n_latents, width, generator=generator), **options)

    return make


@pytest.fixture
def hand() -> HandCoder:
    """Three latents of two dimensions: x_0, x_1 and -x_0; atoms (1, 0), (0, 2), (-3, 4)."""
    W_enc = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    return HandCoder(W_enc, torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 4.0]]))


@pytest.fixture
def llama() -> transformers.LlamaForCausalLM:
    """Random, of 3 layers and width 16, in float32."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def builtin() -> LanguageModel:
    """The language model that the data source ``lm`` brings, in float32."""
    registry = load_plugins().registry
    block = read_block("data", {"use": "lm", "model": "builtin", "dtype": "fp32"}, registry, "test")
    model = registry.load_target(registry.get("data", "lm")).language_model_of(block.options)
    return cast(LanguageModel, model)


class HandLayers(SparseCoder):
    """Of L layers. ``f_l = relu(x_l W_enc_l - t)`` of F latents each, which write to their layer and all
    later ones; or, where ``joint``, ``f = relu(sum_l x_l W_enc_l - t)`` of F latents, which write to all.

    Args:
        W_enc: ``[L, D, F]``.
        W_dec: ``[L F, L, D]``, or ``[F, L, D]``.
    """

    reads_layers = True

    def __init__(self, W_enc: Tensor, W_dec: Tensor, t: float, *, joint: bool) -> None:
        shape = CoderShape(W_enc.shape[1], W_dec.shape[2], W_enc.shape[0], W_dec.shape[1])
        super().__init__(CoderConfig(n_latents=len(W_dec)), shape, cast(Parts, None))
        self.register_buffer("W_enc", W_enc)
        self.register_buffer("W_dec", W_dec)
        self.t, self.joint, self.is_autoencoder = t, joint, joint

    def encode(self, x: Tensor) -> SparseCodes:
        pre = torch.einsum("bld,ldf->blf", x, self.get_buffer("W_enc"))
        return SparseCodes.from_dense(((pre.sum(1) if self.joint else pre.flatten(1)) - self.t).relu())

    def decode(self, codes: SparseCodes) -> Tensor:
        return torch.einsum("bf,fld->bld", codes.to_dense(), self.get_buffer("W_dec")) + 0.125

    def layers_read(self, layer: int) -> tuple[int, ...]:
        return super().layers_read(layer) if self.joint else tuple(range(layer + 1))

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        later = torch.zeros(len(x), self.shape.layers_in - x.shape[1], x.shape[2])
        return self.decode(self.encode(torch.cat([x, later], dim=1)))[:, layer]

    def atoms(self) -> Tensor:
        return self.get_buffer("W_dec")

    def atom_norms(self) -> Tensor:
        return self.get_buffer("W_dec").norm(dim=2)

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


@pytest.fixture
def of_layers() -> Callable[..., HandLayers]:
    """A coder of several layers with random matrices: width, latents (of a layer), layers, and what else a
    ``HandLayers`` takes."""

    def make(width: int, n_latents: int, n_layers: int, t: float, *, joint: bool) -> HandLayers:
        generator = torch.Generator().manual_seed(11)
        W_enc = torch.randn(n_layers, width, n_latents, generator=generator)
        n = n_latents if joint else n_latents * n_layers
        W_dec = torch.randn(n, n_layers, width, generator=generator)
        if not joint:
            for layer in range(n_layers):
                W_dec[layer * n_latents : (layer + 1) * n_latents, :layer] = 0
        return HandLayers(W_enc, W_dec, t, joint=joint)

    return make
