"""Sizes that hang on the data: latents as a multiple of the width, groups and active latents as shares."""

from __future__ import annotations

import json
import pathlib

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from qsae_sparsity import BatchTopKConfig, TopKConfig

import qsae_core
from qsae_cli.main import cli
from qsae_core import CoderConfig, NestedConfig
from qsae_core.coder_options import AuxKConfig
from qsae_core.config.layers import Layer, parse_yaml
from qsae_core.config.run import RunConfig, TrainConfig, resolve
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts import CoderShape
from qsae_core.errors import ConfigError
from qsae_core.plugins.records import load_plugins
from qsae_core.runs import compose_coder

REGISTRY = load_plugins().registry
RECIPE = """
sae: {use: matryoshka, expansion: 16, group_ratio: [1, 2, 4, 9]}
sparsity: {k_share: 0.005}
data: {use: synthetic, preset: tiny}
"""


def resolved(*texts: str, **flags: dict[str, object]) -> RunConfig:
    layers = [Layer(parse_yaml(text, f"{n}.yaml"), f"{n}.yaml") for n, text in enumerate(texts)]
    return resolve([*layers, Layer(flags, style="flags")], REGISTRY)


def sizes(config: RunConfig) -> tuple[int, tuple[int, ...] | None, int]:
    coder = config.coder.options
    assert isinstance(coder, CoderConfig)
    return coder.n_latents, coder.prefixes(), config.components["sparsity"].options.k


def test_sizes_follow_the_width_of_the_data():
    """16 * 1152 = 18432 latents in groups of 1/16, 2/16, 4/16 and 9/16; 0.005 * 18432 = 92.16 of them."""
    settled = resolved(RECIPE).for_width(1152)
    assert sizes(settled) == (18432, (1152, 3456, 8064, 18432), 92)
    assert sizes(resolved(RECIPE).for_width(64)) == (1024, (64, 192, 448, 1024), 5)
    assert settled.for_width(64) == settled  # what is settled stays so
    assert RunConfig.from_dict(json.loads(json.dumps(settled.to_dict())), REGISTRY) == settled


def test_what_is_not_settled_is_written_as_it_was_given():
    """As ``qsae train --dry-run`` prints it: no number of latents stands beside the expansion."""
    config = resolved(RECIPE)
    written = config.to_dict()
    assert "n_latents" not in written["sae"]
    assert "k" not in written["sparsity"]
    assert (written["sae"]["expansion"], written["sparsity"]["k_share"]) == (16, 0.005)
    assert RunConfig.from_dict(json.loads(json.dumps(written)), REGISTRY) == config


def test_a_later_layer_gives_a_size_in_either_way():
    by_number = resolved(RECIPE, sae={"n_latents": 512}, sparsity={"k": 3})
    assert sizes(by_number.for_width(64)) == sizes(by_number) == (512, (32, 96, 224, 512), 3)
    again = resolved(RECIPE, "sae: {n_latents: 512}", sae={"expansion": 2})
    assert sizes(again.for_width(64))[0] == 128
    by_groups = resolved(RECIPE, "sae: {n_latents: 96, group_sizes: [32, 64]}")
    assert sizes(by_groups.for_width(64))[:2] == (96, (32, 96))
    length = resolved(RECIPE, "train: {tokens: 100}", train={"steps": 7}).train
    assert (length.steps, length.tokens) == (7, None)
    back = resolved(RECIPE, "train: {steps: 7}", train={"tokens": 4096}).train
    assert (back.steps, back.tokens) == (None, 4096)


@pytest.mark.parametrize(
    ("text", "pair", "place"),
    [
        ("sae: {use: topk, n_latents: 64, expansion: 2}", "n_latents and expansion", "0.yaml: sae.expansion"),
        (
            "sae: {use: matryoshka, group_sizes: [4096], group_ratio: [1]}",
            "group_sizes and group_ratio",
            "sae",
        ),
        ("sae: topk\nsparsity: {use: topk, k: 4, k_share: 0.1}", "k and k_share", "0.yaml: sparsity.k_share"),
        ("sae: topk\ntrain: {tokens: 4, steps: 1}", "tokens and steps", "0.yaml: train.tokens"),
    ],
)
def test_both_ways_at_once_are_refused(text, pair, place):
    with pytest.raises(ConfigError, match=f"{pair} cannot be given together") as caught:
        resolved(text)
    assert place in str(caught.value.where)
    assert caught.value.next == "leave one of them out"


def test_a_size_that_does_not_fit_is_refused_with_the_place_that_gave_it():
    with pytest.raises(ConfigError, match=r"n_latents \(9\) does not divide into 8 groups") as caught:
        resolved("sae: {use: matryoshka, expansion: 3}").for_width(3)
    assert caught.value.where == "0.yaml: sae.expansion"
    with pytest.raises(ConfigError, match=r"k \(32\) exceeds n_latents \(6\)"):
        resolved("sae: {use: topk, expansion: 2}").for_width(3)
    for use, fault in (
        ("quantized-matryoshka", "4 levels need 8 latents"),
        ("residual-quantized", "4 levels need"),
    ):
        config = resolved(f"sae: {{use: {use}, expansion: 1}}\nsparsity: {{k: 1}}")
        assert config.for_width(64).coder.options.n_latents == 64
        with pytest.raises(ConfigError, match=fault):
            config.for_width(3)
    with pytest.raises(ConfigError, match=r"does not divide into groups of 1:2:4:9"):
        resolved("sae: {use: matryoshka, n_latents: 40, group_ratio: [1, 2, 4, 9]}")


