"""delphi_coder, beside what delphi and sparsify do with it."""

from __future__ import annotations

import pathlib
import shlex
import sys
import sysconfig

import pytest
import torch
from click.testing import CliRunner
from qsae_format_onnx import delphi_coder
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.conformance import peer
from qsae_core.errors import ConfigError

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from forms import assert_close

TRAIN = (
    "train --n-latents 128 --data synthetic --preset tiny --steps 60 --batch-size 256 --eval-tokens 512 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --no-compare-float --eval reconstruction --name"
)
CODERS = {
    "packed": "--sae topk --k 4 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer rtn",
    "jumprelu": "--sae jumprelu --target-l0 4",
    "signed": "--sae topk --k 4 --activation identity",
    "skip": "--transcoder transcoder --skip --d-target 64",
    "nested": "--sae matryoshka --k 4",
}


def qsae(line):
    result = CliRunner().invoke(cli, shlex.split(line))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name -> folder of a trained coder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, more in CODERS.items():
            qsae(f"{TRAIN} {name} {more}")
    return {name: folder / "results" / name / "synthetic" / "60" for name in CODERS}


def vectors(coder, n=200):
    return 3 * torch.randn(n, coder.d_in, generator=torch.Generator().manual_seed(0))


def sae_dense_latents(x, sae):
    """As delphi 0.1.3 has it (load_sparsify.py)."""
    x_in = x.reshape(-1, x.shape[-1])
    encoded = sae.encode(x_in)
    buf = torch.zeros(x_in.shape[0], sae.num_latents, dtype=x_in.dtype, device=x_in.device)
    buf = buf.scatter_(-1, encoded.top_indices, encoded.top_acts.to(buf.dtype))
    return buf.reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("name", CODERS)
def test_dense_latents_of_delphi_are_the_code(name, runs):
    """Entries with the value 0, by which rows are filled up, overwrite nothing."""
    sae, coder = delphi_coder(runs[name]), qsae_core.load(runs[name])
    x = vectors(sae)
    codes = coder.encode(x).to_dense()
    assert torch.equal(sae_dense_latents(x.view(10, 20, -1), sae), codes.view(10, 20, -1))
    assert (codes != 0).any()
    encoded = sae.encode(x)
    assert encoded.top_indices.dtype == torch.int64
    assert all(len(set(row)) == len(row) for row in encoded.top_indices.tolist())
    assert torch.equal(sae_dense_latents(x.bfloat16(), sae), coder.encode(x.bfloat16()).to_dense().bfloat16())
    assert torch.equal(sae(x), coder(x))


@pytest.mark.parametrize(
    ("name", "k", "transcode", "skip"),
    [
        ("packed", 4, False, False),
        ("jumprelu", None, False, False),
        ("skip", 32, True, True),
        ("nested", None, False, False),
    ],
)
def test_what_delphi_asks_of_it(name, k, transcode, skip, runs):
    sae = delphi_coder(runs[name])
    assert (sae.num_latents, sae.d_in, sae.dtype, sae.device) == (128, 64, torch.float32, torch.device("cpu"))
    assert (sae.cfg.k, sae.cfg.transcode, sae.cfg.skip_connection) == (k, transcode, skip)
    assert sae.cfg.num_latents == 128
    assert sae.to("cpu") is sae
    with pytest.raises(ConfigError, match="cannot be converted to"):
        sae.to(torch.bfloat16)


def test_packed_weights_stay_packed(runs):
    """No tensor has as many bytes as a float matrix, neither before encoding nor after."""
    sae = delphi_coder(runs["packed"])
    for _ in range(2):
        assert all(matrix.is_restored for matrix in sae.coder.matrices().values())
        kept = [t for m in sae.coder.matrices().values() for t in m.pack().tensors.values()]
        assert max(tensor.nbytes for tensor in kept) <= 128 * 64 // 2
        sae.encode(vectors(sae))


@pytest.mark.parametrize("name", ["packed", "signed", "jumprelu"])
def test_pre_acts_are_the_latents_before_the_rule(name, runs):
    """By the dense form, in float64."""
    sae, form = delphi_coder(runs[name]), qsae_core.load(runs[name]).form()
    x = vectors(sae)
    read = x.double() - form.b_dec if form.subtracts_b_dec else x.double()
    z = read @ form.W_enc.double().T + form.b_enc
    wanted = {"packed": z.relu(), "signed": z, "jumprelu": form.pointwise(z)}[name]
    top_acts, top_indices, pre_acts = sae.encode(x)
    assert_close(pre_acts, wanted)
    assert_close(pre_acts.gather(1, top_indices), top_acts)


def test_pre_acts_of_several_encoders_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qsae(f"{TRAIN} several --sae residual-quantized --steps 3")
    sae = delphi_coder(tmp_path / "results/several/synthetic/3")
    x = vectors(sae)
    assert torch.equal(sae_dense_latents(x, sae), sae.coder.encode(x).to_dense())
    with pytest.raises(ConfigError, match="residual-quantized"):
        sae.encode(x).pre_acts  # noqa: B018


def test_coders_of_several_layers_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = torch.randn(400, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.save(data, "data.pt")
    qsae(
        "train --sae crosscoder --n-latents 32 --data tensors --data-path data.pt --middle layers --steps 2 "
        "--batch-size 32 --eval-every 0 --statistics-tokens 64 --threads 1 --no-compare-float "
        "--eval reconstruction --name c"
    )
    (run,) = (tmp_path / "results" / "c").rglob("checkpoints")
    with pytest.raises(ConfigError, match="reads 2 layers and writes 2"):
        delphi_coder(run.parent)


@pytest.fixture(scope="module")
def delphi():
    return peer("eai-delphi")


@pytest.mark.peer
@pytest.mark.parametrize(("name", "module"), [("packed", "layers.1"), ("skip", "layers.1.mlp")])
def test_delphi_caches_the_codes(delphi, name, module, runs, tmp_path):
    """Beside sparsify's own class, which delphi asks the same of: its dense weights, our packed ones."""
    qsae(f"export {runs[name]} --format sparsify --out {tmp_path / 'sparsify'}")
    out = tmp_path / "found.safetensors"
    arguments = [sysconfig.get_path("purelib"), runs[name], tmp_path / "sparsify", module, out]
    script = pathlib.Path(__file__).parent / "in_delphi.py"
    delphi.run(script, *arguments)
    found = load_file(out)
    codes = qsae_core.load(runs[name]).encode(found["x"]).to_dense()
    large = codes.view(6, 16, -1).abs() > 1e-5  # what delphi keeps
    assert torch.equal(found["locations"], large.nonzero())
    assert torch.equal(found["activations"], codes.view(6, 16, -1)[large])
    assert torch.equal(found["firing"], (codes > 0).sum(0))
    dense = {
        who: torch.zeros_like(codes).scatter(1, found[f"{who}.top_indices"], found[f"{who}.top_acts"])
        for who in ("own", "theirs")
    }
    assert_close(dense["own"], dense["theirs"])
    assert_close(found["own.pre_acts"], found["theirs.pre_acts"])
