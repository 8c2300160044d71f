"""Number formats, devices and quantized weights of the model that is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from qsae_data_lm import LmConfig
from qsae_data_lm.families import layout_of
from qsae_data_lm.hooks import find_layers, spliced
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.loading import find_layout
from qsae_data_lm.placement import Placement, choose_dtype
from qsae_data_lm.places import BUILTIN
from qsae_data_lm.source import LmSource

from qsae_core.contracts import Edit, Site, TokenBatch
from qsae_core.errors import DataError


@pytest.fixture
def opened(tiny: Path, text: Path) -> Callable[..., LmSource]:
    def open_(**options: Any) -> LmSource:
        small = {"model": str(tiny), "text": str(text), "context": 32, "buffer_tokens": 256}
        return LmSource(LmConfig(**{"dtype": "fp32", **small, **options}))

    return open_


def missing(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in libraries else find(name))


def test_number_formats() -> None:
    assert choose_dtype("bf16", "cpu") is torch.bfloat16
    assert choose_dtype("fp16", "cpu") is torch.float16
    assert choose_dtype("fp32", "cuda") is torch.float32
    assert choose_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_half_format_is_what_the_model_computes_in(
    opened: Callable[..., LmSource], name: str, dtype: torch.dtype
) -> None:
    source = opened(dtype=name)
    x = source.next_batch(50).x
    assert x.dtype == torch.float32
    assert torch.equal(x, x.to(dtype).float())
    assert source.describe()["dtype"] == str(dtype).removeprefix("torch.")
    torch.testing.assert_close(x, opened().next_batch(50).x, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential", {"": "cpu"}])
def test_a_device_map_gives_the_same_vectors(
    opened: Callable[..., LmSource], device_map: str | dict[str, str]
) -> None:
    """On a machine without a GPU all of the model is in memory, whatever the map."""
    if torch.cuda.is_available() and device_map != {"": "cpu"}:
        pytest.skip("the model would be on a GPU")
    source, plain = opened(device_map=device_map), opened()
    assert torch.equal(source.next_batch(50).x, plain.next_batch(50).x)
    assert source.state_dict() == plain.state_dict()
    tokens, _ = next(source.held_out_contexts(30, 64))
    edits = {Site(1, "mlp_out"): Edit(lambda vectors, _: vectors * 2)}
    assert torch.equal(
        source.language_model().logits(tokens, edits), plain.language_model().logits(tokens, edits)
    )


def test_several_processes_of_a_machine_do_not_spread_over_the_same_gpus(
    opened: Callable[..., LmSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for device_map in ("auto", {"model": 0, "lm_head": 1}):
        with pytest.raises(DataError, match="the copy of the model of each of 2 processes") as caught:
            opened(device_map=device_map)
        assert caught.value.where == "data.device_map"
    assert len(opened(device_map={"": "cpu"}).next_batch(5)) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # each has the GPUs of a machine for itself
    monkeypatch.setenv("LOCAL_RANK", "0")
    if not torch.cuda.is_available():
        assert len(opened(device_map="auto").next_batch(5)) == 5


def test_a_map_over_modules_is_taken_and_a_wrong_one_is_refused(opened: Callable[..., LmSource]) -> None:
    whole = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
    assert len(opened(device_map=dict.fromkeys(whole, "cpu")).next_batch(5)) == 5
    with pytest.raises(DataError, match=r"no device is named for model\.layers\.0") as caught:
        opened(device_map={"model.embed_tokens": "cpu"})
    assert str(caught.value.where) == "data.device_map"
    with pytest.raises(DataError, match=r"the model has no model\.layer\n"):
        opened(device_map={**dict.fromkeys(whole, "cpu"), "model.layer": "cpu"})


def test_what_finds_no_place_on_the_gpus_is_refused(tiny: Path) -> None:
    layout = find_layout(str(tiny))
    placement = Placement(torch.bfloat16, "cuda", device_map="auto")
    parts = {"model.embed_tokens": 0, "model.layers.0": 1, "model.layers.1": "cpu", "lm_head": "disk"}
    with pytest.raises(DataError, match=r"2 of 4 parts .* \(model.layers.1 the first\)") as caught:
        placement.place(SimpleNamespace(hf_device_map=parts), layout)
    assert "--load-in 8bit" in str(caught.value.next)
    for fits in ({"a": 0, "b": 1}, {"": "cpu"}, {}):
        model = SimpleNamespace(hf_device_map=fits)
        assert placement.place(model, layout) is model
    with pytest.raises(DataError, match="find no place"):
        placement.place(SimpleNamespace(hf_device_map={"": "disk"}), layout)


def test_an_edit_has_its_vectors_on_one_device_and_the_layer_gets_them_on_its_own(
    make_lm: Callable[[str, str], HfLanguageModel], batch: TokenBatch
) -> None:
    """No second device is here: in its place edits are given float32 of a model in bf16, through the same
    conversion, which takes the device along."""
    lm = make_lm("llama", "llama")
    lm.model.bfloat16()
    seen: list[torch.Tensor] = []

    def look(vectors: torch.Tensor, read: Any) -> torch.Tensor:
        seen.extend([vectors, *read.values()])
        return vectors

    edits = {Site(1, "mlp_out"): Edit(look, (Site(0, "resid_post"),))}
    layers, family = find_layers(lm.model, lm.layout.family), lm.layout.family
    meta = torch.device("meta")
    with spliced(layers, family, edits, meta, n_contexts=2), pytest.raises(NotImplementedError, match="meta"):
        lm.model(batch.ids)  # a meta tensor cannot come back; it got there, and was asked to
    assert [(v.device, v.dtype) for v in seen] == [(meta, torch.float32)] * 2
    with spliced(layers, family, edits, torch.device("cpu"), n_contexts=2):
        assert torch.equal(lm.model(batch.ids).logits, lm.model(batch.ids).logits)


def test_missing_libraries_are_named(
    opened: Callable[..., LmSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch, "bitsandbytes", "accelerate")
    with pytest.raises(DataError, match="load_in: 4bit needs `bitsandbytes` and `accelerate`") as caught:
        opened(load_in="4bit")
    assert caught.value.next == "pip install 'qsae-data-lm[quantized]'"
    with pytest.raises(DataError, match="device_map needs `accelerate`") as caught:
        opened(device_map="auto")
    assert caught.value.next == "pip install 'qsae-data-lm[device-map]'"


def test_weights_that_are_quantized_are_not_quantized_again() -> None:
    config = SimpleNamespace(
        model_type="llama",
        num_hidden_layers=2,
        hidden_size=8,
        quantization_config={"quant_method": "gptq"},
        get_text_config=lambda: config,
    )
    placement = Placement(torch.float32, "cpu", load_in="8bit")
    with pytest.raises(DataError, match=r"is stored quantized \(gptq\), so it cannot be loaded in 8bit too"):
        placement.options(layout_of(config, "some/model"))


@pytest.mark.parametrize(("load_in", "least", "most"), [("8bit", 1e-4, 0.05), ("4bit", 0.01, 0.3)])
def test_quantized_weights_give_vectors_near_the_model_s(
    text: Path, load_in: str, least: float, most: float
) -> None:
    """Of the built-in model, on a CPU: the share of the variance that is lost to rounding its weights."""
    pytest.importorskip("bitsandbytes")
    options = {"text": str(text), "context": 64, "buffer_tokens": 512, "dtype": "fp32", "layer": 2}
    source, plain = LmSource(LmConfig(**options, load_in=load_in)), LmSource(LmConfig(**options))
    x, exact = source.next_batch(300).x, plain.next_batch(300).x
    lost = (x - exact).square().sum() / (exact - exact.mean(0)).square().sum()
    assert least < lost < most
    assert source.describe()["load_in"] == load_in
    assert len(source.state_dict()["fingerprints"]["model"]) == 16
    tokens, _ = next(source.held_out_contexts(50, 64))
    assert source.language_model().logits(tokens).isfinite().all()


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_model_that_was_saved_quantized_is_read_as_it_is(
    opened: Callable[..., LmSource], tmp_path: Path, bits: str
) -> None:
    pytest.importorskip("bitsandbytes")
    how = transformers.BitsAndBytesConfig(**{f"load_in_{bits}": True})
    made = transformers.AutoModelForCausalLM.from_pretrained(
        BUILTIN, quantization_config=how, device_map={"": "cpu"}, dtype=torch.float32
    )
    made.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(BUILTIN).save_pretrained(tmp_path)
    stored, loaded = opened(model=str(tmp_path)), opened(model="builtin", load_in=bits)
    torch.testing.assert_close(stored.next_batch(50).x, loaded.next_batch(50).x)
    with pytest.raises(DataError, match=r"is stored quantized \(bitsandbytes\)"):
        opened(model=str(tmp_path), load_in=bits)