def test_levels_of_a_ratio_keep_their_sizes():
    config = NestedConfig(n_latents=64, group_ratio=(1, 2, 1))
    assert config.prefixes() == (16, 48, 64)
    assert config.first_groups(2).prefixes() == (16, 48)
    assert config.first_groups(2).group_ratio is None


def test_a_share_is_a_number_of_at_least_one():
    assert TopKConfig(k_share=0.005).for_latents(18432).k == 92
    assert BatchTopKConfig(k_share=0.005).for_latents(32) == BatchTopKConfig(k=1)
    assert TopKConfig(k=7).for_latents(18432).k == 7
    with pytest.raises(ValidationError):
        TopKConfig(k_share=1.5)


def test_options_in_python_exclude_each_other_where_both_are_given():
    with pytest.raises(ValidationError, match="n_latents and expansion cannot be given together"):
        AuxKConfig(n_latents=4096, expansion=2)
    assert AuxKConfig(n_latents=64, expansion=None).n_latents == 64
    with pytest.raises(ValidationError, match="tokens and steps cannot be given together"):
        TrainConfig(tokens=500_000, steps=3)


def test_a_default_of_the_other_way_does_not_count_where_one_is_given():
    """A transcoder has 16 latents a dimension, one in 200 of them active, unless a number is given."""
    usual = "transcoder: matryoshka-transcoder\ndata: {use: synthetic, preset: tiny}"
    assert sizes(resolved(usual).for_width(1152)) == (18432, (1152, 3456, 8064, 18432), 92)
    given = resolved(usual, transcoder={"n_latents": 64}, sparsity={"k": 4})
    assert sizes(given) == sizes(given.for_width(1152)) == (64, (4, 12, 28, 64), 4)


def test_what_describe_prints_can_be_pasted():
    done = CliRunner().invoke(cli, ["describe", "transcoder", "matryoshka-transcoder"], prog_name="qsae")
    block = done.output.partition("In a configuration file:")[2].partition("\n\nParts")[0]
    assert "expansion: 16" in block
    assert "n_latents" not in block
    assert sizes(resolved(block).for_width(64))[0] == 1024


def test_a_coder_is_composed_for_the_width_and_not_made_without():
    config = resolved("sae: {use: topk, expansion: 1.5}\nsparsity: {k_share: 0.25}")
    coder = compose_coder(config, REGISTRY, CoderShape(8, 8))
    assert (coder.n_latents, coder.sparsity.fixed_k) == (12, 3)
    with pytest.raises(ConfigError, match=r"1.5 times the width has not been settled") as caught:
        type(coder)(config.coder.options, CoderShape(8, 8), plain_parts(k=4))
    assert caught.value.next == "config.for_width(shape.d_in) does"


def test_a_run_records_the_sizes_it_had_and_repeats_from_them(tmp_path: pathlib.Path):
    """From a recipe; the record's sizes are numbers, and a flag still changes them."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    short = ["--steps", "2", "--batch-size", "64", "--set", "train.eval_tokens=256", "--out", str(tmp_path)]

    def train(config: pathlib.Path, name: str, *more: str) -> dict:
        arguments = ["train", "--config", str(config), *short, "--name", name, *more]
        done = CliRunner().invoke(cli, arguments, prog_name="qsae")
        assert done.exit_code == 0, done.output
        (record,) = tmp_path.glob(f"{name}/*/2/config.json")
        return {"path": record, **json.loads(record.read_text())}

    first = train(recipe, "first")
    assert (first["sae"]["n_latents"], first["sae"]["expansion"]) == (1024, None)
    assert (first["sparsity"]["k"], first["sparsity"]["k_share"]) == (5, None)
    assert qsae_core.load(first["path"].parent).n_latents == 1024
    again = train(first["path"], "again")
    assert again["sae"] == first["sae"]
    other = train(first["path"], "other", "--expansion", "4", "--k-share", "0.01")
    assert (other["sae"]["n_latents"], other["sparsity"]["k"]) == (256, 3)
    assert qsae_core.load(other["path"].parent).levels == 4


def test_a_sweep_knows_its_finished_runs_again(tmp_path: pathlib.Path):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"base: {{sae: topk, sparsity: {{k_share: 0.05}}, data: {{use: synthetic, preset: tiny}}}}\n"
        "config: {train: {steps: 2, batch_size: 64, eval_tokens: 256}, run: {compare_float: false}}\n"
        f"grid: {{sae.expansion: [2, 4]}}\nout: {tmp_path / 'out'}\n"
    )
    for _ in range(2):
        done = CliRunner().invoke(cli, ["compare", "--sweep", str(sweep)], prog_name="qsae")
        assert done.exit_code == 0, done.output
    changed = sweep.read_text().replace("0.05", "0.1")
    sweep.write_text(changed)
    done = CliRunner().invoke(cli, ["compare", "--sweep", str(sweep)], prog_name="qsae")
    assert "another configuration; different: sparsity" in done.output


@pytest.mark.parametrize(
    ("coder", "layers", "k"),
    [
        ("transcoder: {use: cross-layer-transcoder, n_latents: 4096}", 4, 5),
        ("transcoder: {use: cross-layer-transcoder, expansion: 64}", 4, 5),
        ("sae: {use: residual-quantized, n_latents: 4096, n_levels: 4}", 1, 5),
        ("sae: {use: quantized-matryoshka, n_latents: 4096}", 1, 20),
        ("sae: {use: topk, n_latents: 4096}", 1, 20),
    ],
)
def test_a_share_is_of_the_latents_that_a_rule_chooses_among(coder, layers, k):
    config = resolved(f"{coder}\nsparsity: {{use: batchtopk, k_share: 0.005}}").for_width(64, layers)
    assert config.components["sparsity"].options.k == k
