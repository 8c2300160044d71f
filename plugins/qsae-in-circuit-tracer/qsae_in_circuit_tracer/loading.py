"""Stored coders as a set of transcoders."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import torch
from circuit_tracer.transcoder.single_layer_transcoder import TranscoderSet
from circuit_tracer.utils import get_default_device
from qsae_format_circuit_tracer import FEATURE_INPUT_HOOK, FEATURE_OUTPUT_HOOK, layer_of, stored_settings

import qsae_core
from qsae_core.contracts import Provenance
from qsae_core.errors import ArtifactError
from qsae_core.runs import member_folders, set_folder, stored_description
from qsae_in_circuit_tracer.serving import check_serves
from qsae_in_circuit_tracer.transcoder import PackedTranscoder


def packed_transcoders(
    run_or_folder: str | os.PathLike[str],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    feature_input_hook: str | None = None,
    feature_output_hook: str | None = None,
    scan: str | list[str] | None = None,
) -> TranscoderSet:
    """What ``ReplacementModel.from_pretrained_and_transcoders`` takes for its transcoders.

    Args:
        run_or_folder: a run with a transcoder for each layer, its ``checkpoints/final``, or any folder with
            ``coders.json``.
        device: where packed weights are; None: circuit-tracer's own choice.
        dtype: of what goes in and out. A ReplacementModel casts it to its own.
        feature_input_hook, feature_output_hook: circuit-tracer's names of what is read and written; None: by
            the places that the coders were trained on.
        scan: as circuit-tracer takes it.

    Raises:
        ArtifactError: if there is no set of coders, a file is damaged, layers are missing, or there is no hook
            where the coders read or write.
        ConfigError: if circuit-tracer's formulas are not true of one of them.
        PluginError: if a component of theirs is not installed; the message names the distribution.
    """
    path = pathlib.Path(run_or_folder)
    coders = qsae_core.load_set(path, device=str(get_default_device() if device is None else device))
    found = set_folder(path)
    assert found is not None, "load_set has read it"
    folders = member_folders(found)
    sources = {name: stored_description(folder)["source"] for name, folder in folders.items()}
    transcoders = {}
    for name, folder in folders.items():
        layer = layer_of(name, Provenance.of_record(sources[name]), str(folder))
        coder = check_serves(coders[name], str(folder))
        transcoders[layer] = PackedTranscoder(coder, layer, str(folder), dtype)
    if sorted(transcoders) != list(range(len(folders))):
        raise ArtifactError(
            f"circuit-tracer takes a transcoder for every layer, and these are of {sorted(transcoders)}",
            where=str(found),
            allowed="layers 0 to the model's last",
            next="qsae train --transcoder transcoder --per-layer --layers 0-LAST",
        )
    hooks = {FEATURE_INPUT_HOOK: feature_input_hook, FEATURE_OUTPUT_HOOK: feature_output_hook}
    known = _settings(list(sources.values()), hooks, str(found))
    return TranscoderSet(transcoders, *(known[key] for key in hooks), scan=scan or known.get("scan"))


def _settings(sources: list[dict[str, Any]], given: dict[str, str | None], where: str) -> dict[str, Any]:
    """What ``config.yaml`` would say of the coders, and what was given in its place."""
    told = {key: hook for key, hook in given.items() if hook is not None}
    known = {} if len(told) == len(given) else stored_settings(sources, where)
    missing = [key for key in given if key not in {**known, **told}]
    if missing:
        raise ArtifactError(
            "it is not known where the vectors of these coders are from",
            where=where,
            next=f"give {' and '.join(f'{key}=' for key in missing)}, such as mlp.hook_in and hook_mlp_out",
        )
    return {**known, **told}
