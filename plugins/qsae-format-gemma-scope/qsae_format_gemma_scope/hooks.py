"""Where Gemma Scope 2 says its vectors are: in config.json, or else in the names of folders."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core.contracts import Provenance

SITES = {
    "input": "resid_pre",
    "post_attention_layernorm.output": "attn_out",
    "pre_feedforward_layernorm.input": "resid_mid",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
    "output": "resid_post",
}
"""A place in a layer of Gemma 3 (and 2) in transformers -> the site. ``self_attn.o_proj.input``, the outputs
of all heads, is none."""
HOOK = re.compile(r"model\.layers\.(\d{1,4}|\{all\}|\{\d{1,4}(?:,\d{1,4})*\})\.([a-z_.]{1,80})")
HEADS = "it is for the outputs of all heads, before the output projection: no site of a model here"
REPOSITORY = re.compile(r"(?:models--google--)?gemma-scope-2-((?:270m|1b|4b|12b|27b)-(?:pt|it))")
FOLDER = re.compile(
    r"(resid_post|attn_out|mlp_out|transcoder|crosscoder|clt)(?:_all)?"
    r"/(?:layer_(\d{1,4}(?:_\d{1,4})*)_)?width_\d{1,9}[km]?(?:_l0_[a-z]+)?(_affine)?(?:_seed_\d{1,4})?"
)
HOOKS_OF = {
    "resid_post": ("output", "output"),
    "attn_out": ("self_attn.o_proj.input", "self_attn.o_proj.input"),
    "mlp_out": ("post_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
    "crosscoder": ("output", "output"),
    "clt": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}
"""Kind of folder -> what of a layer is encoded, and what is reconstructed."""
MODEL = re.compile(r"(?:google/)?gemma-v?3-(270m|1b|4b|12b|27b)-(pt|it)")


def model_of(name: Any) -> str | None:
    """As the Hub names the model: the pretrained one of 270M has no ``-pt`` there, and none has a ``v``."""
    if not isinstance(name, str) or not name:
        return None
    match = MODEL.fullmatch(name)
    if match is None:
        return name
    return (
        "google/gemma-3-270m" if match.groups() == ("270m", "pt") else f"google/gemma-3-{match[1]}-{match[2]}"
    )


def provenance_of(settings: Mapping[str, Any], n_layers: int) -> Provenance:
    """Of a config.json, checked before; places that have no name here are left out."""
    sources = places_of(settings.get("hf_hook_point_in"), n_layers)
    targets = places_of(settings.get("hf_hook_point_out", settings.get("hf_hook_point_in")), n_layers)
    known = bool(sources) and len(sources) == len(targets)
    return Provenance(model_of(settings.get("model_name")), *((sources, targets) if known else ((), ())))


def places_of(hook: Any, n_layers: int) -> tuple[str, ...]:
    """``model.layers.{7,13}.output`` -> ``7.resid_post``, ``13.resid_post``; nothing, where it is no site."""
    match = HOOK.fullmatch(hook) if isinstance(hook, str) else None
    if match is None or match[2] not in SITES:
        return ()
    layers = layers_of(hook, n_layers)
    return tuple(f"{layer}.{SITES[match[2]]}" for layer in layers) if len(layers) == n_layers else ()


def layers_of(hook: Any, n_layers: int) -> tuple[int, ...]:
    """The layers that a hook names."""
    match = HOOK.fullmatch(hook) if isinstance(hook, str) else None
    if match is None:
        return ()
    if match[1] == "{all}":
        return tuple(range(n_layers))
    return tuple(map(int, match[1].strip("{}").split(",")))


def hook_of(provenance: Provenance, places: Sequence[str]) -> str | None:
    """What config.json calls these places; None of models with other modules, and where it has no word."""
    if not places or re.search(r"gemma-[23]\b", provenance.model or "") is None:
        return None
    modules = {site: module for module, site in SITES.items()}
    layers, sites = zip(*(place.split(".", 1) for place in places), strict=True)
    if len(set(sites)) > 1 or sites[0] not in modules:
        return None
    named = layers[0] if len(layers) == 1 else "{" + ",".join(layers) + "}"
    return f"model.layers.{named}.{modules[sites[0]]}"


def told_by_folders(folder: pathlib.Path) -> dict[str, Any]:
    """Settings of a folder without config.json, as far as its name, its parent's and its repository's say."""
    parts = pathlib.Path(os.path.abspath(folder)).parts  # the Hub's cache has links, so not resolved
    match = FOLDER.fullmatch("/".join(parts[-2:]))
    if match is None:
        return {}
    kind, layers = match[1], match[2] or "{all}"
    layers = "{" + layers.replace("_", ",") + "}" if "_" in layers else layers
    repositories = [REPOSITORY.fullmatch(part) for part in reversed(parts)]
    model = next((f"google/gemma-3-{found[1]}" for found in repositories if found), None)
    told: dict[str, Any] = {
        f"hf_hook_point_{side}": f"model.layers.{layers}.{hook}"
        for side, hook in zip(("in", "out"), HOOKS_OF[kind], strict=True)
    }
    told |= {} if model is None else {"model_name": model}
    return told | {"type": kind if kind in ("transcoder", "crosscoder", "clt") else "sae"}
