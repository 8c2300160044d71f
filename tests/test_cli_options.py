"""Flags made from schemas: spellings, values, help, and what is said of a flag that nothing chosen has."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import types
from typing import Any, Literal

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from pydantic import Field

import qsae_cli.options.component_options
import qsae_cli.train
from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.options.flag_names import Owner, belonging
from qsae_core import CoderConfig, ComponentConfig, ComponentSpec, QsaeError, option
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.config.schema import FieldSchema, field_schemas
from qsae_core.registry import Provider, Registry


class TopKConfig(ComponentConfig):
    """Keep k."""

    k: int = option(32, "active latents per token", aliases=("top-k",), gt=0)


class L1Config(ComponentConfig):
    """Penalty."""

    coefficient: float = option(5.0, "weight of the penalty", ge=0)


class SteConfig(ComponentConfig):
    """Straight through."""

    grid: Literal["binary", "ternary"] = option("ternary", "values of a weight")
    n_bits: int | None = option(None, "bits per weight", ge=1, le=8)
    centred: bool = option(False, "subtract the row's mean")
    widths: list[int] = option([2, 4], "several widths")


class LsqConfig(ComponentConfig):
    """Learned step."""

    gamma: float = option(1.0, "gradient scale", gt=0)


class LmConfig(ComponentConfig):
    """A language model."""

    model: str = option("builtin", "folder or id")
    layer: int | Literal["middle"] = option("middle", "layer to read")
    seed: int = option(0, "seed of the shuffling")


class TensorsConfig(ComponentConfig):
    """A file."""

    path: str = option(description="file or folder", aliases=("data-path",))
    split: float = option(0.1, "held-out share")


class StoreConfig(ComponentConfig):
    """A store."""

    folder: str = option(description="folder")
    split: float = option(0.1, "held-out share")


class WindowConfig(ComponentConfig):
    """A metric."""

    window: int = option(3, "tokens", gt=0)
    k: int = option(1, "neighbours", gt=0)


class NoConfig(ComponentConfig):
    """No options."""


def make_registry() -> Registry:
    def spec(kind: str, name: str, config: type[ComponentConfig] = NoConfig, **more: Any) -> ComponentSpec:
        return ComponentSpec(kind, name, config, "nowhere:Nothing", **more)

    registry = Registry()
    parts = {"quantizer": {"use": "ste", "grid": "binary"}, "sparsity": {"use": "topk", "k": 8}}
    specs = [
        spec("sae", "ternary", CoderConfig, default_parts=parts),
        spec("sae", "plain", CoderConfig),
        *(spec("quantizer", n, c) for n, c in (("none", NoConfig), ("ste", SteConfig), ("lsq", LsqConfig))),
        spec("activation", "relu"),
        spec("code_quantizer", "none", NoConfig),
        *(spec("sparsity", n, c) for n, c in (("none", NoConfig), ("topk", TopKConfig), ("l1", L1Config))),
        *(
            spec("data", n, c)
            for n, c in (("lm", LmConfig), ("tensors", TensorsConfig), ("store", StoreConfig))
        ),
        spec("metric", "reconstruction"),
        spec("metric", "sparsity", WindowConfig),
        spec("evaluation", "reconstruction"),
        spec("evaluation", "loss-recovered"),
    ]
    registry.add(Provider("qsae-test", "1.0"), specs)
    return registry


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = make_registry()
    for module in (qsae_cli.options.component_options, qsae_cli.train):
        monkeypatch.setattr(module, "load_plugins", lambda: types.SimpleNamespace(registry=registry))
    return registry


def run(*args: str) -> Result:
    return CliRunner().invoke(qsae_cli.train.train, list(args), prog_name="qsae train")


def resolved(*args: str) -> dict[str, Any]:
    """The configuration that ``qsae train ARGS`` would train."""
    result = run(*args, "--dry-run")
    if result.exception:
        raise result.exception
    return yaml.safe_load(result.stdout)


def refused(*args: str) -> str:
    """What ``qsae train ARGS`` is refused with."""
    result = run(*args, "--dry-run")
    if isinstance(result.exception, QsaeError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return result.stderr


# --- spellings and values


@pytest.mark.parametrize("flag", ["--sparsity.k", "--k", "--top-k", "--top_k", "--sparsity.k=", "--top-k="])
def test_a_field_has_a_long_a_short_and_its_alias_spellings(flag: str) -> None:
    args = [flag + "16"] if flag.endswith("=") else [flag, "16"]
    assert resolved("--sae", "ternary", *args)["sparsity"] == {"use": "topk", "k": 16}


@pytest.mark.parametrize(
    "flag", ["--n-latents", "--hidden-dim", "--latent-size", "--d-sae", "--sae.n_latents"]
)
def test_the_fields_own_aliases(flag: str) -> None:
    assert resolved("--sae", "plain", flag, "128")["sae"]["n_latents"] == 128


def test_train_and_run_fields_are_flags() -> None:
    config = resolved(
        *("--sae", "plain", "--steps", "1e3", "--batch-size", "2_048", "--lr", "1e-4", "--screen", "bf16"),
        *("--seed", "3", "--device", "cpu", "--out", "o", "--name", "123", "--clip", "none", "--save-float"),
    )
    assert config["train"]["steps"] == 1000
    assert config["train"]["tokens"] is None
    assert (config["train"]["batch_size"], config["train"]["lr"]) == (2048, 1e-4)
    assert (config["train"]["screen"], config["train"]["clip"]) == ("bf16", None)
    assert {k: config["run"][k] for k in ("seed", "device", "out", "name", "save_float")} == {
        "seed": 3,
        "device": "cpu",
        "out": "o",
        "name": "123",
        "save_float": True,  # a name of digits stays text
    }


def test_switches_choices_and_words_among_numbers() -> None:
    args = ["--sae", "ternary", "--centred", "--grid", "ternary", "--n-bits", "none", "--layer", "2"]
    config = resolved(*args, "--rotate", "false")
    assert config["quantizer"] == {
        "use": "ste",
        "grid": "ternary",
        "n_bits": None,
        "centred": True,
        "widths": [2, 4],
    }
    assert config["data"]["layer"] == 2
    assert config["sae"]["rotate"] is False
    assert resolved("--sae", "ternary", "--no-centred", "--layer", "middle")["data"]["layer"] == "middle"


def test_nested_values_by_set() -> None:
    config = resolved("--sae", "ternary", "--set", "quantizer.widths=[1, 8]", "--set", "train.lr=1e-3")
    assert config["quantizer"]["widths"] == [1, 8]
    assert config["train"]["lr"] == 1e-3
    assert resolved("--sae", "ternary", "--set", "sparsity=l1", "--coefficient", "2")["sparsity"] == {
        "use": "l1",
        "coefficient": 2.0,
    }
    assert resolved("--set", "sae=plain", "--set", "metrics=[]")["metrics"] == []


def test_lists_are_repeatable_and_their_fields_have_long_flags() -> None:
    config = resolved("--sae", "plain", "--metric", "sparsity", "--eval", "reconstruction")
    assert [m["use"] for m in config["metrics"]] == ["sparsity"]
    assert [e["use"] for e in config["evaluate"]] == ["reconstruction"]
    config = resolved("--sae", "ternary", "--metric.sparsity.window", "9", "--k", "4")
    assert config["metrics"][1] == {"use": "sparsity", "window": 9, "k": 1}
    assert config["sparsity"]["k"] == 4  # the metric's k does not make --k ambiguous


def test_a_section_keeps_its_short_flag_whatever_components_have() -> None:
    config = resolved("--sae", "plain", "--seed", "5", "--data.seed", "6")
    assert (config["run"]["seed"], config["data"]["seed"]) == (5, 6)


def test_one_short_name_in_two_components_is_refused_with_the_long_ones() -> None:
    both = ["--sae", "ternary", "--encoder-quantizer", "ste"]
    assert refused(*both, "--grid", "binary").startswith(
        "--grid could be any of --quantizer.grid, --encoder-quantizer.grid"
    )
    assert refused(*both, "--no-centred").startswith("--no-centred could be any of --quantizer.centred, ")
    config = resolved(*both, "--encoder-quantizer.grid", "binary", "--quantizer.grid", "ternary")
    assert (config["quantizer"]["grid"], config["encoder_quantizer"]["grid"]) == ("ternary", "binary")


# --- files


def test_flags_win_over_files_and_later_files_over_earlier(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.yaml").write_text("sae: ternary\nsparsity: {k: 2}\ntrain: {steps: 5, batch_size: 7}\n")
    (tmp_path / "b.yaml").write_text("sparsity: {k: 3}\n")
    files = ["--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")]
    assert resolved(*files)["sparsity"]["k"] == 3
    config = resolved(*files, "--k", "4", "--tokens", "70")
    assert config["sparsity"]["k"] == 4
    assert (config["train"]["tokens"], config["train"]["steps"]) == (70, None)


def test_a_file_chooses_which_flags_there_are(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "l1.yaml"
    path.write_text("sae: plain\nsparsity: l1\n")
    assert resolved("--config", str(path), "--coefficient", "3")["sparsity"]["coefficient"] == 3.0
    assert "--k belongs to sparsity 'topk'; add --sparsity topk" in refused("--config", str(path), "--k", "3")


def test_the_dry_run_is_a_config_that_gives_the_same_run(tmp_path: pathlib.Path) -> None:
    args = ["--sae", "ternary", "--k", "5", "--data-path", "x.npy", "--steps", "9", "--lr", "3e-5"]
    path = tmp_path / "config.yaml"
    path.write_text(run(*args, "--dry-run").stdout)
    assert resolved("--config", str(path)) == resolved(*args)
    (tmp_path / "config.json").write_text(run(*args, "--dry-run", "--json").stdout)
    assert resolved("--config", str(tmp_path / "config.json")) == resolved(*args)


# --- the data source that a flag implies


def test_a_flag_of_one_data_source_alone_chooses_it() -> None:
    assert resolved("--sae", "plain", "--data-path", "x.npy")["data"]["use"] == "tensors"
    assert resolved("--sae", "plain", "--data.path", "x.npy")["data"]["use"] == "tensors"
    assert resolved("--sae", "plain", "--path", "x.npy", "--split", "0.2")["data"] == {
        "use": "tensors",
        "path": "x.npy",
        "split": 0.2,
    }
    assert resolved("--sae", "plain", "--model", "gpt2")["data"]["use"] == "lm"


def test_a_flag_of_two_data_sources_chooses_none() -> None:
    assert refused("--sae", "plain", "--split", "0.2") == (
        "--split belongs to data 'store' or data 'tensors'; add --data store or --data tensors"
    )


def test_flags_of_different_data_sources_are_refused() -> None:
    assert refused("--sae", "plain", "--path", "x", "--folder", "y").startswith(
        "--path belongs to data 'tensors'"
    )
    assert refused("--sae", "plain", "--path", "x", "--layer", "3").startswith("--layer belongs to data 'lm'")


def test_a_chosen_data_source_is_not_replaced(tmp_path: pathlib.Path) -> None:
    assert refused("--sae", "plain", "--data", "lm", "--path", "x").startswith(
        "--path belongs to data 'tensors'"
    )
    path = tmp_path / "lm.yaml"
    path.write_text("sae: plain\ndata: {use: lm}\n")
    assert refused("--config", str(path), "--path", "x").startswith("--path belongs to data 'tensors'")
    path.write_text("sae: plain\ndata: {split: 0.3}\n")
    assert resolved("--config", str(path), "--path", "x")["data"]["split"] == 0.3


def test_a_value_that_looks_like_a_flag_is_a_value() -> None:
    config = resolved("--sae", "plain", "--out", "--path")
    assert (config["run"]["out"], config["data"]["use"]) == ("--path", "lm")


# --- refusals


def test_a_flag_of_many_components_names_the_choosing_flags_once() -> None:
    shared = [ComponentSpec("quantizer", name, LsqConfig, "nowhere:Nothing") for name in ("a", "b", "c")]
    found = [Owner(s, "gamma", ("quantizer", "encoder_quantizer")) for s in shared]
    assert belonging(found) == (
        "belongs to quantizer a, b, c; add --quantizer or --encoder-quantizer with one of them"
    )
    assert belonging(found[:2]).startswith("belongs to quantizer 'a' or quantizer 'b'; add --quantizer a or ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no SAE and no transcoder is chosen\n  allowed: --sae plain | ternary"),
        (["--k", "3"], "no SAE and no transcoder is chosen"),
        (["--sea", "plain"], "unknown flag --sea; did you mean --sae?"),
        (["--sae", "ternry"], "--sae: unknown sae 'ternry'; did you mean 'ternary'?"),
        (["--sae", "plain", "--gamma", "2"], "--gamma belongs to quantizer 'lsq'; add --quantizer lsq or "),
        (
            ["--sae", "plain", "--gama", "2"],
            "unknown flag --gama; did you mean --gamma? It belongs to quantizer",
        ),
        (["--sae", "plain", "--stepz", "2"], "unknown flag --stepz; did you mean --steps?"),
        (["--sae", "plain", "--quantiser", "ste"], "unknown flag --quantiser; did you mean --quantizer?"),
        (
            ["--sae", "ternary", "--sparsity.kk", "2"],
            "unknown flag --sparsity.kk; did you mean --sparsity.k?",
        ),
        (["--sae", "plain", "--zzz"], "unknown flag --zzz\n"),
        (["--sae", "ternary", "--k", "-3"], "--sparsity.k: Input should be greater than 0 (got -3)"),
        (["--sae", "ternary", "--k", "many"], "--sparsity.k: Input should be a valid integer (got 'many')"),
        (["--sae", "ternary", "--k", "[1"], "--sparsity.k: Input should be a valid integer (got '[1')"),
        (
            ["--sae", "ternary", "--n-bits", "9"],
            "--quantizer.n-bits: Input should be less than or equal to 8",
        ),
        (
            ["--sae", "ternary", "--grid", "x"],
            "--quantizer.grid: Input should be 'binary' or 'ternary' (got 'x')",
        ),
        (
            ["--sae", "plain", "--steps", "3", "--tokens", "4"],
            "--train.tokens and --train.steps: tokens and steps cannot be given together",
        ),
        (["--sae", "plain", "--data", "tensors"], "data.path: data 'tensors' needs a value for 'path'"),
        (["--sae", "plain", "--set", "k"], "--set: PLACE.OPTION=VALUE is needed (got 'k')"),
        (
            ["--sae", "plain", "--set", "trian.lr=1"],
            "--set trian.lr: unknown section 'trian'; did you mean 'train'?",
        ),
        (
            ["--sae", "plain", "--set", "train.lr=1", "--lr", "2"],
            "--set train.lr: train.lr is given by --train.lr",
        ),
        (["--sae", "plain", "--set", "train.lr=1", "--set", "train.lr=2"], "--set train.lr: is set twice"),
        (["--sae", "plain", "--set", "train.lr=[1"], "--set train.lr: line 1, column 3: not valid YAML"),
        (["--config", "absent.yaml"], "absent.yaml: the configuration cannot be read: No such file"),
    ],
)
def test_refusals(args: list[str], message: str) -> None:
    assert refused(*args).startswith(message)


def test_clicks_own_refusals() -> None:
    assert "Option '--sae' requires an argument" in run("--sae").stderr
    assert "unexpected extra argument (more)" in refused("--sae", "plain", "some", "more")
    assert "some: it is no run" in refused("--sae", "plain", "some")


# --- help


def help_of(*args: str) -> str:
    result = run(*args, "--help")
    assert result.exit_code == 0, result.exception
    return " ".join(result.stdout.split())


def test_help_groups_flags_by_component_with_what_would_be_used() -> None:
    text = help_of("--sae", "ternary")
    assert "sparsity 'topk' (--sparsity): --k, --top-k, --sparsity.k INTEGER active latents per token" in text
    assert "[default: 8; above 0]" in text  # the SAE's default part, not the schema's 32
    assert "--grid, --quantizer.grid [binary|ternary] values of a weight [default: binary]" in text
    assert "--n-bits, --quantizer.n-bits INTEGER|none bits per weight [default: none; 1 to 8]" in text
    assert "--centred/--no-centred, --quantizer.centred/--quantizer.no-centred" in text
    assert "--widths" not in text  # a list is no flag
    assert "--sae NAME the sparse autoencoder to train [default: ternary; installed: plain, ternary]" in text
    assert "Training: --tokens INTEGER" in text
    assert "--coefficient" not in text


def test_help_needs_no_coder_and_follows_the_other_choices(tmp_path: pathlib.Path) -> None:
    assert "--coefficient, --sparsity.coefficient NUMBER weight of the penalty" in help_of("--sparsity", "l1")
    text = help_of()
    assert "--model, --data.model TEXT folder or id [default: builtin]" in text
    path = tmp_path / "a.yaml"
    path.write_text("sae: ternary\nsparsity: {k: 77}\n")
    assert "[default: 77; above 0]" in help_of("--config", str(path))
    assert "file or folder [required]" in help_of("--data", "tensors")


def test_help_comes_before_other_flags_do_any_harm() -> None:
    assert "Training:" in help_of("--help", "--sae", "ternary")


# --- schemas


class ManyForms(ComponentConfig):
    """Every form of field."""

    a: int = option(1, "a", gt=0, lt=5)
    b: float | Literal["auto"] = option("auto", "b")
    c: Literal[1, 2] | None = option(None, "c")
    d: list[int] | int = option(1, "d")
    e: dict[str, int] = option({}, "e")
    f: str | None = option(None, "f")
    g: bool | Literal["auto"] = option("auto", "g")
    h: bool = option(True, "h")
    i: tuple[int, ...] | None = Field(None, description="i")


def test_what_a_field_takes_is_read_from_its_schema() -> None:
    schemas = field_schemas(ManyForms)
    assert schemas["a"] == FieldSchema(frozenset({"integer"}), (), ("above 0 and below 5",))
    assert {name: s.metavar for name, s in schemas.items() if s.is_flag} == {
        "a": "INTEGER",
        "b": "NUMBER|auto",
        "c": "[1|2|none]",
        "d": "INTEGER",
        "f": "TEXT",
        "g": "true|false|auto",
        "h": "true|false",
    }
    assert [name for name, s in schemas.items() if s.is_switch] == ["h"]


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("a", "2_000", 2000),
        ("a", "2e6", 2e6),
        ("a", "x: y", "x: y"),
        ("a", "null", "null"),
        ("b", "1e-4", 1e-4),
        ("b", "auto", "auto"),
        ("c", "2", 2),
        ("c", "None", None),
        ("d", "[1, 2]", [1, 2]),
        ("f", "none", None),
        ("f", "12", "12"),
        ("g", "true", True),
    ],
)
def test_how_a_flags_text_is_read(field: str, text: str, value: object) -> None:
    read = field_schemas(ManyForms)[field].read(text)
    assert read == value
    assert type(read) is type(value)


# --- other commands


def test_a_command_with_data_flags_alone_starts_from_its_own_base(registry: Registry) -> None:
    base = Layer({"sae": "plain", "data": {"use": "lm", "model": "m", "layer": 3}}, "run", fallback=True)
    seen: list[dict[str, Any]] = []

    scope = Scope(slots=("data",), lists=("evaluate",), sections=(), needs_coder=False, config_file=False)

    def from_path(values: Any) -> list[Layer]:
        assert values["path"] == "results/x"
        return [base]

    @click.command("evaluate", cls=ConfiguredCommand, scope=scope, base=from_path)
    @click.argument("path")
    def evaluate(path: str, layers: list[Layer]) -> None:
        seen.append(resolve(layers, registry).to_dict())

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(evaluate, list(args))

    assert invoke("--layer", "5", "results/x", "--eval", "reconstruction").exception is None
    assert seen[-1]["data"] == {"use": "lm", "model": "m", "layer": 5, "seed": 0}
    assert [e["use"] for e in seen[-1]["evaluate"]] == ["reconstruction"]
    assert invoke("results/x", "--data-path", "y.npy").exception is None
    assert seen[-1]["data"] == {"use": "tensors", "path": "y.npy", "split": 0.1}  # nothing left of the lm's
    assert "unknown flag --sae" in str(invoke("results/x", "--sae", "plain").exception)
    assert "unknown flag --steps" in str(invoke("results/x", "--steps", "3").exception)
    assert "model" in invoke("results/x", "--help").stdout


def test_completion_of_an_unfinished_line() -> None:
    from click.shell_completion import ShellComplete

    def complete(*args: str, word: str) -> list[str]:
        completer = ShellComplete(qsae_cli.train.train, {}, "qsae-train", "_X")
        return [item.value for item in completer.get_completions(list(args), word)]

    assert complete("--sae", word="t") == ["ternary"]
    assert complete("--sae", "ternary", word="--top") == ["--top-k"]
    assert complete("--sae", "ternary", "--grid", word="b") == ["binary"]
    assert complete("--sae", "nothing-like-it", "--sparsity", word="to") == ["topk"]


def test_json_of_a_dry_run() -> None:
    assert json.loads(run("--sae", "plain", "--dry-run", "--json").stdout) == resolved("--sae", "plain")


def test_a_dry_run_of_installed_components_imports_no_torch() -> None:
    code = (
        "import sys; from qsae_cli.main import cli\n"
        "cli(['train', '--sae', 'topk', '--data', 'synthetic', '--dry-run'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["data"]["preset"] == "tiny"
