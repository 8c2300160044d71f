"""``config.yaml`` of a folder: what it says, which sites its hooks are, and what a new one says."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from qsae_core.contracts import Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import file_in, is_file_in, yaml_settings
from qsae_format_circuit_tracer import FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK

CONFIG = "config.yaml"
TRAINING_RECORDS = ("wandb-config.yaml", "wanb-config.yaml")
"""Beside the layers of mwhanna's repositories, in place of ``config.yaml`` in some; both spellings are
theirs."""
SET, CROSS_LAYER = "transcoder_set", "cross_layer_transcoder"
KIND, MODEL, INPUT, OUTPUT = "model_kind", "model_name", FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK
PATHS, ACTIVATION, K, SCAN = "transcoders", "activation", "k", "scan"
ACTIVATIONS = ("relu", "jumprelu", "topk")

SERVED = "serve it in circuit-tracer without files of its own: packed_transcoders of qsae-in-circuit-tracer"
"""For coders that its files cannot hold, and its formulas are true of."""
SIGNED: dict[str, dict[str, Any]] = {"activation": {"use": "jumprelu", "signed": True}}
"""The activation of files with thresholds: where one is below 0, negative z above it are latents. Of all
layers, since coders of a set are made of the same components."""

SITES = {"hook_resid_mid": "resid_mid", "mlp.hook_in": "mlp_in", "hook_mlp_out": "mlp_out"}
"""A hook's name within a block -> the site of the same vectors. ``ln2.hook_normalized`` and ``hook_mlp_in``
have none: they lie before the weights of the layer norm, or before the whole of it."""
MLP_ITSELF = "mlp.hook_out"
"""What the MLP computes, which is ``mlp_out`` where the model adds just that to its stream."""
NO_POST_NORM = re.compile(r"llama|qwen|gpt-?oss|gpt-?2", re.IGNORECASE)
"""In the names of models that do; Gemma 2, Gemma 3 and OLMo 2 have a norm behind the MLP."""


class Beside(NamedTuple):
    """What stands beside the weights of a folder."""

    settings: dict[str, Any]
    """Of ``config.yaml``, else of the record of the training, else nothing."""
    file: pathlib.Path | None
    """Where they stand."""

    @property
    def is_config(self) -> bool:
        """Whether it is a ``config.yaml`` of circuit-tracer."""
        return KIND in self.settings


def read_beside(folder: pathlib.Path) -> Beside:
    """Look for settings.

    Raises:
        ArtifactError: if they are damaged, or say what circuit-tracer has not.
    """
    if is_file_in(folder, CONFIG):
        path = file_in(folder, CONFIG)
        settings = yaml_settings(path)
        if KIND in settings:
            _check(settings, str(path))
            return Beside(settings, path)
    for name in TRAINING_RECORDS:
        if is_file_in(folder, name):
            return Beside(yaml_settings(file_in(folder, name)), file_in(folder, name))
    return Beside({}, None)


def _check(settings: Mapping[str, Any], where: str) -> None:
    words = {KIND: (SET, CROSS_LAYER), ACTIVATION: (*ACTIVATIONS, None)}
    for key, allowed in words.items():
        if settings.get(key) not in allowed:
            raise ArtifactError(
                f"{key} is {settings[key]!r}, which is not read here",
                where=where,
                allowed=", ".join(word for word in allowed if word),
            )
    for name in (MODEL, INPUT, OUTPUT):
        if not isinstance(settings.get(name, ""), str):
            raise ArtifactError(f"{name} is {settings[name]!r}", where=where, allowed="text")
    k = settings.get(K)
    if settings.get(ACTIVATION) == "topk" and (not isinstance(k, int) or isinstance(k, bool)):
        raise ArtifactError(
            f"the activation is topk, and k is {k!r}",
            where=where,
            allowed="a whole number",
            next=f"write how many latents stay into {CONFIG}, as `k: 128`",
        )


# --- places


def site_of(hook: str | None, model: str | None) -> str | None:
    """The site whose vectors a hook has in a model; None where there is none, or it is not known."""
    if hook == MLP_ITSELF:
        return "mlp_out" if NO_POST_NORM.search(model or "") else None
    return SITES.get(hook or "")


def provenance_of(settings: Mapping[str, Any], layers: Sequence[int]) -> Provenance:
    """Which vectors a coder of these layers is for."""
    model = settings.get(MODEL) or None
    source, target = (site_of(settings.get(hook), model) for hook in (INPUT, OUTPUT))
    sources, targets = (tuple(f"{layer}.{site}" for layer in layers if site) for site in (source, target))
    return Provenance(model if INPUT in settings else None, sources, targets)


def settings_of(kind: str, provenances: Sequence[Provenance], where: str) -> dict[str, Any]:
    """A new ``config.yaml`` of coders at these places; nothing, where none is known.

    Raises:
        ArtifactError: if circuit-tracer has no hooks there.
    """
    sources = {place for provenance in provenances for place in provenance.sources}
    targets = {place for provenance in provenances for place in provenance.targets}
    if not sources and not targets:
        return {}
    model = next((provenance.model for provenance in provenances if provenance.model), None)
    hooks = {site: hook for hook, site in SITES.items()}
    if NO_POST_NORM.search(model or ""):
        hooks["mlp_out"] = MLP_ITSELF  # which more of circuit-tracer's models know
    found: dict[str, Any] = {KIND: kind} | ({MODEL: model} if model else {})
    for key, places in ((INPUT, sources), (OUTPUT, targets)):
        sites = {place.partition(".")[2] for place in places}
        hook = hooks.get(sites.pop()) if len(sites) == 1 else None
        if hook is None:
            raise ArtifactError(
                f"circuit-tracer has no {key} for {', '.join(sorted(places)) or 'places that are not known'}",
                where=where,
                allowed=f"one of {', '.join(hooks)} in all layers",
                next="export a layer alone: its file says nothing of places",
            )
        found[key] = hook
    return found


def stored_hooks(sources: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """As the top module's."""
    imported = sources[0].get("imported_from") or {}
    settings = imported.get("settings") if imported.get("format") == "circuit-tracer" else None
    if not settings:
        settings = settings_of(SET, [Provenance.of_record(source) for source in sources], where)
    return {key: settings[key] for key in (INPUT, OUTPUT, SCAN) if key in settings}


def write_yaml(path: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """A file that ``yaml_settings`` reads as these."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
