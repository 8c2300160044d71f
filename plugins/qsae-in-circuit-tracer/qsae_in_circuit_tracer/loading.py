"""Stored coders as what a ReplacementModel takes for its transcoders."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import torch
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import TranscoderSet
from circuit_tracer.utils import get_default_device
from qsae_format_circuit_tracer import FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK, layer_of, stored_hooks

import qsae_core
from qsae_core.contracts import Provenance
from qsae_core.errors import ArtifactError
from qsae_core.runs import artifact_folder, member_folders, set_folder, stored_description
from qsae_in_circuit_tracer.cross_layer import PackedCrossLayerTranscoder
from qsae_in_circuit_tracer.serving import check_serves, check_serves_layers
from qsae_in_circuit_tracer.transcoder import PackedTranscoder


def packed_transcoders(
    run_or_folder: str | os.PathLike[str],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    feature_input_hook: str | None = None,
    feature_output_hook: str | None = None,
    scan: str | list[str] | None = None,
) -> TranscoderSet | CrossLayerTranscoder:
    """What ``ReplacementModel.from_pretrained_and_transcoders`` takes for its transcoders.

    Args:
        run_or_folder: a run with a transcoder for each layer or with a cross-layer transcoder, its
            ``checkpoints/final``, or any folder with ``coders.json`` or ``coder.json``.
        device: where packed weights are; None: circuit-tracer's own choice.
        dtype: of what goes in and out. A ReplacementModel casts it to its own.
        feature_input_hook, feature_output_hook: circuit-tracer's names of what is read and written; None: by
            the places that the coders were trained on.
        scan: as circuit-tracer takes it; None: what is known.

    Raises:
        ArtifactError: if there are no such coders, a file is damaged, layers are missing, or circuit-tracer
            has no hook where the coders read or write.
        ConfigError: if circuit-tracer's formulas are not true of one of them.
        PluginError: if a component of theirs is not installed; the message names the distribution.
    """
    path = pathlib.Path(run_or_folder)
    place = str(get_default_device() if device is None else device)
    folder = set_folder(path)
    hooks = {FEATURE_INPUT_HOOK: feature_input_hook, FEATURE_OUTPUT_HOOK: feature_output_hook, "scan": scan}
    if folder is not None:
        return _set_of_layers(folder, place, dtype, hooks)
    return _cross_layer(artifact_folder(path), place, dtype, hooks)


def _set_of_layers(
    folder: pathlib.Path, device: str, dtype: torch.dtype, hooks: dict[str, Any]
) -> TranscoderSet:
    coders = qsae_core.load_set(folder, device=device)
    transcoders, sources = {}, {}
    for name, place in member_folders(folder).items():
        source = stored_description(place)["source"]
        layer = layer_of(name, Provenance.of_record(source), str(place))
        coder = check_serves(coders[name], str(place))
        transcoders[layer], sources[layer] = PackedTranscoder(coder, layer, str(place), dtype), source
    _check_layers(sorted(transcoders), str(folder))
    in_order = [sources[layer] for layer in sorted(sources)]
    return TranscoderSet(transcoders, **_hooks(in_order, hooks, str(folder)))


def _cross_layer(
    folder: pathlib.Path, device: str, dtype: torch.dtype, hooks: dict[str, Any]
) -> CrossLayerTranscoder:
    coder, source = qsae_core.load(folder, device=device), stored_description(folder)["source"]
    check_serves_layers(coder, str(folder))
    for places in (source.get("source_sites") or (), source.get("target_sites") or ()):
        if places:
            _check_layers([int(place.partition(".")[0]) for place in places], str(folder))
    found = _hooks([source], hooks, str(folder))
    return PackedCrossLayerTranscoder(coder, str(folder), dtype, **found)


def _check_layers(layers: Sequence[int], where: str) -> None:
    if list(layers) != list(range(len(layers))):
        raise ArtifactError(
            f"circuit-tracer takes transcoders of every layer, these are of {', '.join(map(str, layers))}",
            where=where,
            allowed="layers 0 to the model's last",
            next="qsae train --layers 0-LAST",
        )


def _hooks(sources: Sequence[dict[str, Any]], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Hooks and ``scan``: those that were given, and for the others what ``config.yaml`` of the coders would
    say."""
    told = {key: value for key, value in given.items() if value is not None}
    asked = (FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK)
    known = told if told.keys() >= set(asked) else stored_hooks(sources, where) | told
    missing = [key for key in asked if key not in known]
    if missing:
        raise ArtifactError(
            "it is not known where the vectors of these coders are from",
            where=where,
            next=f"give {' and '.join(f'{key}=' for key in missing)}, such as mlp.hook_in and hook_mlp_out",
        )
    return known
