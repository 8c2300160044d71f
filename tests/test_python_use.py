"""The README's piece of Python, as it stands on the page, on a coder that was trained a moment ago."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys

import pytest
import torch
from click.testing import CliRunner

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from documents import blocks

import qsae_core
from qsae_cli.main import cli

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
(PAGE,) = [b for b in blocks(README) if b.section == "Use it from Python" and b.language == "python"]
D, F, K = 24, 64, 4
SMALL = (
    f"--batch-size 64 --n-latents {F} --k {K} --statistics-tokens 256 --eval-tokens 256 --eval-every 0 "
    "--threads 1 --no-compare-float"
)


def qsae(line: str):
    result = CliRunner().invoke(cli, shlex.split(line), prog_name="qsae")
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The page's command and then its code, in one folder; the names that the code leaves behind."""
    folder = tmp_path_factory.mktemp("reader")
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2000, 6, generator=generator) @ torch.randn(6, D, generator=generator)
    torch.save(states, folder / "hidden_states.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = PAGE.mark.removeprefix("after: qsae ")
        qsae(f"{command} {SMALL}")
        names: dict[str, object] = {}
        exec(compile(PAGE.text, str(README), "exec"), names)  # the page's code is what is tested
        yield names, folder


def test_the_page_calls_everything_that_it_is_there_to_show():
    for call in (
        "qsae_core.load(",
        ".encode(",
        ".decode(",
        ".reconstruct(",
        ".reconstruct_stream(",
        ".dictionary(quantized=True)",
        ".dictionary(quantized=False)",
        ".codes_and_scales(",
    ):
        assert call in PAGE.text


def test_codes_and_reconstructions(followed):
    names, _ = followed
    dense = names["codes"].to_dense()
    assert dense.shape == (8, F)
    assert (dense != 0).sum(1).max() == K
    # x_hat = sum_j f_j w_j + b, in the data's space, in float64
    coder, atoms = names["coder"], names["atoms"].double()
    b = coder.norm_out.inverse(coder.b_dec.detach()).double()
    torch.testing.assert_close(names["x_hat"].double(), dense.double() @ atoms + b, rtol=1e-4, atol=1e-4)
    assert torch.equal(names["same"], names["x_hat"])


def test_a_stream_is_its_batches(followed):
    names, _ = followed
    x, coder = names["x"], names["coder"]
    x_hat = coder.reconstruct(x)
    fvu = ((x - x_hat).double().square().sum() / (x - x.mean(0)).double().square().sum()).item()
    assert names["fvu"] == pytest.approx(fvu, rel=1e-5)
    assert 0 < fvu < 1


def test_atoms_before_and_after_quantization(followed):
    names, _ = followed
    atoms, floats, stored = names["atoms"], names["float_atoms"], names["stored"]
    assert atoms.shape == floats.shape == (F, D)
    assert stored.codes.dtype == torch.uint8
    assert stored.points.tolist() == [-1, 0, 1]
    # a weight is its point times the scale of its row; then the rotation is undone
    weights = stored.points.double()[stored.codes.long()] * stored.scales.double()[:, None]
    norm = names["coder"].norm_out
    torch.testing.assert_close(norm.inverse_direction(weights.float()), atoms)
    # ternary atoms are near the ones that they stand for, and are not them
    cosines = torch.nn.functional.cosine_similarity(atoms, floats)
    assert 0.7 < cosines.mean() < 0.99


def test_what_qsae_runs_lists_can_be_loaded(followed):
    names, folder = followed
    (entry,) = json.loads(qsae("runs --json").stdout)
    shown = qsae("runs").output
    x, expected = names["x"][:8], names["same"]
    for place in (entry["path"], entry["artifact"]):
        assert torch.equal(qsae_core.load(folder / place).reconstruct(x), expected)
    assert entry["path"] in shown
    assert f"{entry['coders']['coder']['artifact']['bytes']:,}" in shown
