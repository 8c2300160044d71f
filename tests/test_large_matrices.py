"""Matrices that are not held as floats as a whole: in a file, on disk, some rows at a time."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from qsae_quantizers import HalfConfig
from qsae_quantizers.half import Half
from qsae_quantizers_post_training import HqqConfig, Nf4Config, RtnConfig
from qsae_quantizers_post_training.hqq import Hqq
from qsae_quantizers_post_training.nf4 import Nf4
from qsae_quantizers_post_training.rtn import Rtn
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.coders.quantized_matrix import packed_in_blocks
from qsae_core.contracts import SparseCodes
from qsae_core.kernels.packed_rows import PackedRows
from qsae_core.reading import beside, is_mapped, let_go, on_disk, put_rows, rows_of, safetensors_in_memory
from qsae_core.runs import twin_folder

ROOT = pathlib.Path(__file__).resolve().parents[1]
WITH_LARGE = (
    "qsae_core.reading.mapped",
    "qsae_core.reading.safetensors_files",
    "qsae_core.coders.quantized_matrix",
    "qsae_core.quantization.calibrated",
)


@pytest.fixture
def all_large(monkeypatch):
    """Every matrix is a large one, and blocks of rows are small."""
    for module in WITH_LARGE:
        monkeypatch.setattr(f"{module}.LARGE", 1)
    for module in (
        "kernels.packed_rows",
        "coders.quantized_matrix",
        "coders.serving",
        "quantization.calibrated",
    ):
        monkeypatch.setattr(f"qsae_core.{module}.ROWS_AT_ONCE", 24)
    monkeypatch.setattr("qsae_core.coders.matrix_coder.ROWS_AT_ONCE", 24)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- tensors on disk, and views of files


def test_what_is_written_to_a_tensor_on_disk_stays_when_memory_is_let_go(tmp_path):
    tensor = on_disk((3, 4), tmp_path)
    assert not tensor.any()
    tensor[1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    let_go(tensor[1])
    assert tensor.tolist() == [[0] * 4, [1, 2, 3, 4], [0] * 4]
    assert not list(tmp_path.iterdir())  # its file has no name


def test_beside_a_tensor_on_disk_there_is_another_one(tmp_path):
    assert is_mapped(beside(on_disk((3, 4), tmp_path)))
    assert not is_mapped(beside(torch.zeros(3, 4)))


def test_rows_anywhere_of_a_tensor_on_disk_are_read_and_written(tmp_path):
    tensor, rows = on_disk((1500, 2), tmp_path), torch.randperm(1500)[:1100]
    put_rows(tensor, rows, torch.stack([rows, -rows], 1).float())
    assert rows_of(tensor, rows).tolist() == [[row, -row] for row in rows.tolist()]
    assert tensor.sum(1).tolist() == [0] * 1500
    assert int((tensor[:, 0] > 0).sum()) == int((rows > 0).sum())


def test_large_tensors_stay_in_their_file_where_that_is_asked_for(tmp_path, monkeypatch):
    save_file({"a": torch.arange(6.0), "b": torch.arange(5.0)}, tmp_path / "t.safetensors")
    monkeypatch.setattr("qsae_core.reading.safetensors_files.LARGE", 6)
    found = safetensors_in_memory(tmp_path / "t.safetensors", map_large=True)
    assert {name: is_mapped(tensor) for name, tensor in found.items()} == {"a": True, "b": False}
    found["a"][0] = 7.0  # a view of one's own: the file stays as it is
    let_go(found["a"])
    assert found["a"].tolist() == [0, 1, 2, 3, 4, 5]


# --- blocks of rows


@pytest.mark.parametrize("kind", ["rtn", "half"])
def test_rows_in_blocks_choose_multiply_and_measure_as_the_whole_matrix_in_float64(all_large, kind):
    from qsae_activations import ReLUConfig
    from qsae_activations.relu import ReLU
    from qsae_sparsity import TopKConfig
    from qsae_sparsity.topk import TopK

    W = drawn(100, 32)
    quantizer = Rtn(RtnConfig(n_bits=4), (100, 32)) if kind == "rtn" else Half(HalfConfig(), (100, 32))
    packed = quantizer.pack(W)
    assert PackedRows(packed, quantizer, "exact").blocks() is None  # it keeps floats, as a served one
    rows = PackedRows(packed, quantizer, "exact", keeps_floats=False)
    exact = quantizer.unpack(packed).double()
    assert rows.blocks() is not None
    x, bias, importance = drawn(7, 32, seed=1), drawn(100, seed=2), drawn(100, seed=3).abs()
    rule, activation = TopK(TopKConfig(k=5), 100), ReLU(ReLUConfig(), 100)
    pre = x.double() @ exact.T + bias.double()
    for weights in (None, importance):
        codes = qsae_core.kernels.encode(x, rows, bias, activation, rule, importance_F=weights)
        ranking = pre if weights is None else pre * weights.double()
        wanted = ranking.topk(5).indices.sort(1).values
        assert codes.indices.view(7, 5).tolist() == wanted.tolist()
        torch.testing.assert_close(codes.values.view(7, 5), pre.gather(1, wanted).relu().float())
    # sums of few rows, halves of the tokens at a time
    codes = SparseCodes.from_top_k(torch.tensor([[0, 99], [3, 4], [50, 2]]), drawn(3, 2, seed=4), 100)
    product = rows.product(codes, codes.values)
    torch.testing.assert_close(product.double(), codes.to_dense().double() @ exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("quantizer", "config"),
    [(Rtn, RtnConfig(n_bits=3)), (Nf4, Nf4Config()), (Hqq, HqqConfig()), (Half, HalfConfig())],
)
def test_a_matrix_is_packed_in_blocks_as_it_is_packed_whole(all_large, quantizer, config):
    W = drawn(70, 64)
    one = quantizer(config, (70, 64))
    whole, found = one.pack(W), packed_in_blocks(one, W)
    assert (found.shape, found.layout) == (whole.shape, whole.layout)
    assert {name: t.tolist() for name, t in found.tensors.items()} == {
        name: t.tolist() for name, t in whole.tensors.items()
    }


# --- commands


def qsae(*arguments):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def saelens_files(folder, dtype, n_latents=96, width=16, k=4):
    """A TopK SAE in SAELens' layout."""
    folder.mkdir()
    W = torch.nn.functional.normalize(drawn(n_latents, width), dim=1)
    tensors = {"W_enc": W.T.contiguous(), "b_enc": 0.1 * drawn(n_latents, seed=1), "W_dec": W}
    tensors["b_dec"] = drawn(width, seed=2)
    save_file({name: t.to(dtype) for name, t in tensors.items()}, folder / "sae_weights.safetensors")
    cfg = {"architecture": "topk", "d_in": width, "d_sae": n_latents, "k": k, "dtype": str(dtype)[6:]}
    (folder / "cfg.json").write_text(json.dumps(cfg))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def imported(request, tmp_path):
    saelens_files(tmp_path / "sae", request.param)
    qsae("import", tmp_path / "sae", "--out", tmp_path / "coder")
    np.save(tmp_path / "states.npy", drawn(512, 16, seed=5).numpy())
    return tmp_path


