"""A dense form as ONNX graphs, node by node.

    encode.onnx     x [B, D] -> latents [B, F], or top_acts and top_indices [B, K] where the form has k
    decode.onnx     what encode.onnx gives -> x_hat [B, E]
    forward.onnx    x -> x_hat with W_skip x; only where there is a skip connection

x and x_hat of a crosscoder are [B, L, D / L] and [B, L, E / L]. All sums are float32. Shapes: B tokens, L
layers, D width of the input, E width of the output, F latents, K latents a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from qsae_core.contracts import DenseForm
from qsae_format_onnx.forms import norms_of

OPSET, IR_VERSION = 17, 8
"""Of 2022: they have every operator that is used, and older runtimes load them too."""
BATCH = "batch"
"""Name of the dimension that may have any size."""


@dataclass
class Graph:
    """Nodes in the order in which they are computed, and the weights that they read."""

    inputs: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    outputs: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> str:
        """Add an input ``[B, *shape]``."""
        self.inputs[name] = helper.make_tensor_value_info(name, kind, [BATCH, *shape])
        return name

    def give(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> None:
        """Make a value ``[B, *shape]`` that there is an output."""
        self.outputs[name] = helper.make_tensor_value_info(name, kind, [BATCH, *shape])

    def node(self, operator: str, *read: str, gives: str, **attributes: Any) -> str:
        """Add a node of one output, which is named as that."""
        self.nodes.append(helper.make_node(operator, read, [gives], name=gives, **attributes))
        return gives

    def stored(self, name: str, tensor: Tensor) -> str:
        """Name of a weight in the type in which it is kept."""
        self.weights[name] = tensor
        return name

    def weight(self, name: str, tensor: Tensor) -> str:
        """Name of a weight in float32."""
        known = name in self.weights
        self.stored(name, tensor)
        if tensor.dtype == torch.float32:
            return name
        return f"{name}_float32" if known else self.float32(name, gives=f"{name}_float32")

    def float32(self, name: str, *, gives: str) -> str:
        """Name of a value in float32."""
        return self.node("Cast", name, gives=gives, to=TensorProto.FLOAT)

    def numbers(self, name: str, *values: int) -> str:
        """Name of int64 constants, which stand in the graph itself."""
        tensor = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        return self.node("Constant", gives=name, value=tensor)


def graphs_of(form: DenseForm) -> dict[str, Graph]:
    """File name -> graph."""
    found = {"encode.onnx": _encoding(form), "decode.onnx": _decoding(form)}
    return found if form.W_skip is None else {**found, "forward.onnx": _all(form)}


def _encoding(form: DenseForm) -> Graph:
    graph = Graph()
    for name, kind in zip(_encode(graph, form, _read(graph, form)), _kinds(form), strict=True):
        graph.give(name, [form.k or form.n_latents], kind)
    return graph


def _decoding(form: DenseForm) -> Graph:
    graph, names = Graph(), ["latents"] if form.k is None else ["top_acts", "top_indices"]
    for name, kind in zip(names, _kinds(form), strict=True):
        graph.take(name, [form.k or form.n_latents], kind)
    _write(graph, form, _decode(graph, form, *names))
    return graph


def _all(form: DenseForm) -> Graph:
    assert form.W_skip is not None
    graph = Graph()
    x = _read(graph, form)
    decoded = _decode(graph, form, *_encode(graph, form, x))
    skip = graph.weight("W_skip", form.W_skip)
    _write(graph, form, graph.node("Gemm", x, skip, decoded, gives="with_skip", transB=1))
    return graph


def _kinds(form: DenseForm) -> list[int]:
    """Types of what stands between encoder and decoder."""
    return [TensorProto.FLOAT] if form.k is None else [TensorProto.FLOAT, TensorProto.INT64]


def _read(graph: Graph, form: DenseForm) -> str:
    """``[B, D]``: the input, its layers one after another."""
    width, _, layers, _ = form.widths
    x = graph.take("x", [width] if layers == 1 else [layers, width])
    return x if layers == 1 else graph.node("Flatten", x, gives="x_flat", axis=1)


def _write(graph: Graph, form: DenseForm, name: str) -> None:
    """Make ``[B, E]`` the output, divided into layers again."""
    _, width, _, layers = form.widths
    if layers == 1:
        graph.node("Identity", name, gives="x_hat")
    else:
        shape = graph.numbers("shape", 0, layers, width)  # 0: as many as there are
        graph.node("Reshape", name, shape, gives="x_hat")
    graph.give("x_hat", [width] if layers == 1 else [layers, width])


def _encode(graph: Graph, form: DenseForm, x: str) -> list[str]:
    """The latents, or the k largest and their numbers."""
    if form.subtracts_b_dec:
        x = graph.node("Sub", x, graph.weight("b_dec", form.b_dec), gives="x_centred")
    W_enc, b_enc = graph.weight("W_enc", form.W_enc), graph.weight("b_enc", form.b_enc)
    pre_acts = graph.node("Gemm", x, W_enc, b_enc, gives="pre_acts", transB=1)
    latents = _activate(graph, form, pre_acts)
    if form.k is None:
        return [graph.node("Identity", latents, gives="latents")]
    norms = norms_of(form)
    ranking = latents
    if norms is not None:
        ranking = graph.node("Mul", latents, graph.weight("W_dec_norms", norms), gives="ranking")
    largest = ["top_acts" if norms is None else "top_ranking", "top_indices"]
    graph.nodes.append(
        helper.make_node("TopK", [ranking, graph.numbers("k", form.k)], largest, "TopK", axis=1)
    )
    if norms is not None:
        graph.node("GatherElements", latents, "top_indices", gives="top_acts", axis=1)
    return ["top_acts", "top_indices"]


def _activate(graph: Graph, form: DenseForm, z: str) -> str:
    """``form.pointwise``."""
    point = form.pointwise
    if point.function == "identity":
        return z
    if point.function == "relu":
        return graph.node("Relu", z, gives="acts")
    if point.function == "jumprelu":
        assert point.threshold is not None
        above = graph.node("Greater", z, graph.weight("threshold", point.threshold), gives="above")
        return graph.node("Mul", z, graph.float32(above, gives="gate"), gives="acts")
    assert point.r_mag is not None
    assert point.b_mag is not None
    assert point.b_gate is not None
    gain = graph.node("Exp", graph.weight("r_mag", point.r_mag), gives="gain")
    ungated = graph.node("Sub", z, graph.weight("b_enc", point.b_gate), gives="without_b_gate")
    grown = graph.node("Mul", ungated, gain, gives="grown")
    magnitude = graph.node("Add", grown, graph.weight("b_mag", point.b_mag), gives="magnitude")
    positive = graph.node("Relu", magnitude, gives="positive_magnitude")
    zero = graph.float32(graph.numbers("zero", 0), gives="zero_float32")
    above = graph.node("Greater", z, zero, gives="above")
    return graph.node("Mul", positive, graph.float32(above, gives="gate"), gives="acts")


def _decode(graph: Graph, form: DenseForm, *code: str) -> str:
    """``[B, E]``: of the k largest, from their rows alone."""
    b_dec = graph.weight("b_dec", form.b_dec)
    if form.k is None:
        return graph.node("Gemm", *code, graph.weight("W_dec", form.W_dec), b_dec, gives="decoded")
    top_acts, top_indices = code
    rows = graph.node("Gather", graph.stored("W_dec", form.W_dec), top_indices, gives="rows", axis=0)
    if form.W_dec.dtype != torch.float32:
        rows = graph.float32(rows, gives="rows_float32")
    acts = graph.node("Unsqueeze", top_acts, graph.numbers("before_last", 1), gives="acts_of_rows")
    summed = graph.node("MatMul", acts, rows, gives="sum_of_rows")
    flat = graph.node("Squeeze", summed, "before_last", gives="sum")
    return graph.node("Add", flat, b_dec, gives="decoded")
