"""RunConfig: what wins over what, what is refused and where, and that a record gives the run back."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsae_core import CoderConfig, ComponentConfig, ComponentSpec, option
from qsae_core.config.errors import checked_options
from qsae_core.config.layers import Layer, parse_yaml, read_layer
from qsae_core.config.run import RunConfig, TrainConfig, resolve
from qsae_core.config.settings import QuantizeConfig
from qsae_core.errors import ConfigError, PluginError
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import Provider, Registry


class TopKConfig(ComponentConfig):
    """Keep k."""

    k: int = option(32, "active latents", aliases=("top-k",), gt=0)


class BatchTopKConfig(ComponentConfig):
    """Keep k on average."""

    k: int = option(32, "active latents on average", gt=0)
    decay: float = option(0.9, "of the threshold", ge=0, lt=1)


class GridConfig(ComponentConfig):
    """A quantizer."""

    grid: Literal["binary", "ternary"] = option("ternary", "values")
    bits: list[int] = option([2], "widths")


class NoConfig(ComponentConfig):
    """No options."""


class FileConfig(ComponentConfig):
    """A file."""

    path: str = option(description="where")


def spec(kind: str, name: str, config: type[ComponentConfig] = NoConfig, **more: Any) -> ComponentSpec:
    return ComponentSpec(kind, name, config, "nowhere:Nothing", **more)


def make_registry() -> Registry:
    registry = Registry()
    ternary = spec(
        "sae",
        "ternary",
        CoderConfig,
        default_parts={"quantizer": {"use": "ste", "grid": "binary"}, "sparsity": {"use": "topk", "k": 8}},
        refuses={("sparsity", "l1"): "its penalty moves the scales that the grid is fitted to"},
    )
    gated = spec("sae", "gated", CoderConfig, default_parts={"activation": None})
    registry.add(Provider("qsae-saes", "1.2"), [ternary, gated, spec("sae", "plain", CoderConfig)])
    registry.add(
        Provider("qsae-parts", "3.0"),
        [
            spec("transcoder", "skip", CoderConfig),
            spec("quantizer", "none"),
            spec("quantizer", "ste", GridConfig),
            spec("code_quantizer", "none"),
            spec("activation", "relu"),
            spec("sparsity", "none"),
            spec("sparsity", "l1"),
            spec("sparsity", "topk", TopKConfig),
            spec("sparsity", "batchtopk", BatchTopKConfig),
            spec("data", "lm"),
            spec("data", "tensors", FileConfig),
            spec("metric", "reconstruction"),
            spec("metric", "sparsity", TopKConfig),
            spec("metric", "rate"),
            spec("metric", "kappa"),
            spec("evaluation", "reconstruction"),
            spec("evaluation", "loss-recovered"),
        ],
    )
    return registry


@pytest.fixture
def registry() -> Registry:
    return make_registry()


def yaml_layer(text: str) -> Layer:
    return Layer(parse_yaml(text, "my.yaml"), "my.yaml")


def flags(**tree: Any) -> Layer:
    return Layer(tree, style="flags")


# --- precedence


def test_schema_default_then_default_part_then_yaml_then_flag(registry: Registry) -> None:
    plain, ternary = yaml_layer("sae: plain\nsparsity: topk"), yaml_layer("sae: ternary")
    yaml, flag = yaml_layer("sparsity: {k: 16}"), flags(sparsity={"k": 4})
    assert resolve([plain], registry).components["sparsity"].options.k == 32
    assert resolve([ternary], registry).components["sparsity"].options.k == 8
    assert resolve([ternary, yaml], registry).components["sparsity"].options.k == 16
    assert resolve([ternary, yaml, flag], registry).components["sparsity"].options.k == 4


def test_every_slot_and_list_has_its_default(registry: Registry) -> None:
    config = resolve([yaml_layer("sae: plain")], registry)
    assert {slot: block.use for slot, block in config.components.items()} == {
        "sae": "plain",
        "quantizer": "none",
        "encoder_quantizer": "none",
        "code_quantizer": "none",
        "activation": "relu",
        "sparsity": "none",
        "data": "lm",
    }
    assert [m.use for m in config.metrics] == ["reconstruction", "sparsity", "rate", "kappa"]
    assert [e.use for e in config.evaluate] == ["reconstruction", "loss-recovered"]
    assert config.trackers == ()
    assert (config.coder_slot, config.coder.use, config.data.use) == ("sae", "plain", "lm")


def test_default_part_gives_way_with_all_its_options(registry: Registry) -> None:
    """ternary's k = 8 is about its topk; another rule has its own default."""
    config = resolve([yaml_layer("sae: ternary\nsparsity: batchtopk")], registry)
    assert config.components["sparsity"].options == BatchTopKConfig(k=32, decay=0.9)
    assert config.notes == ()


