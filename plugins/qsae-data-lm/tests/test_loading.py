"""Models that load, and what is said about those that do not; and `qsae sites`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from qsae_data_lm import LmConfig, pretrained, reach
from qsae_data_lm.loading import find_layout, load_model
from qsae_data_lm.placement import Placement
from qsae_data_lm.places import locate, short_name
from qsae_data_lm.sites_command import sites
from qsae_data_lm.source import LmSource
from transformers import AutoConfig, LlamaForCausalLM

from qsae_core.errors import DataError


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def load(directory: Path) -> None:
    load_model(str(directory), find_layout(str(directory)), Placement(torch.float32, "cpu"))


def test_places_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(DataError, match=r"no config.json \(it holds notes.txt\)"):
        locate(str(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        locate(str(tmp_path / "notes.txt"))
    with pytest.raises(DataError, match="there is no directory"):
        locate(str(tmp_path / "absent" / "deeper"))
    assert locate("EleutherAI/pythia-70m") == ("EleutherAI/pythia-70m", None, None)
    assert locate("EleutherAI/pythia-70m@step3000") == ("EleutherAI/pythia-70m", None, "step3000")
    assert locate("gpt2@refs/pr/3").options == {"revision": "refs/pr/3"}
    with pytest.raises(DataError, match="there is no directory"):
        locate("EleutherAI/pythia-70m@")


def test_an_id_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(AutoConfig, "from_pretrained", offline)
    monkeypatch.setattr(reach, "unreachable", lambda place: None)
    monkeypatch.setattr(pretrained, "unreachable", lambda place: None)
    with pytest.raises(DataError, match="'nobody/nothing' cannot be loaded: We couldn't connect"):
        find_layout("nobody/nothing")


@pytest.mark.parametrize("asked", ["nobody/nothing", "nobody/nothing@a-branch"])
def test_without_a_network_one_question_is_asked(
    asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half a minute and six questions by the library; a port on which nobody listens refuses at once."""
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    script = (
        "import sys, time; from qsae_data_lm.loading import find_layout\n"
        "from qsae_core.errors import DataError\n"
        "started = time.monotonic()\n"
        "try: find_layout(sys.argv[1])\n"
        "except DataError as error: print(error)\n"
        "print(time.monotonic() - started)\n"
    )
    command = [sys.executable, "-c", script, asked]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | hub, check=True)
    *said, seconds = done.stdout.splitlines()
    assert (
        f"the configuration of {asked!r} is not on this machine, and http://127.0.0.1:9 cannot be" in said[0]
    )
    assert said[-1].startswith("  next:    --model DIR, a folder with a copy of it")
    assert "Retrying" not in done.stderr
    assert float(seconds) < 10  # one attempt; the library's five pauses alone are 23 seconds


def test_pickled_weights_are_refused_with_a_way_to_convert_them(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has no weights"):
        load(copy)
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pickled \(pytorch_model.bin\)") as caught:
        load(copy)
    assert "save_pretrained" in str(caught.value.next)


def test_weights_that_do_not_fit_the_config_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(DataError, match=r"lack 9 tensors .* model.layers.3"):
        load(copy)
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(DataError, match=r"weights of .* cannot be loaded"):
        load(copy)
    (copy / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"weights of .* cannot be loaded"):
        load(copy)


def test_a_missing_tokenizer_is_an_error(copy: Path, text: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="has no tokenizer"):
        LmSource(LmConfig(model=str(copy), text=str(text), context=32))


def test_a_layer_or_site_that_the_model_lacks(tiny: Path, text: Path) -> None:
    with pytest.raises(DataError, match="has 3 layers") as caught:
        LmSource(LmConfig(model=str(tiny), text=str(text), context=32, layer=9))
    assert "0 to 2" in str(caught.value)
    assert f"qsae sites {tiny}" in str(caught.value)
    with pytest.raises(DataError, match="no layer 3"):
        LmSource(LmConfig(model=str(tiny), text=str(text), context=32, layers=(1, 3)))
    with pytest.raises(ValueError, match="resid_pre"):
        LmConfig(site="residual")


def test_short_names() -> None:
    assert short_name("HuggingFaceTB/SmolLM2-135M") == "smollm2-135m"
    assert short_name("/models/Pythia_70m/") == "pythia-70m"
    assert short_name("builtin") == "builtin"
    assert short_name("EleutherAI/pythia-70m@step3000") == "pythia-70m-step3000"
    assert short_name("/models/模型") != short_name("/models/数据")


def test_sites_prints_layers_sites_and_widths(tiny: Path) -> None:
    result = CliRunner().invoke(sites, [str(tiny)], catch_exceptions=False)
    lines = result.output.splitlines()
    assert lines[0] == f"{tiny}: llama, 3 layers (0 to 2)"
    assert lines[4].split() == ["resid_mid", "16", "input", "of", "post_attention_layernorm"]
    described = json.loads(CliRunner().invoke(sites, [str(tiny), "--json"]).output)
    assert described["layers"] == 3
    assert [s["site"] for s in described["sites"]] == [
        "resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post",
    ]  # fmt: skip
    assert {s["width"] for s in described["sites"]} == {16}


def test_sites_says_why_a_site_is_absent(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig

    GPTNeoXConfig(hidden_size=64, num_hidden_layers=2).save_pretrained(tmp_path)
    output = CliRunner().invoke(sites, [str(tmp_path)]).output
    assert "absent: attention and MLP read the same residual stream in parallel" in output


def test_a_causal_model_without_its_tied_head_loads(tiny: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    load(tmp_path)


HUB = """
from qsae_data_lm.loading import find_layout, load_model, load_tokenizer
from qsae_data_lm.placement import Placement
import torch
for name in ("acme/tiny", "acme/tiny@first"):
    load_tokenizer(name)
    model = load_model(name, find_layout(name), Placement(torch.float32, "cpu"))
    print(model.name, model.revision, model.layout.n_layers)
"""


def test_a_revision_of_the_hub_is_the_one_that_was_asked_for(tiny: Path, tmp_path: Path) -> None:
    """Of two in the hub's cache: main, and the tag `first`, which has one layer less."""
    kept = tmp_path / "models--acme--tiny"
    layers = json.loads((tiny / "config.json").read_text())["num_hidden_layers"]
    for ref, commit, n_layers in (("main", "b" * 40, layers), ("first", "a" * 40, layers - 1)):
        folder = kept / "snapshots" / commit
        shutil.copytree(tiny, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": n_layers}))
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / ref).write_text(commit)
    hub = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", HUB], env=hub, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"tiny {'b' * 40} {layers}", f"tiny-first {'a' * 40} {layers - 1}"], (
        done
    )
