"""What is written, run in onnxruntime beside the formula in float64 and the coder itself."""

from __future__ import annotations

import json
import pathlib
import sys

import onnx
import pytest
import torch
from qsae_format_onnx import files

from qsae_core.artifact.composed import compose_checkpoint
from qsae_core.conformance.toy_forms import PROVENANCE, forms, vectors
from qsae_core.contracts import Checkpoint, DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.plugins.records import load_plugins

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from forms import BATCHES, BY_HAND, DENSE, assert_close, twins
from runtime import FORMAT, compute, run

every_form = pytest.mark.parametrize("form", DENSE.values(), ids=DENSE)
SKIPPING = DENSE["TopK transcoder with a skip connection"]


def kind_of(form):
    return "sae" if form.W_skip is None and form.W_enc.shape[1] == form.W_dec.shape[1] else "transcoder"


def written(form, folder):
    FORMAT.write(Checkpoint(form, kind_of(form), PROVENANCE), folder / "out")
    return folder / "out"


def test_by_hand(tmp_path):
    """As in test_plain: z = (2, 1, 2), of which the two largest stay."""
    folder = written(DenseForm(**BY_HAND, k=2, W_skip=torch.tensor([[0.0, 1.0], [100.0, 0.0]])), tmp_path)
    x = torch.tensor([[2.0, 1.0]])
    code = run(folder / "encode.onnx", x=x)
    assert {name: values.tolist() for name, values in code.items()} == {
        "top_acts": [[2.0, 2.0]],
        "top_indices": [[0, 2]],
    }
    assert run(folder / "decode.onnx", **code)["x_hat"].tolist() == [[14.0, 22.0]]
    assert run(folder / "forward.onnx", x=x)["x_hat"].tolist() == [[15.0, 222.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@every_form
def test_it_is_the_formula(form, dtype, tmp_path):
    form = form.in_dtypes(dtype)
    folder = written(form, tmp_path)
    for graph in folder.glob("*.onnx"):
        onnx.checker.check_model(graph, full_check=True)
    assert ((folder / "forward.onnx").exists()) == (form.W_skip is not None)
    x = vectors(form)
    for size in BATCHES:
        found = compute(folder, x[:size].float(), form.n_latents)
        read = x[:size].float().double().flatten(1)
        assert torch.equal(found.latents != 0, form.encode(read) != 0)
        assert_close(found.latents, form.encode(read))
        assert_close(found.x_hat, form.reconstruct(read).view(size, *x.shape[1:-1], -1))


@every_form
def test_it_is_the_coder(form, tmp_path):
    coder = compose_checkpoint(Checkpoint(form, kind_of(form)), load_plugins().registry, "a toy form")
    x = vectors(form).float()
    found = compute(written(coder.form(), tmp_path), x, form.n_latents)
    codes = coder.encode(x).to_dense()
    assert torch.equal(found.latents != 0, codes != 0)
    assert_close(found.latents, codes)
    assert_close(found.x_hat, coder(x))


def test_of_equal_latents_one_or_the_other_stays(tmp_path):
    """The coder and the runtime may each take another of two; values and reconstructions are the same."""
    form = twins()
    coder = compose_checkpoint(Checkpoint(form), load_plugins().registry, "twins")
    x = vectors(form).float()
    found = compute(written(form, tmp_path), x, form.n_latents)
    codes = coder.encode(x).to_dense()
    pairs = [latents.view(64, -1, 2) for latents in (found.latents, codes)]
    assert torch.equal(*((pair != 0).sum(2) for pair in pairs))
    assert ((found.latents != 0).sum(1) == 5).all()
    assert_close(found.latents.sort(1).values, codes.sort(1).values)
    assert_close(found.x_hat, coder(x))
    # of a pair of which one stays, the runtime takes the first
    assert (pairs[0][..., 0] >= pairs[0][..., 1]).all()


def test_fewer_than_k_positive_latents(tmp_path):
    """What is kept beside them is 0, and adds nothing."""
    form = DenseForm(**{**BY_HAND, "b_enc": torch.tensor([0.0, -5.0, -5.0])}, k=3)
    found = compute(written(form, tmp_path), torch.tensor([[2.0, 1.0], [-1.0, 0.0]]), 3)
    assert found.latents.tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert found.x_hat.tolist() == [[12.0, 20.0], [10.0, 20.0]]


# --- files


def test_large_weights_stand_beside_the_graphs_once(tmp_path, monkeypatch):
    form = SKIPPING.in_dtypes({"W_dec": torch.bfloat16})
    wanted = compute(written(form, tmp_path / "within"), vectors(form).float(), form.n_latents)
    monkeypatch.setattr(files, "IN_THE_GRAPH", 0)
    folder = written(form, tmp_path / "beside")
    assert {file.name for file in folder.iterdir()} == {
        "encode.onnx",
        "decode.onnx",
        "forward.onnx",
        "export.json",
        "weights.bin",
    }
    found = compute(folder, vectors(form).float(), form.n_latents)
    assert torch.equal(found.latents, wanted.latents)
    assert torch.equal(found.x_hat, wanted.x_hat)
    data, places = (folder / "weights.bin").read_bytes(), {}
    for graph in ("encode.onnx", "decode.onnx", "forward.onnx"):
        onnx.checker.check_model(folder / graph, full_check=True)
        for weight in onnx.load(folder / graph, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in weight.external_data}
            assert place.pop("location") == "weights.bin"
            assert places.setdefault(weight.name, place) == place
            offset, length = int(place["offset"]), int(place["length"])
            tensor = getattr(form, weight.name)
            assert data[offset : offset + length] == bytes(
                tensor.contiguous().view(torch.uint8).flatten().tolist()
            )
            assert offset % 65536 == 0
    assert places.keys() == form.tensors().keys()


@pytest.mark.slow
def test_weights_of_more_than_2_gib(tmp_path):
    """131,072 latents of width 4096 in float32: a matrix of 2**31 bytes, one more than a message can have."""
    n_latents, d_in = 131_072, 4096
    row = torch.randn(1, d_in, generator=torch.Generator().manual_seed(0)) / 64
    b_enc = torch.arange(n_latents) / n_latents
    W_dec = torch.ones(n_latents, 4).cumsum(1).bfloat16()
    form = DenseForm(row.expand(n_latents, d_in), b_enc, W_dec, torch.zeros(4), k=2)
    folder = written(form, tmp_path)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sizes["weights.bin"] > 2**31
    assert sizes["encode.onnx"] < 10_000
    x = torch.randn(2, d_in, generator=torch.Generator().manual_seed(1))
    found = run(folder / "encode.onnx", x=x)
    assert found["top_indices"].tolist() == [[n_latents - 1, n_latents - 2]] * 2
    wanted = (x.double() @ row[0].double())[:, None] + b_enc[[-1, -2]].double()
    assert_close(found["top_acts"], wanted)
    x_hat = run(folder / "decode.onnx", **found)["x_hat"]
    assert_close(x_hat, wanted.sum(1, keepdim=True) * torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_what_export_json_says(tmp_path):
    components = {"sae": {"use": "topk"}, "sparsity": {"use": "topk", "k": 5}}
    FORMAT.write(Checkpoint(SKIPPING, "transcoder", PROVENANCE, components=components), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (found["format"], found["kind"], found["activation"], found["k"]) == (
        "qsae-onnx",
        "transcoder",
        "relu",
        5,
    )
    assert (found["d_in"], found["d_out"], found["n_latents"], found["layers"]) == (8, 6, 24, 1)
    assert found["components"] == components
    assert found["vectors"] == PROVENANCE.record()
    assert found["dtypes"] == dict.fromkeys(("W_enc", "b_enc", "W_dec", "b_dec", "W_skip"), "float32")
    assert found["graphs"]["encode.onnx"] == {
        "inputs": {"x": ["batch", 8]},
        "outputs": {"top_acts": ["batch", 5], "top_indices": ["batch", 5]},
    }
    assert found["graphs"]["forward.onnx"] == {
        "inputs": {"x": ["batch", 8]},
        "outputs": {"x_hat": ["batch", 6]},
    }


def test_the_same_coder_is_written_with_the_same_bytes(tmp_path):
    first, second = (written(SKIPPING, tmp_path / name) for name in ("first", "second"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_older_runtimes_load_the_graphs(tmp_path):
    model = onnx.load(written(DENSE["gated SAE"], tmp_path) / "encode.onnx")
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


# --- what is refused


def test_it_is_written_and_not_read(tmp_path):
    folder = written(SKIPPING, tmp_path)
    assert FORMAT.recognizes(folder)
    with pytest.raises(ArtifactError, match="written for other programs, and not read"):
        FORMAT.read(folder)
    (folder / "encode.onnx").unlink()
    assert not FORMAT.recognizes(folder)


def test_cross_layer_transcoders_have_no_place(tmp_path):
    with pytest.raises(ArtifactError, match="cross-layer transcoder") as refused:
        FORMAT.write(Checkpoint(forms()["TopK cross-layer transcoder"], "transcoder"), tmp_path / "out")
    assert "circuit-tracer" in refused.value.next
    assert not (tmp_path / "out").exists()


def test_a_folder_for_each_of_several(tmp_path):
    FORMAT.write_set(
        {"3": Checkpoint(SKIPPING, "transcoder"), "9": Checkpoint(DENSE["ReLU SAE"])}, tmp_path / "out"
    )
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("encode.onnx")} == {
        "out/3/encode.onnx",
        "out/9/encode.onnx",
    }
    with pytest.raises(ArtifactError, match="no name of a folder"):
        FORMAT.write_set({"../3": Checkpoint(DENSE["ReLU SAE"])}, tmp_path / "other")
