"""Exported graphs in onnxruntime."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import onnxruntime
import torch
from qsae_format_onnx import OnnxConfig
from qsae_format_onnx.checkpoint_format import OnnxFormat

FORMAT = OnnxFormat(OnnxConfig())


class Result(NamedTuple):
    """What the graphs give."""

    code: dict[str, torch.Tensor]
    """Outputs of encode.onnx by name."""
    latents: torch.Tensor
    """``[B, F]``."""
    x_hat: torch.Tensor


def run(graph, **inputs):
    """Name -> output of a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {
        info.name: torch.from_numpy(value) for info, value in zip(session.get_outputs(), outputs, strict=True)
    }


def compute(folder: pathlib.Path, x, n_latents) -> Result:
    """Encode and decode, and forward where there is a graph for it."""
    code = run(folder / "encode.onnx", x=x)
    x_hat = run(folder / "decode.onnx", **code)["x_hat"]
    if "latents" in code:
        latents = code["latents"]
    else:
        latents = torch.zeros(len(x), n_latents).scatter(1, code["top_indices"], code["top_acts"])
    if (folder / "forward.onnx").exists():
        x_hat = run(folder / "forward.onnx", x=x)["x_hat"]
    return Result(code, latents, x_hat)
