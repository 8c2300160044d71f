"""The recipes for language models in configs/: sizes follow the model, and each trains from a folder.

Nothing is downloaded: a model is built from its transformers config as it was published, with fewer layers, a
narrower MLP and the tokens of the built-in model's tokenizer, and random weights.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import torch
import transformers as t
from click.testing import CliRunner
from qsae_data_lm.places import BUILTIN

from qsae_cli.main import cli
from qsae_core.config.layers import read_layer
from qsae_core.config.run import resolve
from qsae_core.plugins.records import load_plugins

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Published:
    """A model as it was published.

    Attributes:
        config: its transformers config, but for the numbers of layers and tokens.
        layers: how many it has.
        less: what makes it small, beside fewer layers and tokens.
    """

    config: type[Any]
    options: dict[str, Any]
    layers: int
    less: dict[str, Any]

    @property
    def width(self) -> int:
        return int(self.options.get("hidden_size") or self.options["n_embd"])

    def save(self, folder: pathlib.Path) -> None:
        tokenizer = t.AutoTokenizer.from_pretrained(BUILTIN)
        tokens = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        fewer = "n_layer" if "n_embd" in self.options else "num_hidden_layers"
        config = self.config(**{**self.options, **tokens, **self.less, fewer: 2})
        torch.manual_seed(0)
        t.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


NARROW = {"intermediate_size": 128}
GEMMA = {"head_dim": 256, "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh"}
PUBLISHED = {
    "gpt2": Published(t.GPT2Config, {"n_embd": 768, "n_head": 12, "n_positions": 1024}, 12, {"n_inner": 128}),
    "pythia-70m": Published(
        t.GPTNeoXConfig,
        {
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "rotary_pct": 0.25,
            "use_parallel_residual": True,
            "max_position_embeddings": 2048,
        },
        6,
        NARROW,
    ),
    "gemma-2-2b": Published(
        t.Gemma2Config,
        {
            **GEMMA,
            "hidden_size": 2304,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 9216,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "max_position_embeddings": 8192,
        },
        26,
        NARROW,
    ),
    "gemma-3-1b": Published(
        t.Gemma3TextConfig,
        {
            **GEMMA,
            "hidden_size": 1152,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "intermediate_size": 6912,
            "sliding_window": 512,
            "max_position_embeddings": 32768,
        },
        26,
        {**NARROW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "qwen3-1.7b": Published(
        t.Qwen3Config,
        {
            "hidden_size": 2048,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 6144,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
        28,
        NARROW,
    ),
    "llama-3.2-1b": Published(
        t.LlamaConfig,
        {
            "hidden_size": 2048,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 8192,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": True,
        },
        16,
        NARROW,
    ),
    "smollm2-135m": Published(
        t.LlamaConfig,
        {
            "hidden_size": 576,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        30,
        NARROW,
    ),
}
WIDTHS = {**{name: model.width for name, model in PUBLISHED.items()}, "builtin": 256}
LAYERS = {**{name: model.layers for name, model in PUBLISHED.items()}, "builtin": 5}


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
@pytest.mark.parametrize("name", WIDTHS)
def test_sizes_follow_the_width_of_the_model(name: str, kind: str) -> None:
    """16 d latents in groups of 1 : 2 : 4 : 9, 1 in 200 of them active; as the head of the file says."""
    path, d = ROOT / "configs" / f"{kind}-{name}.yaml", WIDTHS[name]
    config = resolve([read_layer(path)], load_plugins().registry).for_width(d)
    assert config.coder_slot == kind
    assert config.coder.options.n_latents == 16 * d
    assert config.coder.options.prefixes() == (d, 3 * d, 7 * d, 16 * d)
    assert config.components["sparsity"].options.k == round(16 * d / 200)
    assert config.train.lr == "auto"
    data = config.data.options
    assert data.layer is data.source_layer is data.layers is None  # the middle one
    head, ends, command = path.read_text().splitlines()[:3]
    assert f"{LAYERS[name] // 2})" in head
    assert head.endswith(f"{16 * d:,} latents, 16 x {d:,},")
    assert f"end at {d:,}, {3 * d:,}, {7 * d:,} and {16 * d:,}; {round(16 * d / 200)} of them" in ends
    assert command == f"#   qsae train --config configs/{kind}-{name}.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*((name, "transcoder") for name in PUBLISHED), ("gpt2", "sae")])
def test_a_recipe_trains_from_a_model_s_folder(name: str, kind: str, tmp_path: pathlib.Path) -> None:
    """Through the command line, to its evaluations; with as many latents as dimensions, to take seconds."""
    model, text = tmp_path / name, tmp_path / "text.txt"
    PUBLISHED[name].save(model)
    text.write_text("".join(f"Line {n} of {n * n % 97} lines, with {n % 7} words.\n\n" for n in range(1500)))
    arguments = ["train", "--config", str(ROOT / "configs" / f"{kind}-{name}.yaml"), "--expansion", "1"]
    arguments += ["--model", str(model), "--text", str(text), "--context", "64", "--steps", "3"]
    arguments += ["--batch-size", "64", "--statistics-tokens", "256", "--eval-tokens", "128"]
    arguments += ["--buffer-tokens", "1024", "--forward-tokens", "512", "--eval-every", "0"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")], prog_name="qsae")
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob(f"out/*{kind if kind == 'transcoder' else 'matryoshka'}-{name}/*/3")
    assert path.parent.name == ("1-1" if kind == "transcoder" else "1")
    record = json.loads((path / "config.json").read_text())
    width = WIDTHS[name]
    assert (record[kind]["n_latents"], record["sparsity"]["k"]) == (width, round(width / 200))
    assert (record["data_record"]["width"], record["data"]["dataset"]) == (width, None)
    values = json.loads((path / "metrics.json").read_text())["coders"]["coder"]
    assert values["evaluations"].keys() == {"reconstruction", "loss-recovered"}
