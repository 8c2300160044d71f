"""Sweep files: what they ask for, what is wrong with them, and what is there already."""

from __future__ import annotations

import json
import pathlib

import pytest
from qsae_compare.sweep import read_sweep

from qsae_cli.options.choice_options import Scope, set_layer
from qsae_core.errors import ConfigError, QsaeError, TrainingError
from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import write_json

SWEEP = """
base:
  sae: {use: topk, n_latents: 32}
  sparsity: {use: topk, k: 4}
  data: {use: synthetic, preset: tiny}
config:
  train: {steps: 3, batch_size: 64}
grid:
  sae.n_latents: [32, 64]
variants:
  float: {quantizer: none}
  4bit: {quantizer: {use: ste, n_bits: 4}}
seeds: [0, 7]
out: OUT
"""


@pytest.fixture
def sweep(tmp_path):
    def read(text=SWEEP, **options):
        file = tmp_path / "sweep.yaml"
        file.write_text(text.replace("OUT", str(tmp_path / "out")))
        return read_sweep(file, load_plugins().registry, **options)

    return read


def test_every_combination_with_every_seed(sweep):
    plan = sweep()
    assert [p.name for p in plan] == [
        f"{variant}-n_latents-{n}-seed{seed}"
        for variant in ("float", "4bit")
        for n in (32, 64)
        for seed in (0, 7)
    ]
    last = plan[-1].config
    assert last.coder.options.n_latents == 64
    assert last.components["quantizer"].options.n_bits == 4
    assert (last.run.seed, last.run.name) == (7, "4bit-n_latents-64-seed7")
    assert last.run.out.endswith("out")
    assert {p.state for p in plan} == {"new"}


def test_grid_or_variants_alone_and_a_base_in_a_file(sweep, tmp_path):
    (tmp_path / "mine.yaml").write_text("sae: {use: topk, n_latents: 32}\ndata: {use: synthetic}\n")
    plan = sweep("base: mine.yaml\ngrid: {sparsity.k: [2, 4], train.lr: [1e-3, auto]}\n")
    assert [p.name for p in plan] == [
        "k-2-lr-0.001-seed0",
        "k-2-lr-auto-seed0",
        "k-4-lr-0.001-seed0",
        "k-4-lr-auto-seed0",
    ]
    assert plan[0].config.components["sparsity"].options.k == 2
    assert plan[0].config.run.out == str(pathlib.Path("results") / "sweep")
    (only,) = sweep("base: mine.yaml\nvariants: {a: {quantizer: {use: ste, grid: ternary}}}\n")
    assert only.name == "a-seed0"


def test_changes_from_the_command_line_win(sweep, tmp_path):
    plan = sweep(changes=set_layer(["train.steps=9"], Scope()), out=tmp_path / "elsewhere")
    assert {p.config.train.n_steps for p in plan} == {9}
    assert {p.config.run.out for p in plan} == {str(tmp_path / "elsewhere")}


@pytest.mark.parametrize("change", ["sae.n_latents=9", "run.seed=3", "run.name=x"])
def test_changes_that_would_make_names_lie_are_refused(sweep, change):
    with pytest.raises(ConfigError, match=f"--set {change.partition('=')[0]}"):
        sweep(changes=set_layer([change], Scope()))


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("grid:", "gird:", "sweep.yaml", "a sweep has no 'gird'; did you mean 'grid'?"),
        (
            "sae.n_latents: [32, 64]",
            "sae.n_latent: [32]",
            "sweep.yaml: grid: sae.n_latent",
            "no option 'n_latent'",
        ),
        ("[32, 64]", "[32, many]", "sweep.yaml: grid: sae.n_latents", "valid integer"),
        ("[32, 64]", "[32, -1]", "sweep.yaml: grid: sae.n_latents", "greater than 0"),
        ("[32, 64]", "32", "sweep.yaml: grid.sae.n_latents", "a list of values"),
        ("sae.n_latents:", "soe.n_latents:", "sweep.yaml: grid", "unknown section 'soe'"),
        ("n_bits: 4", "n_bits: 40", "sweep.yaml: variants.4bit: quantizer.n_bits", "less than or equal"),
        ("use: ste", "use: stee", "sweep.yaml: variants.4bit: quantizer", "did you mean 'ste'"),
        ("steps: 3", "stepz: 3", "sweep.yaml: config: train.stepz", "no option 'stepz'"),
        ("use: topk, n_latents", "use: tupk, n_latents", "sweep.yaml: base: sae", "did you mean 'topk'"),
        ("seeds: [0, 7]", "seeds: [0, 0]", "sweep.yaml: seeds", "different seeds"),
        ("seeds: [0, 7]", "seeds: 3", "sweep.yaml: seeds", "a list of different seeds"),
        ("seeds: [0, 7]", "seeds: [-1]", "sweep.yaml: seeds: run.seed", "greater than or equal to 0"),
        ("config:", "config:\n  run: {name: x}", "sweep.yaml: config: run.name", "gives every run its own"),
        (
            "{quantizer: none}",
            "{quantizer: none, sae: {n_latents: 7}}",
            "sweep.yaml: variants.float: sae.n_latents",
            "the grid varies this",
        ),
        ("float:", "4Bit:", "sweep.yaml", "two runs would be called '4bit-n_latents-32-seed0'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(sweep, old, new, place, message):
    assert SWEEP.count(old) == 1
    with pytest.raises(QsaeError) as caught:
        sweep(SWEEP.replace(old, new))
    assert place in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "base: {sae: topk}", "seeds: [1]", "base: none.yaml\nseeds: [1]", "a: ["]
)
def test_what_is_no_sweep(sweep, text):
    with pytest.raises(ConfigError, match="sweep"):
        sweep(text)


