"""Graphs as files: weights in the graph's own file, or beside it where they are too large for one message."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import torch
from onnx import StringStringEntryProto, TensorProto, helper
from torch import Tensor

from qsae_core import __version__
from qsae_format_onnx.forms import ROWS_AT_ONCE
from qsae_format_onnx.graphs import IR_VERSION, OPSET, Graph

WEIGHTS = "weights.bin"
"""Of all graphs of a folder."""
IN_THE_GRAPH = 2**30
"""Bytes of weights of a folder that stand in the graphs' own files. A message of protobuf ends at 2 GiB, and
whoever reads one needs its weights twice; a file beside it is mapped."""
ALIGNED = 2**16
"""Bytes of which an offset is a multiple, so that every system can map the weights from there."""
TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}


def save_graphs(graphs: Mapping[str, Graph], folder: pathlib.Path) -> None:
    """Write each graph under its name, and ``weights.bin`` with every weight once, where they are large.

    Graphs have the same weight under the same name. What is written is a few rows at a time in memory, unless
    weights stand in the graphs.
    """
    weights = {name: tensor for graph in graphs.values() for name, tensor in graph.weights.items()}
    beside = sum(tensor.nbytes for tensor in weights.values()) > IN_THE_GRAPH
    protos = _beside(weights, folder) if beside else {name: _within(name, t) for name, t in weights.items()}
    for file, graph in graphs.items():
        own = [protos[name] for name in graph.weights]
        made = helper.make_graph(
            graph.nodes,
            file.partition(".")[0],
            list(graph.inputs.values()),
            list(graph.outputs.values()),
            own,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name, model.producer_version = "qsae", __version__
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))


def _within(name: str, tensor: Tensor) -> TensorProto:
    proto = TensorProto(name=name, data_type=TYPES[tensor.dtype], dims=tensor.shape)
    proto.raw_data = b"".join(_bytes(tensor))
    return proto


def _beside(weights: Mapping[str, Tensor], folder: pathlib.Path) -> dict[str, TensorProto]:
    with (folder / WEIGHTS).open("wb") as file:
        return {name: _appended(file, name, tensor) for name, tensor in weights.items()}


def _appended(file: BinaryIO, name: str, tensor: Tensor) -> TensorProto:
    """A weight at the end of a file, and where it is there."""
    offset = -(-file.tell() // ALIGNED) * ALIGNED
    file.seek(offset)
    for part in _bytes(tensor):
        file.write(part)
    place = {"location": WEIGHTS, "offset": offset, "length": tensor.nbytes}
    return TensorProto(
        name=name,
        data_type=TYPES[tensor.dtype],
        dims=tensor.shape,
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()],
    )


def _bytes(tensor: Tensor) -> Iterator[bytes]:
    """The values in the order of rows, little-endian as ONNX has them, a few rows at a time."""
    for rows in tensor.split(ROWS_AT_ONCE):
        yield rows.contiguous().view(torch.uint8).numpy().tobytes()