def test_a_component_named_by_the_user_starts_from_its_own_defaults(registry: Registry) -> None:
    config = resolve([yaml_layer("sae: ternary"), flags(quantizer="ste")], registry)
    assert config.components["quantizer"].options == GridConfig()


def test_options_alone_change_the_coders_default_part(registry: Registry) -> None:
    config = resolve([yaml_layer("sae: ternary\nquantizer: {bits: [3]}")], registry)
    assert config.components["quantizer"].options == GridConfig(grid="binary", bits=[3])


def test_what_a_user_gave_survives_another_choice_where_it_has_a_meaning(registry: Registry) -> None:
    yaml = yaml_layer("sae: plain\nsparsity: {use: batchtopk, k: 5, decay: 0.5}")
    config = resolve([yaml, flags(sparsity="topk")], registry)
    assert config.components["sparsity"].options == TopKConfig(k=5)
    assert config.notes == (
        "my.yaml: sparsity.decay is left out: it belongs to sparsity 'batchtopk', "
        "and sparsity 'topk' is chosen (--sparsity)",
    )


def test_lists_replace_and_mappings_change(registry: Registry) -> None:
    base = yaml_layer("sae: plain\nmetrics: [{use: sparsity, k: 3}, reconstruction]")
    assert [m.use for m in resolve([base], registry).metrics] == ["sparsity", "reconstruction"]
    config = resolve([base, flags(metrics=["sparsity"])], registry)
    assert [(m.use, m.options) for m in config.metrics] == [("sparsity", TopKConfig(k=32))]
    changed = resolve([base, flags(metrics={"sparsity": {"k": 7}})], registry)
    assert [m.options for m in changed.metrics] == [TopKConfig(k=7), NoConfig()]
    assert resolve([yaml_layer("sae: plain\nmetrics: []")], registry).metrics == ()


def test_all_in_a_list_is_every_installed_one_that_it_does_not_name(registry: Registry) -> None:
    """Where it stands, the usual ones first."""
    registry.add(Provider("p", "1"), [spec("evaluation", name) for name in ("absorption", "zeal")])

    def chosen(text: str) -> list[str]:
        return [e.use for e in resolve([yaml_layer(f"sae: plain\n{text}")], registry).evaluate]

    every = ["reconstruction", "loss-recovered", "absorption", "zeal"]
    assert chosen("evaluate: all") == chosen("evaluate: [all]") == every
    assert chosen("evaluate: [{use: zeal}, all]") == ["zeal", *every[:3]]
    assert chosen("evaluate: [all, loss-recovered]") == [every[0], *every[2:], every[1]]


def test_missing_defaults_of_lists_are_left_out_with_a_note() -> None:
    registry = Registry()
    parts = [
        ("quantizer", "none"),
        ("code_quantizer", "none"),
        ("activation", "relu"),
        ("sparsity", "none"),
        ("data", "lm"),
    ]
    registry.add(Provider("p", "1"), [spec("sae", "plain", CoderConfig), *(spec(k, n) for k, n in parts)])
    config = resolve([yaml_layer("sae: plain\nevaluate: []")], registry)
    assert config.metrics == ()
    assert config.notes == tuple(
        f"metric '{name}' is not installed and is left out of metrics"
        for name in ("reconstruction", "sparsity", "rate", "kappa")
    )


def test_a_coder_without_an_activation_has_none_and_refuses_one(registry: Registry) -> None:
    config = resolve([yaml_layer("sae: gated")], registry)
    assert "activation" not in config.components
    with pytest.raises(ConfigError) as error:
        resolve([yaml_layer("sae: gated\nactivation: relu")], registry)
    assert str(error.value) == (
        "my.yaml: activation: sae 'gated' has no activation to choose\n"
        "  next:    leave it out; qsae describe sae gated lists its parts"
    )


# --- length of training


def test_tokens_are_rounded_up_to_whole_batches() -> None:
    train = TrainConfig(tokens=10_000, batch_size=4096)
    assert (train.n_steps, train.n_tokens) == (3, 12288)
    train = TrainConfig(steps=5, batch_size=10)
    assert (train.tokens, train.n_steps, train.n_tokens) == (None, 5, 50)


