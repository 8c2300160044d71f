"""Beside sparsify itself: what it writes is read, and what is written is what it computes."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys

import pytest
import torch
from qsae_format_sparsify import SparsifyConfig
from qsae_format_sparsify.checkpoint_format import SparsifyFormat
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_core.conformance import Computed, check_golden, expect_computes, peer
from qsae_core.conformance.toy_forms import forms, provenance, vectors
from qsae_core.contracts import Checkpoint, Provenance
from qsae_core.errors import QsaeError

HERE = pathlib.Path(__file__).parent
QSAE = pathlib.Path(sys.executable).with_name("qsae")
FORMAT = SparsifyFormat(SparsifyConfig())
pytestmark = pytest.mark.peer
TRAIN = (
    "train --n-latents 64 --k 4 --data synthetic --preset tiny --steps 60 --batch-size 256 --eval-tokens 512 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --no-compare-float --name a"
)


def run(script, *arguments):
    peer("eai-sparsify").run(HERE / script, *arguments)


def computed(tmp_path, x, folders):
    """What the library computes with each folder."""
    save_file({"x": x}, tmp_path / "x.safetensors")
    run("compute_with_peer.py", tmp_path / "x.safetensors", *folders)
    return [load_file(folder.with_name(f"{folder.name}.computed.safetensors")) for folder in folders]


def qsae(line):
    done = subprocess.run([QSAE, *shlex.split(line)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_files_of_the_library_with_other_weights(tmp_path, seed):
    run("write_golden.py", tmp_path / "golden", "--seed", str(seed))
    cases = sorted(path.name for path in (tmp_path / "golden").iterdir())
    assert cases == sorted(path.name for path in (HERE / "golden").iterdir())
    for case in cases:
        if not case.startswith("refused"):
            writes = case != "skip-before-transcode"
            check_golden(tmp_path / "golden" / case, "sparsify", writes=writes)


def kind_of(form):
    return "sae" if form.tensors().keys().isdisjoint({"W_skip"}) else "transcoder"


def test_the_library_reads_every_form_that_is_written(tmp_path):
    toys = {name: (kind_of(form), form) for name, form in forms().items()}
    toys["TopK SAE as a transcoder"] = ("transcoder", toys["TopK SAE"][1])
    written = {}
    for name, (kind, form) in toys.items():
        folder = tmp_path / name.replace(" ", "-")
        try:
            FORMAT.write(Checkpoint(form, kind, provenance(form)), folder)
        except QsaeError:
            continue
        written[folder] = form
    assert len(written) == 4  # with and without b_dec off the input; with and without a skip connection
    x = vectors(next(iter(written.values()))).float()
    for (folder, form), found in zip(written.items(), computed(tmp_path, x, written), strict=True):
        latents, outputs = form.encode(x.double()).float(), form.reconstruct(x.double()).float()
        torch.testing.assert_close(found["latents"], latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["reconstruction"], outputs, rtol=1e-4, atol=1e-4)
        coder = qsae_core.read_checkpoint(folder)
        expect_computes(coder, Computed(*(found[key] for key in Computed._fields)), folder.name)


def test_bfloat16_is_written_for_the_library_to_compute_in(tmp_path):
    form = forms()["TopK SAE that subtracts b_dec"].in_dtypes(torch.bfloat16)
    FORMAT.write(Checkpoint(form), tmp_path / "out")
    x = vectors(form)
    (found,) = computed(tmp_path, x.float(), [tmp_path / "out"])
    assert found["latents"].dtype == torch.bfloat16
    latents = form.encode(x.bfloat16().double())
    same = ((found["latents"] != 0) == (latents != 0)).all(1)
    assert same.double().mean() > 0.8  # its own sums, of 8 bits, decide which are the largest
    torch.testing.assert_close(found["latents"].double()[same], latents[same], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "more",
    [
        "--sae topk",
        "--sae topk --quantizer ste --quantizer.n-bits 4",
        "--transcoder transcoder --skip --d-target 64",
    ],
)
def test_the_library_reads_what_was_trained_here(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    qsae(f"{TRAIN} {more}")
    qsae("export results/a/synthetic/60 --format sparsify --out out")
    coder = qsae_core.load("results/a/synthetic/60")
    x = 3 * torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    (found,) = computed(tmp_path, x, [tmp_path / "out"])
    assert (found["latents"] > 0).any()
    for one in (coder, qsae_core.read_checkpoint(tmp_path / "out")):
        expect_computes(one, Computed(*(found[key] for key in Computed._fields)), more)


def test_the_library_reads_a_coder_of_each_layer(tmp_path):
    form = forms()["TopK SAE that subtracts b_dec"]
    places = [f"{layer}.resid_post" for layer in (2, 10)]
    model = "HuggingFaceTB/SmolLM2-135M"
    coders = {
        place.partition(".")[0]: Checkpoint(
            form, provenance=Provenance(model, (place,), (place,), context=128)
        )
        for place in places
    }
    FORMAT.write_set(coders, tmp_path / "out")
    x = vectors(form).float()
    (found,) = computed(tmp_path, x, [tmp_path / "out"])
    assert {name.partition("/")[0] for name in found} == {"layers.2", "layers.10"}
    torch.testing.assert_close(found["layers.10/latents"], form.encode(x), rtol=1e-4, atol=1e-4)
