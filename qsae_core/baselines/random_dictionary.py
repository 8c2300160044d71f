"""A dictionary of random directions that fires as often as a trained coder does.

Shapes: B tokens, D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.data import Batch
from qsae_core.contracts.dense import DenseForm
from qsae_core.errors import ConfigError
from qsae_core.measuring.directions import random_directions

ROWS_AT_ONCE = 512


@torch.no_grad()
def random_dictionary(coder: MatrixCoder, sample: Batch, seed: int) -> DenseForm:
    """Random atoms, and an encoder that only compares projections on them: nothing of it was trained.

        z = W_enc (x - mean x)           rows of unit norm, drawn from ``seed``; an SAE's are its atoms
        f = the k largest z, if above 0  k as many as fire of the coder on average, rounded; at least 1
        y_hat = mean y + a W_dec^T f     rows of unit norm times a, by least squares

    Args:
        coder: in evaluation mode; its sizes are taken, and how many latents fire.
        sample: vectors of the training stream.

    Raises:
        ConfigError: for a coder of several layers, or one that fires on nothing.
    """
    if max(coder.shape.layers_in, coder.shape.layers_out) > 1:
        raise ConfigError(
            "a random dictionary is made for coders that read one layer and write one",
            where="--baseline random",
            next="--baseline frozen-decoder",
        )
    part = sample.to(coder.device)
    x, y = part.x.float(), coder.target(part).float()
    W_enc = random_directions(x.new_empty(coder.n_latents, x.shape[1]), seed)
    W_dec = W_enc
    if not coder.is_autoencoder:
        W_dec = random_directions(y.new_empty(coder.n_latents, y.shape[1]), seed + 1)
    b_enc = -(W_enc.double() @ x.double().mean(0)).float()
    dense = DenseForm(W_enc, b_enc, W_dec, y.new_zeros(y.shape[1]), k=max(1, round(_l0(coder, x))))
    gain = _gain(dense, x, y - y.mean(0))
    return DenseForm(W_enc.cpu(), b_enc.cpu(), (gain * W_dec).cpu(), y.mean(0).cpu(), k=dense.k)


def _l0(coder: MatrixCoder, x_BD: Tensor) -> float:
    """Latents that fire on a vector, on average."""
    firing = sum(int(coder.encode(x).active.sum()) for x in x_BD.split(ROWS_AT_ONCE))
    if firing == 0:
        raise ConfigError(
            "no latent of this coder fires on its training data, so none has to fire by chance either",
            where="--baseline random",
            next="train the coder longer, or with another sparsity",
        )
    return firing / len(x_BD)


def _gain(dense: DenseForm, x_BD: Tensor, y_BE: Tensor) -> float:
    """``argmin_a ||y - a f W_dec||^2``."""
    along = size = 0.0
    for x, y in zip(x_BD.split(ROWS_AT_ONCE), y_BE.split(ROWS_AT_ONCE), strict=True):
        made = dense.reconstruct(x)
        along += float((made.double() * y.double()).sum())
        size += float(made.double().square().sum())
    return along / size if size else 0.0