def test_steps_and_tokens_replace_each_other_across_layers(registry: Registry) -> None:
    base = resolve([yaml_layer("sae: plain\ntrain: {tokens: 2e6}")], registry)
    record = Layer(base.to_dict(), "config.json")
    by_steps = resolve([record, flags(train={"steps": 7})], registry)
    assert (by_steps.train.tokens, by_steps.train.n_steps) == (None, 7)
    back = resolve([Layer(by_steps.to_dict(), "config.json"), flags(train={"tokens": 2048})], registry)
    assert (back.train.steps, back.train.n_steps) == (None, 1)


# --- what is refused, and where

CASES = {
    "sparsity: {use: topk, k: -3}": "my.yaml: sparsity.k: Input should be greater than 0 (got -3)",
    "sparsity: {use: topk, k: many}": "my.yaml: sparsity.k: Input should be a valid integer (got 'many')",
    "sparsity: {use: topk, k: true}": "my.yaml: sparsity.k: Input should not be true or false (got True)",
    "sparsity: {use: topk, kk: 3}": (
        "my.yaml: sparsity.kk: sparsity 'topk' has no option 'kk'; did you mean 'k'?\n  allowed: k"
    ),
    "sparsity: {use: topk, top-k: 3}": (
        "my.yaml: sparsity.top-k: sparsity 'topk' has no option 'top-k'; did you mean 'k'?\n  allowed: k"
    ),
    "sparsity: {use: topk, k: 5000}": (
        "my.yaml: sparsity.k: k (5000) exceeds n_latents (4096)\n"
        "  allowed: 1 to 4096, or a larger --n-latents"
    ),
    "sparsity: 3": (
        "my.yaml: sparsity: a component's name or a mapping is needed here (got 3)\n"
        "  allowed: NAME, or {use: NAME, option: value}"
    ),
    "sparsity: {use: [topk]}": "my.yaml: sparsity: 'use' takes a component's name (got ['topk'])",
    "quantizer: {use: ste, grid: octal}": (
        "my.yaml: quantizer.grid: Input should be 'binary' or 'ternary' (got 'octal')"
    ),
    "quantizer: {use: ste, bits: [2, x]}": (
        "my.yaml: quantizer.bits.1: Input should be a valid integer (got 'x')\n  allowed: list"
    ),
    "data: tensors": ("data.path: data 'tensors' needs a value for 'path'\n  next:    add --data.path VALUE"),
    "train: {lr: fast}": "my.yaml: train.lr: Input should be a valid number or 'auto' (got 'fast')",
    "train: {lr: 0}": "my.yaml: train.lr: Input should be greater than 0 or 'auto' (got 0)",
    "train: {lr: .inf}": "my.yaml: train.lr: Input should be a finite number or 'auto' (got inf)",
    "train: {steps: 1, tokens: 2}": (
        "my.yaml: train.tokens and my.yaml: train.steps: tokens and steps cannot be given together\n"
        "  allowed: one of them\n  next:    leave one of them out"
    ),
    "train: {warmup: 0.9}": (
        "my.yaml: train.warmup: warmup (0.9) and decay (0.2) together exceed the whole run (1)"
    ),
    "train: {tokens: null}": "my.yaml: train.tokens: the length of training is missing: give tokens or steps",
    "run: {device: gpu}": "my.yaml: run.device: Input should be auto, cpu, cuda or cuda:N (got 'gpu')",
    "run: {name: ../x}": "my.yaml: run.name: Input should be one folder's name, without slashes (got '../x')",
    "metrics: [{k: 3}]": "my.yaml: metrics: an entry lacks 'use' (got {'k': 3})",
    "metrics: [sparsity, sparsity]": "my.yaml: metrics: metric 'sparsity' is listed twice",
    "metrics: {sparsty: {k: 3}}": (
        "my.yaml: metrics.sparsty: 'sparsty' is not among the chosen metrics; did you mean 'sparsity'?\n"
        "  allowed: reconstruction, sparsity"
    ),
    "train: 5": "my.yaml: train: a mapping of options is needed here (got 5)",
}