def quantized(folder, quantizer, name):
    four = ["--quantizer.n-bits", 4, "--encoder-quantizer", "rtn", "--encoder-quantizer.n-bits", 4]
    data = ["--data", "tensors", "--data-path", folder / "states.npy", "--tokens", 256]
    options = [*data, "--quantizer", quantizer, *four, "--name", name, "--out", folder / "results"]
    qsae("quantize", folder / "coder", *options)
    run = folder / "results" / name / "tensors" / "0"
    return load_file(run / "checkpoints/final/coder.safetensors"), json.loads(
        (run / "metrics.json").read_text()
    )


@pytest.mark.parametrize("quantizer", ["rtn", "gptq", "mixed"])
def test_a_large_coder_is_quantized_to_the_same_bits(imported, quantizer, request):
    small, before = quantized(imported, quantizer, "small")
    request.getfixturevalue("all_large")
    large, after = quantized(imported, quantizer, "large")
    assert small.keys() == large.keys()
    assert all(torch.equal(small[name], large[name]) for name in small)

    def fvu(summary):
        return summary["coders"]["coder"]["evaluations"]["reconstruction"]["fvu"]

    assert fvu(after) == pytest.approx(fvu(before), rel=1e-5)


def test_the_encoder_stays_in_the_type_of_its_file(imported):
    data = ["--data", "tensors", "--data-path", imported / "states.npy", "--out", imported / "results"]
    four = ["--quantizer", "rtn", "--quantizer.n-bits", 4, "--tokens", 256, "--no-rotate"]
    before = load_file(imported / "coder" / "coder.safetensors")
    name = next(name for name in before if name.startswith("W_enc"))
    bits = before[name].element_size() * 8

    done = CliRunner().invoke(cli, list(map(str, ["quantize", imported / "coder", *data, *four])))
    assert f"the encoder's weights stay in {bits} bits; --encoder-quantizer NAME" in done.output
    (file,) = imported.glob("results/*/tensors/0/checkpoints/final/coder.safetensors")
    after = load_file(file)
    assert after[name].dtype == before[name].dtype
    assert torch.equal(after[name], before[name])

    none = ["--encoder-quantizer", "none", "--name", "none"]  # what is chosen is taken
    qsae("quantize", imported / "coder", *data, *four, *none)
    plain = load_file(next(imported.glob("results/none/**/coder.safetensors")))
    (wide,) = (tensor for key, tensor in plain.items() if key.startswith("W_enc"))
    assert wide.dtype == torch.float32
    assert torch.equal(wide, before[name].float())
    record = imported / "results/none/tensors/0/config.json"
    again = CliRunner().invoke(cli, ["train", "--config", str(record)])
    assert "--encoder-quantizer none" in again.output + str(again.exception)


