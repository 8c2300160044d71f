"""Beside dictionary_learning itself: what it writes is read, and what is written is what it computes."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys

import pytest
import torch
from qsae_format_dictionary_learning import DictionaryLearningConfig
from qsae_format_dictionary_learning.checkpoint_format import DictionaryLearningFormat
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_core.conformance import Computed, check_golden, expect_computes, peer
from qsae_core.conformance.toy_forms import forms, provenance, vectors
from qsae_core.contracts import Checkpoint
from qsae_core.errors import QsaeError

HERE = pathlib.Path(__file__).parent
QSAE = pathlib.Path(sys.executable).with_name("qsae")
FORMAT = DictionaryLearningFormat(DictionaryLearningConfig())
pytestmark = pytest.mark.peer
TRAIN = (
    "train --n-latents 64 --data synthetic --preset tiny --steps 60 --batch-size 256 --eval-tokens 512 "
    "--eval-every 0 --statistics-tokens 512 --threads 1 --eval reconstruction --no-compare-float --k 4"
)


def run(script, *arguments):
    peer("dictionary-learning").run(HERE / script, *arguments)


def computed(tmp_path, x, folders):
    """What the library computes with each folder."""
    save_file({"x": x}, tmp_path / "x.safetensors")
    run("compute_with_peer.py", tmp_path / "x.safetensors", *folders)
    return [load_file(folder.with_name(f"{folder.name}.computed.safetensors")) for folder in folders]


@pytest.mark.parametrize("seed", [1, 2])
def test_files_of_the_library_with_other_weights(tmp_path, seed):
    run("write_golden.py", tmp_path / "golden", "--seed", str(seed))
    cases = sorted(path.name for path in (tmp_path / "golden").iterdir())
    assert cases == sorted(path.name for path in (HERE / "golden").iterdir())
    for case in cases:
        check_golden(tmp_path / "golden" / case, "dictionary-learning")


def test_the_library_reads_every_form_that_is_written(tmp_path):
    written = {}
    for name, form in forms().items():
        folder = tmp_path / name.replace(" ", "-")
        try:
            FORMAT.write(Checkpoint(form, provenance=provenance(form)), folder)
        except QsaeError:
            continue
        written[folder] = form
    assert len(written) == 8  # relu, topk and jumprelu, each with and without an offset; two gated ones
    x = vectors(next(iter(written.values()))).float()
    for (folder, form), found in zip(written.items(), computed(tmp_path, x, written), strict=True):
        latents, outputs = form.encode(x.double()).float(), form.reconstruct(x.double()).float()
        torch.testing.assert_close(found["latents"], latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["reconstruction"], outputs, rtol=1e-4, atol=1e-4)
        expect_computes(
            qsae_core.read_checkpoint(folder),
            Computed(*(found[key] for key in Computed._fields)),
            folder.name,
        )
        if "normalized" in found:  # as its from_pretrained reads it by default
            normalized = latents * form.W_dec.norm(dim=1)
            assert (normalized - latents).abs().max() > 0.1
            torch.testing.assert_close(found["normalized"], normalized, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "dict_class"),
    [
        ("--sae batchtopk", "BatchTopKSAE"),
        ("--sae matryoshka", "MatryoshkaBatchTopKSAE"),
        ("--sae topk --quantizer ste --quantizer.n-bits 4", "AutoEncoderTopK"),
    ],
)
def test_the_library_reads_what_was_trained_here(tmp_path, monkeypatch, more, dict_class):
    monkeypatch.chdir(tmp_path)
    for line in (
        f"{TRAIN} {more} --name a",
        "export results/a/synthetic/60 --format dictionary-learning --out out",
    ):
        done = subprocess.run([QSAE, *shlex.split(line)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert f'"dict_class": "{dict_class}"' in (tmp_path / "out" / "config.json").read_text()
    coder = qsae_core.load("results/a/synthetic/60")
    x = 3 * torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    (found,) = computed(tmp_path, x, [tmp_path / "out"])
    assert (found["latents"] > 0).any()
    for one in (coder, qsae_core.read_checkpoint(tmp_path / "out")):
        expect_computes(one, Computed(*(found[key] for key in Computed._fields)), dict_class)
