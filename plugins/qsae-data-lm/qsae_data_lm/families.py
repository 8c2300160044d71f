"""Where the sites are: one row per architecture family, read by `hooks` and by `qsae sites`.

A layer (block) of index l maps the residual stream `resid_pre` to `resid_post`:

    pre-norm (GPT-2, Llama, Gemma, ...)        resid_mid = resid_pre + attn_out
                                               resid_post = resid_mid + mlp_out
    parallel (GPT-NeoX)                        resid_post = resid_pre + attn_out + mlp_out; no resid_mid
    post-norm (BERT, OPT-350m)                 resid_mid = LN(resid_pre + attn_out)
                                               resid_post = LN(resid_mid + mlp_out)

So `attn_out` and `mlp_out` are always the vectors that are added to the stream: behind the biases, and in
Gemma-2, Gemma-3 and OLMo-2 behind the post-norms. `mlp_in` is what the MLP, or a mixture of experts and its
router, multiplies by its first matrix: behind the pre-norm and its scale; without one (BERT, OLMo-2,
OPT-350m) it equals `resid_mid`. Of a model of images and text the language model that it holds is read, with
the row of its own architecture. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qsae_core import SITE_NAMES
from qsae_core.errors import DataError


@dataclass(frozen=True)
class Tap:
    """Where a site's vector passes.

    Attributes:
        module: path below the layer; empty for the layer itself.
        side: what the vector is of that module: its (first) input or its (first) output.
        bypassed: the vector also goes around the module, straight into the layer's output; a replacement
            has to reach both.
    """

    module: str
    side: Literal["input", "output"]
    bypassed: bool = False


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        layers: path of the list of layers from the model; the first that exists is taken.
        taps: site -> where it passes.
        absent_where: site -> (config flag, reason): in a model whose flag is true the site does not exist.
        causal: position t sees only positions up to t and predicts t + 1.
        attention: the implementation to ask transformers for, where the default would leave something out.
        positions_behind_padding: position embeddings up to that of the padding's id are never used.
        unless: (config flag, row): in a model whose flag is false that row holds instead.
    """

    layers: tuple[str, ...]
    taps: Mapping[str, Tap]
    absent_where: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    causal: bool = True
    attention: str | None = None
    positions_behind_padding: bool = False
    unless: tuple[str, Family] | None = None


def _taps(attn_out: str, resid_mid: str, mlp_out: str, mlp_in: str = "mlp") -> dict[str, Tap]:
    """A block of two residual branches; the arguments name modules."""
    return {
        "resid_pre": Tap("", "input"),
        "attn_out": Tap(attn_out, "output"),
        "resid_mid": Tap(resid_mid, "input", bypassed=True),
        "mlp_in": Tap(mlp_in, "input"),
        "mlp_out": Tap(mlp_out, "output"),
        "resid_post": Tap("", "output"),
    }


