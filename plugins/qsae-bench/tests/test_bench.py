"""``qsae bench``: what it measures, on a small coder."""

import json

import pytest
import torch
from click.testing import CliRunner
from qsae_bench.inference_speed import PlainCoder, measure, sample_inputs, untrained

from qsae_cli.main import cli
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.errors import QsaeError
from qsae_core.plugins.records import load_plugins

SIZES = ["--n-latents", "512", "--width", "48", "--batch", "3"]


def bench(*arguments):
    result = CliRunner().invoke(cli, ["bench", *arguments, "--repeats", "2", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def coder_of(tree, **options):
    registry = load_plugins().registry
    options = {"screen": "int8", "arithmetic": "exact"} | options
    return untrained(resolve([Layer(tree, "test")], registry), registry, 48, **options)


@pytest.mark.parametrize("kernels", ["none", "auto"])
def test_every_operation_has_a_rate_on_both_sides(kernels):
    found = bench("--sae", "ternary", *SIZES, "--kernels", kernels)
    assert [(row["operation"], row["batch_size"]) for row in found["rows"]] == [
        ("encode", 3),
        ("decode", 3),
        ("both", 3),
    ]
    for row in found["rows"]:
        assert row["times_fp32"] == pytest.approx(row["tokens_per_second"] / row["fp32_tokens_per_second"])
    assert found["same_entries"] > 0.99
    assert found["relative_difference"] < 1e-5


def test_bytes_by_hand():
    # topk, 8-bit matrices of 512 rows of 48: without kernels a packed row is 48 bytes and a float16 scale.
    # an int8 screen reads 512 * 48 bytes for the batch, and 64 candidate rows; a decode reads 32 rows
    eight = {"use": "ste", "n_bits": 8}
    tree = {"sae": {"use": "topk", "n_latents": 512}, "quantizer": eight, "encoder_quantizer": eight}
    from qsae_core import kernels

    with kernels.torch_only():
        coder = coder_of(tree)
        rates = {rate.operation: rate for rate in measure(coder, [4], 1)["rates"]}
    assert rates["encode"].bytes_per_token == pytest.approx(512 * 48 / 4 + 64 * 50)
    assert rates["decode"].bytes_per_token == pytest.approx(32 * 50)
    assert rates["encode"].fp32_bytes_per_token == 4 * 512 * 48 / 4
    assert rates["decode"].fp32_bytes_per_token == 4 * 32 * 48


def test_the_float32_side_is_the_same_coder():
    coder = coder_of({"sae": {"use": "ternary", "n_latents": 512}}, screen="none")
    x = sample_inputs(coder, 20, seed=3)
    torch.testing.assert_close(PlainCoder(coder).reconstruct(x), coder(x), rtol=1e-4, atol=1e-4)


def test_a_coder_without_a_fixed_k_is_refused():
    with pytest.raises(QsaeError, match="fixed number of latents"):
        measure(coder_of({"sae": {"use": "vanilla", "n_latents": 64}}, screen="none"), [1], 1)
    result = CliRunner().invoke(cli, ["bench", "--sae", "vanilla", "--n-latents", "64", "--width", "16"])
    assert result.exit_code != 0


def test_a_path_and_a_choice_exclude_each_other(tmp_path):
    result = CliRunner().invoke(cli, ["bench", str(tmp_path), "--sae", "topk"])
    assert result.exit_code == 2
    assert "PATH says which coder it is" in result.output
