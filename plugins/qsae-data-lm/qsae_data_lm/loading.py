"""Loading a language model and its tokenizer, never from pickles, with errors that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file, extract_commit_hash
from transformers.utils.peft_utils import find_adapter_config_file

from qsae_core.errors import DataError
from qsae_data_lm.families import Layout, layout_of
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.placement import Placement
from qsae_data_lm.places import Place, locate, short_name
from qsae_data_lm.pretrained import check_attention, from_pretrained, own_code
from qsae_data_lm.reach import hub_options

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_config(model: str) -> Any:
    """The transformers config of a model.

    Raises:
        DataError: if there is none, or an adapter (LoRA) lies beside it, which would have to be applied.
    """
    config = from_pretrained(transformers.AutoConfig, model, "configuration")
    check_attention(config, model)
    _refuse_adapter(model)
    return config


def _refuse_adapter(model: str) -> None:
    place = locate(model)
    try:
        found = None
        if not place.gguf_file:
            options: dict[str, Any] = {"revision": place.revision, **hub_options(place)}
            found = find_adapter_config_file(place.path, **options)
    except (OSError, ValueError):  # no such file on the hub, or no way to look for it
        return
    if found is not None:
        raise DataError(
            f"{model!r} holds an adapter ({Path(found).name}) beside the model, which would not be applied",
            where="data.model",
            allowed="a model with its adapter merged into its weights, or without one",
            next="merge it, peft.PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...); "
            "for the model without it, give a copy without the files adapter_*",
        )


def find_layout(model: str) -> Layout:
    """Layers and sites of a model, from its config alone.

    Raises:
        DataError: if there is no such model, or its architecture is not known.
    """
    return layout_of(load_config(model), model)


def load_tokenizer(model: str) -> Any:
    """The model's own tokenizer.

    Raises:
        DataError: if there is none, or it is code that comes with the model: a tokenizer that transformers
            would take instead need not give the tokens that the model was trained on.
    """
    place = locate(model)
    directory = place.directory
    if directory is not None and not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise DataError(
            f"{directory} has no tokenizer",
            where="data.model",
            allowed=f"one of {', '.join(_TOKENIZER_FILES)} beside config.json",
            next="save the tokenizer there with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )
    if place.gguf_file is None and _has_own_tokenizer(place):
        raise own_code(model, "tokenizer")
    return from_pretrained(transformers.AutoTokenizer, model, "tokenizer")


def _has_own_tokenizer(place: Place) -> bool:
    try:
        options: dict[str, Any] = {"revision": place.revision, **hub_options(place)}
        return bool(get_tokenizer_config(place.path, **options).get("auto_map"))
    except (OSError, ValueError):  # loading says what is wrong
        return False


def load_model(model: str, layout: Layout, placement: Placement, *, tokenizer: Any = None) -> HfLanguageModel:
    """The model in evaluation mode. Weights come from safetensors or GGUF; pickled ones are refused.

    What was saved without its head (`AutoModel`) has every site, but no logits.

    Args:
        placement: in which format and on which devices.
        tokenizer: what `load_tokenizer` gave, for text of tokens.

    Raises:
        DataError: if the weights are missing, pickled, or do not belong to the config; if they cannot be
            placed so.
    """
    directory = locate(model).directory
    if directory is not None:
        _check_weights(directory)
    options: dict[str, Any] = {**placement.options(layout), "use_safetensors": True}
    if layout.family.attention is not None:
        options["attn_implementation"] = layout.family.attention
    auto: Any = transformers.AutoModelForCausalLM
    if layout.part is not None:
        auto = transformers.AutoModelForImageTextToText
    elif not layout.family.causal:
        auto = transformers.AutoModelForMaskedLM
    part = f"weights ({layout.quantization})" if layout.quantization else "weights"
    loaded, info = from_pretrained(auto, model, part, output_loading_info=True, **options)
    body = f"{loaded.base_model_prefix}."
    missing = sorted(name for name in info["missing_keys"] if name.startswith(body))
    if missing:
        raise DataError(
            f"the weights of {model!r} lack {len(missing)} tensors of the model that its config describes, "
            f"{missing[0]} the first",
            where="data.model",
        )
    has_head = not info["missing_keys"]
    placed = placement.place(loaded, layout)
    name, revision = short_name(model), _commit(locate(model))
    return HfLanguageModel(placed, layout, name, has_head=has_head, tokenizer=tokenizer, revision=revision)


def _commit(place: Place) -> str | None:
    """Of a model on the hub that has been loaded."""
    if Path(place.path).is_dir():
        return None
    config = cached_file(place.path, "config.json", revision=place.revision, local_files_only=True)
    return extract_commit_hash(config, None)


def _check_weights(directory: Path) -> None:
    if any(directory.glob("*.safetensors")):
        return
    pickled = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickled:
        raise DataError(
            f"the weights in {directory} are pickled ({', '.join(pickled[:3])}), which can run any code",
            where="data.model",
            allowed="*.safetensors",
            next='if you trust them, convert them: python -c "import transformers as t; '
            f"t.AutoModelForCausalLM.from_pretrained('{directory}').save_pretrained('{directory}')\"",
        )
    raise DataError(f"{directory} has no weights", where="data.model", allowed="*.safetensors")