QUANTIZED = """
quantized:
  rounded: {of: 4bit, encoder_quantizer: {use: rtn, n_bits: 6}, tokens: 512}
  gptq: {of: float, quantizer: {use: gptq, n_bits: 2}, finetune: encoder, finetune_steps: 5}
seeds:"""


def test_runs_that_are_quantized_after_training(sweep):
    plan = sweep(SWEEP.replace("\nseeds:", QUANTIZED))
    assert [p.name for p in plan[8:]] == [
        f"{name}-n_latents-{n}-seed{seed}"
        for name in ("rounded", "gptq")
        for n in (32, 64)
        for seed in (0, 7)
    ]
    rounded, gptq = plan[8], plan[15]
    assert (rounded.source, rounded.n_steps) == ("4bit-n_latents-32-seed0", 0)
    assert rounded.method.tokens == 512
    # only what the block chooses is quantized
    used = {slot: rounded.config.components[slot].use for slot in QUANTIZER_SLOTS}
    assert used == {"quantizer": "none", "encoder_quantizer": "rtn", "code_quantizer": "none"}
    assert (gptq.source, gptq.n_steps) == ("float-n_latents-64-seed7", 5)
    assert gptq.config.coder.options.n_latents == 64
    assert {p.name for p in plan} >= {p.source for p in plan[8:]}
    assert all(p.source is None for p in plan[:8])


def test_a_matrix_of_16_bits_stays_so_beside_the_one_that_is_quantized(sweep):
    half = "4bit: {quantizer: {use: half, dtype: float16}}"
    text = SWEEP.replace("4bit: {quantizer: {use: ste, n_bits: 4}}", half).replace("\nseeds:", QUANTIZED)
    rounded = sweep(text)[8].config.components
    assert rounded["quantizer"].to_dict() == {"use": "half", "dtype": "float16"}
    assert rounded["encoder_quantizer"].use == "rtn"


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("of: 4bit, ", "", "sweep.yaml: quantized.rounded.of", "which variant"),
        ("of: 4bit", "of: 5bit", "sweep.yaml: quantized.rounded.of", "no variant '5bit'"),
        ("tokens: 512", "tokens: 0", "sweep.yaml: quantized.rounded.tokens", "greater than 0"),
        ("tokens: 512", "token: 5", "sweep.yaml: quantized.rounded.token", "did you mean 'tokens'"),
        ("encoder_quantizer: {use: rtn, n_bits: 6}, ", "", "quantized.rounded", "no quantizer is chosen"),
        ("n_bits: 6", "n_bits: 60", "sweep.yaml: quantized.rounded: encoder_quantizer.n_bits", "less than"),
        ("finetune: encoder", "finetune: half", "sweep.yaml: quantized.gptq.finetune", "'encoder'"),
        ("finetune: encoder, ", "", "sweep.yaml: quantized.gptq.finetune_steps", "nothing is fine-tuned"),
        (
            "finetune: encoder, finetune_steps: 5",
            "lr: 1e-3",
            "sweep.yaml: quantized.gptq.lr",
            "nothing is fine-tuned",
        ),
        ("gptq: {", "float: {", "sweep.yaml", "two runs would be called 'float-n_latents-32-seed0'"),
    ],
)
def test_what_is_wrong_with_quantizing_is_told_with_its_place(sweep, old, new, place, message):
    text = SWEEP.replace("\nseeds:", QUANTIZED)
    assert QUANTIZED.count(old) == 1
    with pytest.raises(QsaeError) as caught:
        sweep(text.replace(old, new))
    assert place in str(caught.value)
    assert message in str(caught.value)


def finish(planned, **changes):
    record = json.loads(json.dumps(planned.config.to_dict())) | {"completed_at": "now"} | changes
    folder = pathlib.Path(planned.config.run.out) / planned.name / "synthetic" / "3"
    write_json(folder / "config.json", record)
    return folder


def test_what_is_there(sweep):
    plan = sweep()
    finished, unfinished = finish(plan[0]), finish(plan[1], completed_at=None)
    resumable = finish(plan[2], completed_at=None)
    write_json(resumable / "checkpoints" / "step_00000001" / "state.json", {})
    again = sweep()
    assert [p.state for p in again[:4]] == ["finished", "unfinished", "unfinished", "new"]
    assert again[0].there.path == finished
    assert again[1].there.path == unfinished
    assert (again[1].config.run.overwrite, again[1].config.run.resume) == (True, False)
    assert (again[2].config.run.overwrite, again[2].config.run.resume) == (False, True)
    # another length is another run
    assert sweep(SWEEP.replace("steps: 3", "steps: 4"))[0].state == "new"


def test_a_finished_run_of_another_configuration_is_refused(sweep):
    finish(sweep()[0])
    with pytest.raises(TrainingError, match="different: sparsity"):
        sweep(SWEEP.replace("k: 4", "k: 5"))
