"""Language models: what TransformerLens calls them, and where transformers has their vectors."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, json_settings

_NAMES = pathlib.Path(__file__).with_name("model_names.json")
"""Name on the hub -> TransformerLens 3.9's other names for it, the usual one first."""


class Family(NamedTuple):
    """Where the vectors of a layer pass, as ``MODULE.input`` or ``MODULE.output`` below the layer."""

    layers: str
    sites: Mapping[str, str]
    centred: bool = False
    """Whether TransformerLens can take the mean off the stream: where norms do so too."""
    aliases: Mapping[str, str] = {}
    """Other names of the same vectors -> site."""


def _sites(attn_out: str, resid_mid: str | None, mlp_out: str, mlp_in: str = "mlp") -> dict[str, str]:
    found = {
        "resid_pre": "input",
        "attn_out": f"{attn_out}.output",
        "mlp_in": f"{mlp_in}.input",
        "mlp_out": f"{mlp_out}.output",
        "resid_post": "output",
    }
    return found if resid_mid is None else {**found, "resid_mid": f"{resid_mid}.input"}


_GEMMA = Family(
    "model.layers",
    _sites("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    aliases={"pre_feedforward_layernorm.output": "mlp_in"},
)
FAMILIES: Mapping[str, Family] = {
    "gpt2": Family("transformer.h", _sites("attn", "ln_2", "mlp"), True, {"ln_2.output": "mlp_in"}),
    "gpt_neox": Family("gpt_neox.layers", _sites("attention", None, "mlp"), True),
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "olmo2": Family("model.layers", _sites("post_attention_layernorm", "mlp", "post_feedforward_layernorm")),
    "llama": Family("model.layers", _sites("self_attn", "post_attention_layernorm", "mlp")),
}
"""``model_type`` of a transformers config -> where its vectors are."""
_LIKE_LLAMA = (
    *("mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3", "gpt_oss"),
)
_BY_NAME = (
    ("gpt2", "gpt-?2"),
    ("gpt_neox", "pythia|neox"),
    ("gemma2", "gemma-?2-"),
    ("gemma3_text", "gemma-3-"),
    ("olmo2", "olmo-2"),
    ("llama", r"llama|mistral|mixtral|smollm|qwen(?:1\.5|2|3(?!\.5))|gemma-\db|phi-3|olmoe|gpt-oss"),
)
"""Family -> what the names of its models have in them."""


@functools.cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = json.loads(_NAMES.read_text(encoding="utf-8"))
    return table


@functools.cache
def _known() -> dict[str, str]:
    """What TransformerLens may call a model, in lower case -> its name on the hub."""
    found = {alias.lower(): name for name, aliases in _table().items() for alias in aliases}
    return found | {name.lower(): name for name in _table()}


def name_on_hub(name: str) -> str:
    """Of a model, from what SAELens calls it: TransformerLens' name, or one of the hub, which stays."""
    return _known().get(name.lower(), name)


def name_in_transformer_lens(model: str) -> str | None:
    """TransformerLens' usual name of a model on the hub; None where its table has none."""
    name = _known().get(model.lower())
    return None if name is None else next(iter(_table()[name]), name)


def family_of(model: str) -> Family | None:
    """Of a model on the hub by its name, of a folder by its config.json; None where that is not known."""
    folder = _folder(model)
    if folder is not None:
        try:
            kind = json_settings(file_in(folder, "config.json")).get("model_type")
        except ArtifactError:
            return None
        return FAMILIES.get("llama" if kind in _LIKE_LLAMA else str(kind))
    last = model.lower().rpartition("/")[2]
    return next((FAMILIES[kind] for kind, part in _BY_NAME if re.search(part, last)), None)


def _folder(model: str) -> pathlib.Path | None:
    """The folder that a name is a path of; None where there is none, or it is no path."""
    try:
        folder = pathlib.Path(model).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of no user
        return None


def is_bert(model: str) -> bool:
    """Whether norms are on the stream itself, of which TransformerLens' hooks see the vectors before."""
    return "bert" in model.lower()
