"""Which module of which model is which site: what a module reads and gives, by its path in the base model.

Only what denotes the vectors of the data source ``lm`` is here: in Gemma-2, Gemma-3 and OLMo-2 the MLP's
output is normalised before it is added to the stream, so that ``mlp`` gives no ``mlp_out`` there.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings

LAYER = ("resid_pre", "resid_post")
"""Sites of what any layer reads and gives."""


class Family(NamedTuple):
    """One architecture."""

    layers: str
    """Path of the list of layers."""
    modules: Mapping[str, tuple[str | None, str | None]]
    """Path below a layer -> sites of what the module reads and of what it gives; None: no site."""


_LLAMA = Family(
    "layers",
    {
        "self_attn": (None, "attn_out"),
        "post_attention_layernorm": ("resid_mid", "mlp_in"),
        "mlp": ("mlp_in", "mlp_out"),
    },
)
_GEMMA2 = Family(
    "layers",
    {
        "post_attention_layernorm": (None, "attn_out"),
        "pre_feedforward_layernorm": ("resid_mid", "mlp_in"),
        "mlp": ("mlp_in", None),
        "post_feedforward_layernorm": (None, "mlp_out"),
    },
)
_BERT = Family(
    "encoder.layer",
    {
        "attention.output.dense": (None, "attn_out"),
        "attention": (None, "resid_mid"),
        "intermediate": ("mlp_in", None),
        "output.dense": (None, "mlp_out"),
    },
)
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "h",
        {"attn": (None, "attn_out"), "ln_2": ("resid_mid", "mlp_in"), "mlp": ("mlp_in", "mlp_out")},
    ),
    "gpt_neox": Family(
        "layers",
        {
            "attention": (None, "attn_out"),
            "post_attention_layernorm": (None, "mlp_in"),
            "mlp": ("mlp_in", "mlp_out"),
        },
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "ministral3", "phi3", "gemma"), _LLAMA),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3", "gpt_oss"), _LLAMA),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": Family(
        "layers",
        {
            "post_attention_layernorm": (None, "attn_out"),
            "mlp": ("mlp_in", None),
            "post_feedforward_layernorm": (None, "mlp_out"),
        },
    ),
    "opt": Family("decoder.layers", {"self_attn": (None, "attn_out"), "fc2": (None, "mlp_out")}),
    "bert": _BERT,
    "roberta": _BERT,
}
"""``config.model_type`` -> what its modules are."""
NAMES = (
    (r"gemma-?2-", "gemma2"),
    (r"gemma-?3-(270m|1b)", "gemma3_text"),
    (r"gemma-(2b|7b)", "gemma"),
    (r"gpt2", "gpt2"),
    (r"pythia|gpt-neox", "gpt_neox"),
    (r"smollm-|smollm2|llama-?[23](?!.*vision)|distill-llama|tinyllama|vicuna|^builtin$", "llama"),
    (r"smollm3", "smollm3"),
    (r"qwen-?2(\.5)?-(?!vl|audio|omni)|qwen1\.5-|distill-qwen", "qwen2"),
    (r"qwen3-(?!vl|next|omni)", "qwen3"),
    (r"mistral-7b", "mistral"),
    (r"phi-3(\.5)?-mini|phi-4$", "phi3"),
    (r"olmo-?2-", "olmo2"),
    (r"^opt-", "opt"),
    (r"roberta-(base|large)$", "roberta"),
    (r"^bert-(base|large)", "bert"),
)
"""Names of published models, and their architectures."""
KNOWN_LAYERS = frozenset(family.layers for family in FAMILIES.values())


def family_of(model: str | None) -> Family | None:
    """Of a model's folder, by its ``config.json``, or of a name on the Hub; None where it is not known."""
    if model is None:
        return None
    folder = pathlib.Path(model)
    try:
        return FAMILIES.get(str(json_settings(file_in(folder, "config.json")).get("model_type")))
    except (ArtifactError, OSError, ValueError):  # it is a name, or a folder of something else
        name = model.rstrip("/").rpartition("/")[2].partition("@")[0].lower()
        return next((FAMILIES[kind] for pattern, kind in NAMES if re.search(pattern, name)), None)
