"""Code that comes with a model is never run, and nobody is asked whether to run it, in no command."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import qsae_data_lm
from click.testing import CliRunner
from qsae_data_lm import LmConfig
from qsae_data_lm.loading import load_config
from qsae_data_lm.source import LmSource

from qsae_cli.main import cli
from qsae_core.errors import DataError

CODE = """
import pathlib
pathlib.Path({ran!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that is there once the model's code has been run."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tiny: Path, tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with code beside it, which would be cached in a folder of the test."""
    copied = Path(shutil.copytree(tiny, tmp_path / "own"))
    (copied / "own.py").write_text(CODE.format(ran=str(ran)))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    return copied


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def with_own_architecture(folder: Path) -> None:
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(folder / "config.json", model_type="own", auto_map=classes)


def with_own_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input="y\n" * 9, prog_name="qsae")


@pytest.mark.parametrize("command", ["sites", "train"])
def test_an_architecture_of_its_own_is_refused(folder: Path, ran: Path, tmp_path: Path, command: str) -> None:
    with_own_architecture(folder)
    train = ["train", "--sae", "topk", "--data", "lm", "--steps", 1, "--out", tmp_path / "out", "--model"]
    result = run(*(train if command == "train" else ["sites"]), folder)
    assert not ran.exists()
    assert result.exit_code == 2
    assert "the configuration of" in result.output
    assert "needs code that comes with it, and such code is never run" in result.output
    assert "[y/N]" not in result.output


def test_a_tokenizer_of_its_own_is_refused(folder: Path, ran: Path, tmp_path: Path) -> None:
    with_own_tokenizer(folder)
    train = ["train", "--sae", "topk", "--data", "lm", "--steps", 1, "--out", tmp_path / "out"]
    result = run(*train, "--context", 32, "--model", folder)
    assert not ran.exists()
    assert result.exit_code == 2
    assert "the tokenizer of" in result.output
    assert "never run" in result.output
    assert "[y/N]" not in result.output
    assert run("sites", folder).exit_code == 0  # which reads no tokenizer
    assert not ran.exists()


def test_code_beside_a_known_architecture_is_left_alone(folder: Path, ran: Path, text: Path) -> None:
    """Many a model on the hub names its first code still, although transformers knows it since."""
    change(
        folder / "config.json",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    source = LmSource(LmConfig(model=str(folder), text=str(text), context=32, buffer_tokens=64))
    assert type(source.language_model().model).__module__.startswith("transformers.models.llama")
    assert not ran.exists()


@pytest.mark.parametrize("kernel", ["someone/attention", "kernels-community/flash-attn:function"])
def test_attention_out_of_the_hub_is_refused(folder: Path, kernel: str) -> None:
    change(folder / "config.json", attn_implementation=kernel)
    with pytest.raises(DataError, match=f"asks for the attention kernel '{kernel}'"):
        load_config(str(folder))


def test_one_function_of_the_plugin_calls_what_loads() -> None:
    """Any other call of `from_pretrained` would rest on transformers' defaults again."""
    package = Path(inspect.getfile(qsae_data_lm)).parent
    calls = [
        (file.name, {word.arg for word in node.keywords})
        for file in package.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
    ]
    assert len(calls) == 1
    assert calls[0][0] == "pretrained.py"
    assert "trust_remote_code" in calls[0][1]
