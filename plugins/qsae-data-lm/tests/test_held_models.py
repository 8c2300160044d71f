"""Models of images and text from disk: the language model that they hold is read and scored on text alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm import LmConfig
from qsae_data_lm.loading import find_layout, load_model
from qsae_data_lm.placement import Placement
from qsae_data_lm.sites_command import describe
from qsae_data_lm.source import LmSource
from safetensors.torch import load_file, save_file

from qsae_core.contracts import Site
from qsae_core.errors import DataError

Saved = Callable[[str], Path]


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Any, make_held: Callable[[str, int], Any]) -> Saved:
    """A directory with a random model of a family and the built-in model's tokenizer."""

    def save(name: str) -> Path:
        torch.manual_seed(0)
        make_held(name, len(tokenizer)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", ["gemma3", "llava", "mistral3", "qwen2_5_vl", "smolvlm"])
def test_text_is_read_and_predicted_by_the_language_model_inside(saved: Saved, text: Path, name: str) -> None:
    """Against the language model alone, taken out of the whole."""
    folder = saved(name)
    config = LmConfig(model=str(folder), text=str(text), context=32, buffer_tokens=256, dtype="fp32")
    source = LmSource(config)
    assert source.describe()["architecture"] == find_layout(str(folder)).model_type == name
    tokens, batch = next(source.held_out_contexts(60, 64))
    whole = t.AutoModelForImageTextToText.from_pretrained(folder).eval()
    inside = whole.model.text_model if name == "smolvlm" else whole.model.language_model
    with torch.no_grad():
        alone = inside(input_ids=tokens.ids, output_hidden_states=True)
    torch.testing.assert_close(batch.x, alone.hidden_states[2][tokens.counted])
    lm = source.language_model()
    assert lm.has_logits
    torch.testing.assert_close(lm.logits(tokens), whole.lm_head(alone.last_hidden_state).detach())


def test_sites_names_the_language_model(saved: Saved) -> None:
    described = describe(find_layout(str(saved("llava"))))
    assert (described["architecture"], described["language_model"]) == ("llava", "llama")
    assert described["layers"] == 3


def test_weights_that_lack_a_layer_of_the_language_model_are_refused(saved: Saved) -> None:
    folder = saved("llava")
    weights = {name: w.clone() for name, w in load_file(folder / "model.safetensors").items()}
    kept = {name: w for name, w in weights.items() if "layers.2.mlp.up_proj" not in name or "vision" in name}
    assert len(kept) == len(weights) - 1
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lack 1 tensors"):
        load_model(str(folder), find_layout(str(folder)), Placement(torch.float32, "cpu"))


def test_a_transcoder_reads_both_sites_of_a_held_model(saved: Saved, text: Path) -> None:
    options = {"source_site": "mlp_in", "target_site": "mlp_out", "context": 32, "dtype": "fp32"}
    source = LmSource(LmConfig(model=str(saved("gemma3")), text=str(text), buffer_tokens=256, **options))
    batch = source.next_batch(20)
    layer = source.language_model().model.model.language_model.layers[1]
    torch.testing.assert_close(layer.post_feedforward_layernorm(layer.mlp(batch.x)), batch.y)
    assert source.target_sites == (Site(1, "mlp_out"),)
