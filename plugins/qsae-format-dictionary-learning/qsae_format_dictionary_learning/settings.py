"""``config.json``: which vectors a coder is for, and a configuration for one that has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qsae_core import SITE_NAMES
from qsae_core.contracts import Checkpoint, Provenance
from qsae_core.errors import ArtifactError
from qsae_format_dictionary_learning.classes import DICT_CLASSES, SPELLINGS
from qsae_format_dictionary_learning.writing import Written

BOTH_SIDES = "in_and_out"
"""``buffer.io`` of a transcoder."""
OF_CLASS = ("dict_class", "trainer_class", "k", "group_sizes")
"""What ``trainer`` says of the class."""
RESID_POST = re.compile(r"resid_post_layer_(\d+)")
"""``submodule_name`` by the convention of the library's own examples: what a layer gives."""
PLACES = re.compile(rf"(\d+\.(?:{'|'.join(SITE_NAMES)}))(?:-(\d+\.(?:{'|'.join(SITE_NAMES)})))?")
"""``submodule_name`` as it is written here for any other place, and of a transcoder for both."""


def section(config: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """``trainer`` or ``buffer``; empty where it is missing.

    Raises:
        ArtifactError: if it is no mapping.
    """
    found = config.get(name, {})
    if not isinstance(found, Mapping):
        raise ArtifactError(f"{name} is {type(found).__name__}, not a mapping", where=where)
    return found


def dict_class(trainer: Mapping[str, Any]) -> str | None:
    """The name of the class, as it is spelled today; None where it is not said."""
    found = trainer.get("dict_class")
    return SPELLINGS.get(found, found) if isinstance(found, str) else None


def whole_number(values: Mapping[str, Any], name: str, where: str) -> int | None:
    """A number above 0; None where it is missing.

    Raises:
        ArtifactError: if it is anything else.
    """
    found = values.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ArtifactError(f"{name} is {found!r}", where=where, allowed="a whole number above 0")
    return found


def layer_of(config: Mapping[str, Any], where: str) -> int | None:
    """Of the vectors, from 0; None where it is not known."""
    found = section(config, "trainer", where).get("layer")
    known = isinstance(found, int) and not isinstance(found, bool) and found >= 0
    return found if known else None


def provenance_of(config: Mapping[str, Any], where: str) -> Provenance:
    """What is known; a submodule by any other name may be any."""
    trainer, buffer = (section(config, name, where) for name in ("trainer", "buffer"))
    model, named = trainer.get("lm_name"), trainer.get("submodule_name")
    known: dict[str, Any] = {"model": model} if isinstance(model, str) and model else {}
    length = buffer.get("ctx_len")
    if isinstance(length, int) and not isinstance(length, bool) and length > 0:
        known["context"] = length
    named = named if isinstance(named, str) else ""
    layer, resid, places = layer_of(config, where), RESID_POST.fullmatch(named), PLACES.fullmatch(named)
    if resid and layer == int(resid[1]) and buffer.get("io", "out") == "out":
        return Provenance.at(layer, "resid_post", **known)
    if places:
        return Provenance(sources=(places[1],), targets=(places[2] or places[1],), **known)
    return Provenance(**known)


def submodule_name(provenance: Provenance) -> str | None:
    """What ``provenance_of`` reads; None where the places are not known, or are several."""
    if len(provenance.sources) != 1 or len(provenance.targets) != 1:
        return None
    (source,), (target,) = provenance.sources, provenance.targets
    layer, _, site = source.partition(".")
    if source == target and site == "resid_post":
        return f"resid_post_layer_{layer}"
    return source if source == target else f"{source}-{target}"


def folder_name(checkpoint: Checkpoint, where: str) -> str:
    """Of one of several coders: its submodule's.

    Raises:
        ArtifactError: if its place is not known.
    """
    name = submodule_name(checkpoint.provenance)
    if name is None:
        raise ArtifactError(
            "it is not known of which layer it is, by which the library's folders are told apart",
            where=where,
            allowed="coders of known places of a language model",
            next="export one of them: give the folder of its layer",
        )
    return name


def config_of(checkpoint: Checkpoint, written: Written) -> dict[str, Any]:
    """A configuration that the library's ``load_dictionary`` reads."""
    d_in, at = checkpoint.dense.W_enc.shape[1], checkpoint.provenance
    layer = int(at.sources[0].partition(".")[0]) if len(at.sources) == 1 else None
    trainer: dict[str, Any] = {
        "dict_class": written.dict_class,
        "trainer_class": DICT_CLASSES[written.dict_class].trainer,
        "activation_dim": d_in,
        "dict_size": checkpoint.dense.n_latents,
        **{key: written.numbers[key] for key in ("k", "group_sizes") if key in written.numbers},
        "layer": layer,
        "lm_name": at.model,
        "submodule_name": submodule_name(at),
    }
    buffer: dict[str, Any] = {"d_submodule": d_in, "io": "out" if checkpoint.kind == "sae" else BOTH_SIDES}
    if at.context is not None:
        buffer["ctx_len"] = at.context
    return {"trainer": trainer, "buffer": buffer}


def changed_config(
    config: Mapping[str, Any], kept: Mapping[str, Any], checkpoint: Checkpoint, written: Written
) -> dict[str, Any]:
    """The file's own configuration, with what the coder says otherwise now.

    Args:
        kept: what was in the tensors.
    """
    trainer, own = dict(config.get("trainer", {})), config_of(checkpoint, written)["trainer"]
    k = checkpoint.dense.k
    if not written.is_as_read:
        trainer = {name: value for name, value in trainer.items() if name not in ("k", "group_sizes")}
        trainer |= {name: own[name] for name in OF_CLASS if name in own}
    elif k is not None and k != kept.get("k", {"value": trainer.get("k")})["value"]:
        trainer["k"] = k
    sizes = {name: own[name] for name in ("dict_size", "activation_dim") if name in trainer}
    return {**config, "trainer": trainer | sizes}
