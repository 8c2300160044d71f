"""Which vectors a coder is for: SAELens' words for them, and this framework's places.

A place is ``LAYER.SITE``. Hooks that see other vectors than any site (``hook_z``, ``ln2.hook_normalized``,
``hook_mlp_in``, a stream whose mean was taken off) have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qsae_core.contracts import Provenance
from qsae_format_saelens.models import (
    FAMILIES,
    Family,
    family_of,
    is_bert,
    name_in_transformer_lens,
    name_on_hub,
)
from qsae_format_saelens.understood import Understood

_HOOK = re.compile(
    r"blocks\.(\d{1,4})\.(?:hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)|mlp\.hook_(in))"
)
"""Of TransformerLens; the last one is of its bridges alone."""
_BEHIND_NORMS = ("resid_mid", "resid_post")
CENTRED = "center_writing_weights"


def provenance_of(found: Understood) -> Provenance:
    """What cfg.json says of where the vectors are from."""
    metadata = found.metadata
    context, dataset = metadata.get("context_size"), metadata.get("dataset_path")
    model = _model(found)
    source = None if is_centred(found) else place_of(metadata, model, "")
    target = place_of(metadata, model, "_out") if is_transcoder(found) else source
    known = source is not None and target is not None
    return Provenance(
        model,
        (source,) if known and source else (),
        (target,) if known and target else (),
        context if type(context) is int and context > 0 else None,
        dataset if isinstance(dataset, str) and dataset else None,
    )


def is_transcoder(found: Understood) -> bool:
    """Whether it reconstructs other vectors than those that it reads."""
    other = found.metadata.get("hook_name_out")
    return found.rule.kind.is_transcoder or (other is not None and other != found.metadata.get("hook_name"))


def is_centred(found: Understood) -> bool:
    """Whether its place is in a model from whose stream TransformerLens takes the mean off: where cfg.json
    says so, and before version 6, where it says nothing of how the model is loaded."""
    model, metadata = _model(found), found.metadata
    family = None if model is None else family_of(model)
    mended = metadata.get("hf_hook_name") is not None or (family is not None and not family.centred)
    if mended or place_of(metadata, model, "") is None:
        return False
    options = metadata.get("model_from_pretrained_kwargs")
    if not isinstance(options, Mapping):
        return found.is_old
    return bool(options.get(CENTRED, found.is_old))


def _model(found: Understood) -> str | None:
    name = found.metadata.get("model_name")
    return name_on_hub(name) if isinstance(name, str) and name else None


def place_of(metadata: Mapping[str, Any], model: str | None, side: str) -> str | None:
    """The place that metadata names.

    Args:
        side: ``_out`` for what is reconstructed, else empty.
    """
    if metadata.get(f"hook_head_index{side}") is not None:
        return None
    module, hook = metadata.get(f"hf_hook_name{side}"), metadata.get(f"hook_name{side}")
    if metadata.get("model_class_name") == "AutoModelForCausalLM":
        module, hook = module or hook, None
    place = _place_of_module(module, model) if isinstance(module, str) else None
    return place or (_place_of_hook(hook, model) if isinstance(hook, str) else None)


def _place_of_hook(hook: str, model: str | None) -> str | None:
    match = _HOOK.fullmatch(hook)
    if match is None:
        return None
    site = match[2] or "mlp_in"
    if model is not None and is_bert(model) and site in _BEHIND_NORMS:
        return None
    return f"{int(match[1])}.{site}"


def _place_of_module(name: str, model: str | None) -> str | None:
    """Of ``PATH.input``, ``PATH.output``, or the path of a module, whose output is meant."""
    if not name.endswith((".input", ".output")):
        name += ".output"
    family = None if model is None else family_of(model)
    for known in FAMILIES.values() if family is None else (family,):
        match = re.fullmatch(rf"{re.escape(known.layers)}\.(\d{{1,4}})\.(.+)", name)
        if match is None:
            continue
        sites = {at: site for site, at in known.sites.items()} | dict(known.aliases)
        site = sites.get(match[2])
        # without a model's family, what all of them call so: a layer's own input and output
        if site is not None and (family is not None or match[2] in ("input", "output")):
            return f"{int(match[1])}.{site}"
    return None


def metadata_of(provenance: Provenance) -> dict[str, Any]:
    """What cfg.json should say of where the vectors are from, as far as that is known."""
    found: dict[str, Any] = {}
    model = provenance.model if _is_language_model(provenance) else None
    if model is not None:
        found["model_name"] = name_in_transformer_lens(model) or model
        found["model_from_pretrained_kwargs"] = {}
        found["prepend_bos"] = True
        if name_in_transformer_lens(model) is not None:
            found["model_class_name"] = "HookedTransformer"
    family = None if model is None else family_of(model)
    sides = {"": provenance.sources}
    if provenance.targets != provenance.sources:
        sides["_out"] = provenance.targets
    for side, places in sides.items():
        if len(places) == 1:
            layer, _, site = places[0].partition(".")
            found |= _words(layer, site, family, side)
    values = {"context_size": provenance.context, "dataset_path": provenance.dataset}
    return found | {name: value for name, value in values.items() if value is not None}


def _is_language_model(provenance: Provenance) -> bool:
    """Whether the model's name is one of a language model, and not of a file of vectors."""
    model = provenance.model or ""
    return bool(provenance.sources) or "/" in model or name_in_transformer_lens(model) is not None


def _words(layer: str, site: str, family: Family | None, side: str) -> dict[str, Any]:
    hook = "mlp.hook_in" if site == "mlp_in" else f"hook_{site}"
    found = {f"hook_name{side}": f"blocks.{layer}.{hook}"}
    if family is not None and site in family.sites:
        found[f"hf_hook_name{side}"] = f"{family.layers}.{layer}.{family.sites[site]}"
    return found
