"""Tiny files of both formats, and what follows from their numbers by hand."""

from __future__ import annotations

import json

import numpy
import torch
from safetensors.torch import save_file

TENSORS = {
    "w_enc": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),  # [D, F]
    "b_enc": torch.tensor([0.5, 0.0, -1.0]),
    "w_dec": torch.tensor([[1.0, 0.0], [0.0, 10.0], [100.0, 100.0]]),
    "b_dec": torch.tensor([7.0, 8.0]),
    "threshold": torch.tensor([1.5, 2.0, 0.0]),
}
X = torch.tensor([[1.0, 3.0]])
# z = x w_enc + b_enc, and not x - b_dec: (1 + 0.5, 3, 2 + 3 - 1) = (1.5, 3, 4); 1.5 is not above its
# threshold 1.5, so f = (0, 3, 4), and x_hat = (7 + 400, 8 + 30 + 400)
LATENTS, OUTPUT = [[0.0, 3.0, 4.0]], [[407.0, 438.0]]
SKIP = torch.tensor([[1.0, 0.0], [5.0, 2.0]])  # x A = (1 + 15, 6)
CONFIG = {
    "hf_hook_point_in": "model.layers.9.output",
    "hf_hook_point_out": "model.layers.9.output",
    "width": 3,
    "model_name": "google/gemma-3-1b-it",
    "architecture": "jump_relu",
    "l0": 60,
    "affine_connection": False,
    "type": "sae",
}


def npz(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name.replace("w_", "W_"): tensor.numpy() for name, tensor in TENSORS.items()}
    numpy.savez(folder / "params.npz", **(arrays | more))
    return folder


def safetensors(folder, config=CONFIG, **more):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(TENSORS | more, folder / "params.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


# --- several layers

LAYERS = [
    # one latent a layer: f_0 = max(x_0 - 1, 0), f_1 = max(2 x_1, 0) where it is above 3
    {
        "w_enc": torch.tensor([[1.0]]),
        "b_enc": torch.tensor([-1.0]),
        "w_dec": torch.tensor([[[1.0], [10.0]]]),  # [F, L, D]: writes to both
        "b_dec": torch.tensor([0.25]),
        "threshold": torch.tensor([0.0]),
    },
    {
        "w_enc": torch.tensor([[2.0]]),
        "b_enc": torch.tensor([0.0]),
        "w_dec": torch.tensor([[[0.0], [100.0]]]),
        "b_dec": torch.tensor([0.5]),
        "threshold": torch.tensor([3.0]),
    },
]
PAIRS = torch.tensor([[[3.0], [2.0]], [[3.0], [1.5]]])
# f = (2, 4), and of the second token (2, 0), for 3 is not above 3; x_hat_0 = f_0 + 0.25, x_hat_1 = 10 f_0 +
# 100 f_1 + 0.5
PAIRS_LATENTS = [[2.0, 4.0], [2.0, 0.0]]
PAIRS_OUTPUT = [[[2.25], [420.5]], [[2.25], [20.5]]]


def several(folder, config, layers=LAYERS, **more):
    folder.mkdir(parents=True, exist_ok=True)
    for number, tensors in enumerate(layers):
        save_file(tensors | more, folder / f"params_layer_{number}.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(CONFIG | {"width": 2} | config))
    return folder


CROSSCODER = {f"hf_hook_point_{side}": "model.layers.{7,13}.output" for side in ("in", "out")} | {
    "type": "crosscoder"
}
CLT = {
    "hf_hook_point_in": "model.layers.{all}.pre_feedforward_layernorm.output",
    "hf_hook_point_out": "model.layers.{all}.post_feedforward_layernorm.output",
    "type": "clt",
}