@pytest.mark.parametrize("text", CASES)
def test_errors_name_place_and_value(registry: Registry, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([yaml_layer(f"sae: plain\n{text}")], registry)
    assert str(error.value).startswith(CASES[text])


def test_errors_name_the_flag(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([flags(sae="plain", encoder_quantizer={"use": "ste", "bits": 3})], registry)
    assert str(error.value).startswith("--encoder-quantizer.bits: Input should be a valid list (got 3)")


def test_several_errors_are_all_told(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([yaml_layer("sae: plain\ntrain: {lr: -1, steps: 2.5}")], registry)
    lines = str(error.value).splitlines()
    assert lines == [
        "my.yaml: train.steps: Input should be a valid integer, got a number with a fractional part "
        "(got 2.5)",
        "my.yaml: train.lr: Input should be greater than 0 or 'auto' (got -1)",
        "  allowed: my.yaml: train.steps: integer or none, above 0; my.yaml: train.lr: number or auto, "
        "above 0",
        "  next:    qsae train --help",
    ]


def test_options_of_a_file_of_a_command_s_own_are_checked_as_components_are() -> None:
    read = {"alternate": 2, "tokens": 1e3}
    method = checked_options("quantized", QuantizeConfig, read, "my.yaml: q")
    assert (method.tokens, method.rounds, method.finetune_steps) == (1000, 2, 150)
    with pytest.raises(ConfigError, match="greater than 0") as caught:
        checked_options("quantized", QuantizeConfig, read | {"tokens": 0}, "my.yaml: q")
    assert caught.value.where == "my.yaml: q.tokens"


def test_unknown_components_are_named_with_place_and_the_closest(registry: Registry) -> None:
    with pytest.raises(PluginError) as error:
        resolve([yaml_layer("sae: ternry")], registry)
    assert str(error.value).startswith("my.yaml: sae: unknown sae 'ternry'; did you mean 'ternary'?")
    with pytest.raises(PluginError) as error:
        resolve([flags(sae="plain", metrics=["recon"])], registry)
    assert str(error.value).startswith("--metric: unknown metric 'recon'")


def test_refused_combination_gives_the_reason(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([flags(sae="ternary", sparsity="l1")], registry)
    assert str(error.value) == (
        "--sparsity: sae 'ternary' cannot work with sparsity 'l1': its penalty moves the scales that the "
        "grid is fitted to\n  next:    qsae describe sae ternary"
    )


def test_exactly_one_coder(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([yaml_layer("data: lm")], registry)
    assert error.value.allowed == "--sae gated | plain | ternary; --transcoder skip"
    with pytest.raises(ConfigError, match=r"both chosen \(my.yaml: sae, --transcoder\)"):
        resolve([yaml_layer("sae: plain"), flags(transcoder="skip")], registry)
    assert resolve([flags(transcoder="skip")], registry).coder_slot == "transcoder"


def test_a_plugin_with_a_misspelled_default_part_is_told(registry: Registry) -> None:
    registry.add(
        Provider("q", "1"), [spec("sae", "odd", CoderConfig, default_parts={"quantiser": {"use": "ste"}})]
    )
    with pytest.raises(PluginError, match="sae 'odd' has default parts for unknown slots: quantiser"):
        resolve([flags(sae="odd")], registry)


# --- files


def test_yaml_reads_numbers_as_people_write_them() -> None:
    text = "{a: 1e-4, b: 2_000_000, c: 2e6, d: on, e: 12:30, f: 010, g: ~, h: true, i: '3', j: -.5}"
    assert parse_yaml(text, "x") == {
        "a": 1e-4,
        "b": 2_000_000,
        "c": 2e6,
        "d": "on",
        "e": "12:30",
        "f": 10,
        "g": None,
        "h": True,
        "i": "3",
        "j": -0.5,
    }


def test_counts_may_be_written_as_floats(registry: Registry) -> None:
    config = resolve([yaml_layer("sae: plain\ntrain: {tokens: 2e6, batch_size: 1_024}")], registry)
    assert (config.train.tokens, config.train.batch_size) == (2_000_000, 1024)
    assert isinstance(config.train.tokens, int)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "sae: plain\nsae: ternary", "line 2, column 1: not valid YAML: 'sae' stands twice"),
        ("a.yaml", "sae: [plain", "line 1, column 12: not valid YAML: expected ',' or ']'"),
        ("a.yaml", "spasity: topk", "unknown section 'spasity'; did you mean 'sparsity'?"),
        ("a.yaml", "- sae", "a configuration is a mapping of sections, not list"),
        ("a.json", '{"sae" "plain"}', "line 1, column 8: not valid JSON"),
        ("a.json", '{"sae": "plain", "sae": "x"}', "'sae' stands twice"),
    ],
)
def test_faulty_files(tmp_path: pathlib.Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_layer(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_absent_or_binary_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_layer(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_layer(tmp_path / "binary.yaml")


def test_an_empty_file_chooses_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_layer(tmp_path / "empty.yaml").tree == {}


# --- the record of a run


def test_record_has_every_default_and_every_version(registry: Registry) -> None:
    record = resolve([flags(sae="ternary", run={"seed": 3})], registry).to_dict()
    assert record["sparsity"] == {"use": "topk", "k": 8}
    assert record["train"]["beta2"] == 0.999
    assert record["versions"]["qsae-parts"] == "3.0"
    assert record["versions"]["qsae-saes"] == "1.2"
    assert {"python", "qsae", "torch"} <= set(record["versions"])
    json.dumps(record, allow_nan=False)


def test_a_record_does_not_overwrite_when_it_is_repeated(registry: Registry) -> None:
    config = resolve([flags(sae="plain", run={"overwrite": True})], registry)
    assert not RunConfig.from_dict(config.to_dict(), registry).run.overwrite


def test_a_record_with_its_dates_is_read_and_other_versions_are_told(
    registry: Registry, tmp_path: pathlib.Path
) -> None:
    config = resolve([flags(sae="plain")], registry)
    record = config.to_dict() | {"started_at": "2026-01-01", "completed_at": None, "git": {"dirty": True}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(record))
    again = resolve([read_layer(path)], registry)
    assert again == config
    assert again.notes == ()
    path.write_text(json.dumps(record | {"versions": record["versions"] | {"qsae-parts": "2.9"}}))
    assert resolve([read_layer(path)], registry).notes == (
        f"{path} was written with qsae-parts 2.9, and qsae-parts 3.0 is here: the run may not repeat exactly",
    )


blocks = st.fixed_dictionaries(
    {},
    optional={
        "sparsity": st.one_of(
            st.builds(lambda k: {"use": "topk", "k": k}, st.integers(1, 4096)),
            st.builds(
                lambda k, d: {"use": "batchtopk", "k": k, "decay": d},
                st.integers(1, 99),
                st.just(0.0) | st.floats(1e-30, 0.999),
            ),
        ),
        "quantizer": st.builds(lambda bits: {"use": "ste", "bits": bits}, st.lists(st.integers())),
        "data": st.builds(lambda path: {"use": "tensors", "path": path}, st.text(max_size=9)),
        "train": st.one_of(
            st.builds(lambda n: {"tokens": n}, st.integers(1, 10**9)),
            st.builds(
                lambda n, lr: {"steps": n, "lr": lr}, st.integers(1, 9), st.floats(1e-9, 9) | st.just("auto")
            ),
        ),
        "run": st.builds(lambda s, n: {"seed": s, "name": n}, st.integers(0, 99), st.none() | st.just("a b")),
        "metrics": st.lists(st.sampled_from(["reconstruction", "sparsity"]), unique=True),
    },
)


@given(tree=blocks, coder=st.sampled_from([{"sae": "ternary"}, {"sae": "gated"}, {"transcoder": "skip"}]))
def test_any_run_comes_back_from_its_record(tree: dict[str, Any], coder: dict[str, str]) -> None:
    registry = make_registry()  # hypothesis runs one function many times: no fixture
    config = resolve([Layer({**coder, **tree})], registry)
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert RunConfig.from_dict(json.loads(text), registry) == config


# --- real recipes

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.yaml"))
RECIPES = [path for path in CONFIGS if not path.stem.startswith("sweep-")]  # test_sweep_configs reads those


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_resolves(path: pathlib.Path) -> None:
    config = resolve([read_layer(path)], load_plugins().registry)
    assert config.notes == ()
    assert RunConfig.from_dict(config.to_dict(), load_plugins().registry) == config


def test_there_are_recipes() -> None:
    assert {"ternary-ste", "topk", "vanilla"} <= {path.stem for path in RECIPES}


def test_resolving_imports_no_torch() -> None:
    code = "import sys, qsae_core.config.run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("given", "every", "vectors"),
    [
        ({"steps": 1000}, 100, 32768),  # a fiftieth of 2,048,000 is more than eval_tokens
        ({"steps": 100}, 10, 4096),
        ({"steps": 5}, 1, 2048),  # a batch
        ({"steps": 100, "eval_every": 7}, 7, 32768),  # as it was asked for
        ({"steps": 100, "eval_every": 0}, 0, 32768),
    ],
)
def test_measurements_on_the_way_are_a_small_part_of_a_run(given: dict[str, Any], every: int, vectors: int):
    assert TrainConfig(**given).measurements == (every, vectors)