_LLAMA = Family(("model.layers",), _taps("self_attn", "post_attention_layernorm", "mlp"))
_GEMMA_TAPS = _taps("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
_BERT_TAPS = {
    **_taps("attention.output.dense", "", "output.dense", mlp_in="intermediate"),
    "resid_mid": Tap("attention", "output"),
}
_OPT_LAYERS = ("model.decoder.layers",)
_OPT_POST_NORM_TAPS = {
    **_taps("self_attn", "", "fc2", mlp_in="fc1"),
    "resid_mid": Tap("self_attn_layer_norm", "output"),
}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(("transformer.h",), _taps("attn", "ln_2", "mlp")),
    "gpt_neox": Family(
        ("gpt_neox.layers",),
        _taps("attention", "post_attention_layernorm", "mlp"),
        absent_where={
            "resid_mid": (
                "use_parallel_residual",
                "attention and MLP read the same residual stream in parallel, so nothing lies between them",
            )
        },
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "ministral3": _LLAMA,
    "phi3": _LLAMA,
    "gemma": _LLAMA,
    "olmo2": Family(
        ("model.layers",), _taps("post_attention_layernorm", "mlp", "post_feedforward_layernorm")
    ),
    "mixtral": _LLAMA,
    "qwen2_moe": _LLAMA,
    "qwen3_moe": _LLAMA,
    "olmoe": _LLAMA,
    "deepseek_v3": _LLAMA,
    "gpt_oss": _LLAMA,
    "opt": Family(
        _OPT_LAYERS,
        _taps("self_attn", "final_layer_norm", "fc2", mlp_in="fc1"),
        unless=("do_layer_norm_before", Family(_OPT_LAYERS, _OPT_POST_NORM_TAPS)),
    ),
    # Other implementations of attention leave the soft cap of Gemma-2's scores out.
    "gemma2": Family(("model.layers",), _GEMMA_TAPS, attention="eager"),
    "gemma3_text": Family(("model.layers",), _GEMMA_TAPS),
    "bert": Family(("bert.encoder.layer",), _BERT_TAPS, causal=False),
    "roberta": Family(("roberta.encoder.layer",), _BERT_TAPS, causal=False, positions_behind_padding=True),
}
"""`config.model_type` -> its row."""

PARTS = {
    **FAMILIES,
    "qwen2_vl_text": _LLAMA,
    "qwen2_5_vl_text": _LLAMA,
    "qwen3_vl_text": _LLAMA,
    "qwen3_vl_moe_text": _LLAMA,
}
"""Language models that other models hold, by the `model_type` of their part of the config."""
_LANGUAGE_MODEL = "model.language_model.layers"
HOLDERS = {
    **dict.fromkeys(("gemma3", "mistral3", "internvl"), _LANGUAGE_MODEL),
    **dict.fromkeys(("llava", "llava_next", "llava_onevision"), _LANGUAGE_MODEL),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"), _LANGUAGE_MODEL),
    **dict.fromkeys(("idefics3", "smolvlm"), "model.text_model.layers"),
}
"""`config.model_type` of a model of images and text -> the path of the layers of the language model that it
holds, which is read on text alone."""


@dataclass(frozen=True)
class Layout:
    """What one model offers, known from its config alone.

    Attributes:
        model: how the user named it.
        model_type: the architecture.
        n_layers: layers 0 to n_layers - 1.
        width: of every site's vector.
        family: the architecture's row.
        taps: the sites that this model has.
        absent: site -> why this model does not have it.
        quantization: the method that its weights are stored with (gptq, awq, ...), if any.
        part: the architecture of the language model, where the model is one of images and text that holds it.
    """

    model: str
    model_type: str
    n_layers: int
    width: int
    family: Family
    taps: Mapping[str, Tap]
    absent: Mapping[str, str]
    quantization: str | None = None
    part: str | None = None

    def check(self, layer: int, site: str) -> None:
        """Raises DataError if the model has no such layer or site."""
        listing = f"`qsae sites {self.model}` lists layers and sites"
        if not 0 <= layer < self.n_layers:
            raise DataError(
                f"no layer {layer}: {self.model} has {self.n_layers} layers",
                where="data: layers",
                allowed=f"0 to {self.n_layers - 1}",
                next=listing,
            )
        if site not in self.taps:
            reason = self.absent.get(site, "there is no site of this name")
            raise DataError(
                f"no site {site!r} in {self.model} ({self.model_type}): {reason}",
                where="data: sites",
                allowed=", ".join(s for s in SITE_NAMES if s in self.taps),
                next=listing,
            )


def layout_of(config: Any, model: str) -> Layout:
    """The layout of a model, from its transformers config.

    Raises:
        DataError: if the architecture is not in the table.
    """
    text, path = config.get_text_config(), HOLDERS.get(config.model_type)
    part = None if path is None else text.model_type
    family = FAMILIES.get(config.model_type) if path is None else PARTS.get(text.model_type)
    if family is None:
        kind = f"the architecture {config.model_type!r}" + ("" if part is None else f" around {part!r}")
        raise DataError(
            f"{model} is of {kind}, whose sites are not known",
            where="data.model",
            allowed=", ".join(sorted([*FAMILIES, *HOLDERS])),
        )
    if path is not None:
        family = replace(family, layers=(path,))
    if family.unless is not None and not getattr(text, family.unless[0]):
        family = family.unless[1]
    absent = {site: reason for site, (flag, reason) in family.absent_where.items() if getattr(text, flag)}
    taps = {site: tap for site, tap in family.taps.items() if site not in absent}
    method = getattr(config, "quantization_config", None) or {}
    return Layout(
        model,
        config.model_type,
        text.num_hidden_layers,
        text.hidden_size,
        family,
        taps,
        absent,
        quantization=method.get("quant_method"),
        part=part,
    )