def test_a_copy_in_16_bits_is_no_quantizing(imported):
    arguments = ["quantize", imported / "coder", "--data", "tensors", "--data-path", imported / "states.npy"]
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert "no quantizer is chosen" in str(done.exception) + done.output


def test_what_was_imported_in_16_bits_is_the_float_twin_too(imported):
    quantized(imported, "rtn", "four")
    run = imported / "results" / "four" / "tensors" / "0"
    assert twin_folder(run / "checkpoints" / "final") == imported / "coder"
    data = ["--data", "tensors", "--data-path", imported / "states.npy"]
    qsae("evaluate", run, *data, "--eval", "quantization-error")
    found = json.loads((run / "evaluations/quantization-error/result.json").read_text())
    assert 0 < found["values"]["weight_nmse"] < 0.02
    again = ["quantize", run, *data, "--quantizer", "rtn", "--out", imported / "results"]
    done = CliRunner().invoke(cli, [str(argument) for argument in again])
    assert f"quantize what it was made from: {imported / 'coder'}" in done.output


def test_export_of_a_large_coder_gives_its_bytes_back(imported, all_large):
    qsae("export", imported / "coder", "--format", "saelens", "--out", imported / "back")
    name = "sae_weights.safetensors"
    assert (imported / "back" / name).read_bytes() == (imported / "sae" / name).read_bytes()


def test_a_coder_in_its_file_computes_the_same(imported, all_large):
    x = drawn(9, 16, seed=6)
    in_memory, in_file = (qsae_core.load(imported / "coder", map_large=large) for large in (False, True))
    assert torch.equal(in_memory.reconstruct(x), in_file.reconstruct(x))


def test_a_disk_without_room_is_said(imported, all_large, monkeypatch):
    def full(shape, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qsae_core.quantization.calibrated.on_disk", full)
    arguments = ["quantize", imported / "coder", "--data", "tensors", "--data-path", imported / "states.npy"]
    arguments += ["--quantizer", "rtn", "--out", imported / "results"]
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code != 0
    assert "the disk is full" in done.output + str(done.exception)


# --- memory

MEASURED = """
import resource, sys
from qsae_cli.main import cli
import torch, qsae_core.quantization.run
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cli(sys.argv[1:], standalone_mode=False)
print("peak", own, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_quantizing_a_large_file_takes_less_than_twice_its_size(tmp_path):
    # of 16 bits, beside which one float32 copy is too much already, and as small as what counts as large
    saelens_files(tmp_path / "sae", torch.bfloat16, n_latents=131_072, width=512)
    np.save(tmp_path / "states.npy", drawn(512, 512, seed=5).numpy())
    qsae("import", tmp_path / "sae", "--out", tmp_path / "coder")
    size = (tmp_path / "sae" / "sae_weights.safetensors").stat().st_size
    arguments = ["quantize", "coder", "--data", "tensors", "--data-path", "states.npy", "--tokens", "128"]
    arguments += ["--quantizer", "rtn", "--encoder-quantizer", "rtn", "--out", "results", "--name", "rtn"]
    launch = [sys.executable, "-c", LAUNCHED, sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    own, peak = (1024 * int(kib) for kib in done.stdout.split("peak")[-1].split())
    assert peak - own < 2 * size, (
        f"{peak / size:.2f} times the file, of which {own / size:.2f} are Python's own"
    )


LAUNCHED = "import os, sys; sys.exit(os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:]))"
"""A process inherits the peak of the one that starts it: a small one does."""
