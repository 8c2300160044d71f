"""What a run holds that dashboards are made of, and what they call it."""

from __future__ import annotations

import pathlib
from typing import Any

from qsae_format_saelens import name_in_transformer_lens
from qsae_samples import Samples

from qsae_core import Run
from qsae_core.contracts import Checkpoint
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.runs import artifact_folder, identity, member_folders, set_folder
from qsae_format_neuronpedia import NeuronpediaConfig


def samples_of(checkpoint: Checkpoint, layer: str | None) -> Samples:
    """The samples of a coder.

    Args:
        layer: of several, its own.

    Raises:
        ArtifactError: if there are none, they are of another coder, or were collected before what is needed
            was kept.
    """
    run = checkpoint.run
    if run is None:
        raise ArtifactError(
            "dashboards show where latents fire, and weights alone do not say that",
            allowed="a run with samples",
            next="qsae samples RUN, then qsae export RUN --format neuronpedia",
        )
    if checkpoint.provenance.model is None or not checkpoint.provenance.sources:
        raise ArtifactError(
            "it is not known of which language model's vectors it is, so there is no text to show",
            where=str(run),
            allowed="a coder that was trained on a language model's vectors, or imported with its place",
            next="qsae train --model NAME --layer N, or qsae import CHECKPOINT --model NAME --layer N",
        )
    samples = Samples.load(run, layer)
    again = f"qsae samples {run}"
    found = artifact_folder(run) if layer is None else member_folders(_several(run))[layer]
    if samples.about.get("coder_sha256") not in (None, identity(found)):
        raise ArtifactError("its samples are of the coder that was here before", where=str(run), next=again)
    if samples.n_latents != checkpoint.form.n_latents:
        raise ArtifactError(
            f"its samples are of {samples.n_latents:,} latents, and it has {checkpoint.form.n_latents:,}",
            where=str(run),
            next=again,
        )
    if "logit_token" in samples.arrays and "logit_mean" not in samples.arrays:
        raise ArtifactError(
            "its samples were collected before they had all logits' mean and histogram",
            where=str(run),
            next=again,
        )
    return samples


def _several(run: pathlib.Path) -> pathlib.Path:
    folder = set_folder(run)
    assert folder is not None  # it is exported as one
    return folder


def names_of(checkpoint: Checkpoint, config: NeuronpediaConfig) -> dict[str, Any]:
    """What a batch says of all its latents: model, layer and source set.

    Raises:
        ConfigError: if the coder is in no run, and the set has no name.
    """
    assert checkpoint.run is not None  # there are samples
    assert checkpoint.provenance.model is not None
    model = checkpoint.provenance.model
    sae_set = config.sae_set
    if sae_set is None:
        if not Run(checkpoint.run).config_file.is_file():
            raise ConfigError(
                "it is in no run, so what the source set is called has to be said",
                where=str(checkpoint.run),
                allowed="letters, digits and dashes, as in res-16k",
                next="--sae-set NAME",
            )
        sae_set = checkpoint.run.resolve().parts[-3]  # NAME/LAYER/STEPS
    return {
        "model_id": config.model_id or name_in_transformer_lens(model) or pathlib.PurePath(model).name,
        "layer": int(checkpoint.provenance.sources[0].partition(".")[0]),
        "sae_set": sae_set,
        "sae_id_suffix": config.sae_id_suffix,
    }
