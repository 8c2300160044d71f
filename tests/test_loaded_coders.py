"""A loaded coder in a program: codes without a graph, gradients to vectors, other processes, digests."""

from __future__ import annotations

import concurrent.futures
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import qsae_core
from qsae_core.artifact.tensor_files import load_tensors, save_tensors, tensors_digest
from tests.test_training_run import configuration, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "states.npy"
    np.save(path, np.random.default_rng(1).normal(size=(4096, 20)).astype(np.float32))
    return run(configuration(path, train={"steps": 6})).path


def test_codes_of_a_loaded_coder_hang_on_no_graph(folder):
    coder = qsae_core.load(folder)
    x = torch.randn(64, 20)
    assert not any(parameter.requires_grad for parameter in coder.parameters())
    assert coder.encode(x).values.numpy().shape == (64 * 4,)
    assert coder.decode(coder.encode(x)).grad_fn is None


def test_gradients_still_reach_the_vectors(folder):
    """Where no latent changes sides a TopK coder is linear, and finite differences give the gradient."""
    coder = qsae_core.load(folder)
    x = torch.randn(1, 20, requires_grad=True)
    coder(x).sum().backward()
    direction, step = torch.randn(1, 20), 1e-3
    with torch.no_grad():
        slope = (coder(x + step * direction).sum() - coder(x - step * direction).sum()) / (2 * step)
    assert float((x.grad * direction).sum()) == pytest.approx(float(slope), rel=0.02, abs=0.02)


@pytest.mark.parametrize("screen", ["none", "int8"])
def test_what_inference_mode_has_left_behind_serves_outside_of_it(folder, screen):
    """In a thread of its own, whose buffers are made there."""
    coder, x = qsae_core.load(folder, screen=screen, kernels="none"), torch.randn(64, 20)
    wanted = qsae_core.load(folder, screen=screen, kernels="none")(x)

    def used():
        with torch.inference_mode():
            first = coder(x)
        read = x.clone().requires_grad_()
        last = coder(read)
        last.sum().backward()
        return first, last, read.grad

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first, last, gradient = pool.submit(used).result()
    assert torch.equal(first, wanted)
    assert torch.equal(last, wanted)
    assert gradient.any()


OTHER_PROCESS = """
import pickle, sys
coder, x = pickle.load(sys.stdin.buffer)
pickle.dump(coder.encode(x).to_dense(), sys.stdout.buffer)
"""


def test_another_process_can_be_given_a_loaded_coder(folder):
    coder = qsae_core.load(folder, kernels="none")
    x = torch.randn(64, 20)
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], input=pickle.dumps((coder, x)), capture_output=True, check=True
    )
    assert torch.equal(pickle.loads(done.stdout), coder.encode(x).to_dense())


def test_a_digest_hangs_on_values_and_not_on_strides(tmp_path):
    """One row of a matrix, or one entry out of several, is contiguous with whatever stride."""
    for odd in (torch.arange(4.0)[::4], torch.arange(6.0).reshape(2, 3)[:1, ::3], torch.tensor(2.0)):
        assert odd.is_contiguous()
        assert tensors_digest({"a": odd}) == tensors_digest({"a": torch.tensor(odd.tolist())})
        save_tensors(tmp_path / "x.safetensors", {"a": odd})
        assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], odd)
    assert tensors_digest({"a": torch.zeros(2)}) != tensors_digest({"a": torch.ones(2)})
