"""The format ``onnx``: encode.onnx, decode.onnx, forward.onnx with a skip connection, and export.json."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NoReturn

import onnx

from qsae_core import __version__
from qsae_core.contracts import Checkpoint, CheckpointFormat, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import is_file_in, json_settings
from qsae_format_onnx.files import save_graphs
from qsae_format_onnx.forms import dense_of
from qsae_format_onnx.graphs import Graph, graphs_of

EXPORT, MARK = "export.json", "qsae-onnx"
VERSION = 1
"""Of what is written: names of graphs, inputs and outputs, and keys of export.json."""


class OnnxFormat(CheckpointFormat):
    """A coder as graphs for ONNX runtimes. Written alone."""

    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether it is a folder that ``write`` wrote."""
        try:
            return is_file_in(path, "encode.onnx") and json_settings(path / EXPORT).get("format") == MARK
        except ArtifactError:
            return False

    def read(self, path: pathlib.Path) -> NoReturn:
        """Refuse."""
        raise ArtifactError(
            "graphs in this format are written for other programs, and not read",
            where=str(path),
            allowed="the stored coder from which they were exported, or a checkpoint with its weights",
            next="give that folder to the command itself; qsae export PATH --format saelens --out DIR writes "
            "one that can be imported elsewhere",
        )

    def write(self, checkpoint: Checkpoint, path: pathlib.Path) -> None:
        """The graphs and export.json, in a folder."""
        form = dense_of(checkpoint.form, str(path))
        graphs = graphs_of(form)
        path.mkdir(parents=True)
        save_graphs(graphs, path)
        text = json.dumps(_described(checkpoint, form, graphs), indent=2, allow_nan=False)
        (path / EXPORT).write_text(text + "\n", encoding="utf-8")

    def write_set(self, checkpoints: Mapping[str, Checkpoint], path: pathlib.Path) -> None:
        """A folder for each, under its name."""
        for name, checkpoint in checkpoints.items():
            if name != pathlib.PurePath(name).name or name in (".", ".."):
                raise ArtifactError(f"{name!r} is no name of a folder", where=str(path))
            self.write(checkpoint, path / name)


def _described(checkpoint: Checkpoint, form: DenseForm, graphs: Mapping[str, Graph]) -> dict[str, Any]:
    """export.json: what the graphs compute, of which vectors, and what the coder was made of."""
    d_in, d_out, layers, _ = form.widths
    return {
        "format": MARK,
        "format_version": VERSION,
        "written_by": f"qsae {__version__}",
        "kind": checkpoint.kind,
        "d_in": d_in,
        "d_out": d_out,
        "layers": layers,
        "n_latents": form.n_latents,
        "activation": form.activation,
        "k": form.k,
        "ranks_by_norm": form.ranks_by_norm,
        "subtracts_b_dec": form.subtracts_b_dec,
        "dtypes": {name: str(t.dtype).removeprefix("torch.") for name, t in form.tensors().items()},
        "graphs": {
            file: {"inputs": _shapes(graph.inputs), "outputs": _shapes(graph.outputs)}
            for file, graph in graphs.items()
        },
        "vectors": checkpoint.provenance.record(),
        "components": {slot: dict(block) for slot, block in checkpoint.components.items()},
    }


def _shapes(values: Mapping[str, onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
    """Name -> shape; the batch by its name."""
    return {
        name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for name, value in values.items()
    }
