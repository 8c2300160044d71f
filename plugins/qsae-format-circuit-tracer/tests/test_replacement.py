"""From training to attribution: what ``qsae export`` wrote replaces the MLPs of circuit-tracer's model."""

from __future__ import annotations

import pathlib
import shlex

import pytest
import qsae_data_lm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.conformance import peer

SCRIPT = pathlib.Path(__file__).parent / "replace_mlps.py"
BUILTIN = pathlib.Path(qsae_data_lm.__file__).parent / "builtin"
SMALL = (
    "--layers 0-4 --source-site mlp_in --target-site mlp_out --sparsity batchtopk --k 8 --steps 20 --name t "
    "--context 64 --buffer-tokens 4096 --batch-size 256 --statistics-tokens 1024 --eval-tokens 1024 "
    "--eval-every 0 --threads 1 --eval reconstruction --no-compare-float"
)


def qsae(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "--transcoder transcoder --per-layer --n-latents 128",
        "--transcoder cross-layer-transcoder --n-latents 640",
    ],
)
def test_circuit_tracer_sees_the_latents_that_qsae_does(kind, tmp_path):
    circuit_tracer = peer("circuit-tracer")
    qsae("train", *shlex.split(kind), *shlex.split(SMALL), "--out", tmp_path)
    run = next(tmp_path.rglob("config.json")).parent
    qsae("export", run, "--format", "circuit-tracer", "--out", tmp_path / "written")
    circuit_tracer.run(SCRIPT, tmp_path / "written", BUILTIN, tmp_path / "seen.safetensors")
    seen = load_file(tmp_path / "seen.safetensors")
    coder = qsae_core.load_set(run) if "per-layer" in kind else qsae_core.load(run)
    own_LTF = coder.encode(seen["mlp_in"].transpose(0, 1)).to_dense().unflatten(1, (5, 128)).transpose(0, 1)
    assert (seen["latents"][:, 0] == 0).all()  # of the first position circuit-tracer keeps nothing
    theirs, ours = seen["latents"][:, 1:], own_LTF[:, 1:]
    assert torch.equal(theirs != 0, ours != 0)
    assert torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4)
    # nodes: latents, an error for each layer and token, tokens, and two logits
    n_nodes = int((theirs != 0).sum()) + 5 * 6 + 6 + 2
    assert seen["edges"].shape == (n_nodes, n_nodes)
