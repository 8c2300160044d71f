"""Format ``neuronpedia``: a run's latents as the JSON files of which Neuronpedia's dashboards are made."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option

LATENTS_PER_FILE = 128
"""As SAEDashboard's runner has them by default."""


class NeuronpediaConfig(ComponentConfig):
    """A folder of batch-0.json, batch-1.json, ...: where each latent of a run fires, as SAEDashboard writes
    it for Neuronpedia, from the run's samples; written, and not read."""

    model_id: str | None = option(
        None,
        "the language model's name on Neuronpedia; by default TransformerLens' name of it, else the last "
        "part of its own",
    )
    sae_set: str | None = option(
        None, "the source set's id on Neuronpedia, without the layer; by default the run's name"
    )
    sae_id_suffix: str | None = option(
        None, "what stands behind the set's id where a set has several SAEs of a layer; by default nothing"
    )
    dataset: str | None = option(
        None, "what the text is called, that latents were shown on; by default what the samples say of it"
    )
    latents_per_file: int = option(LATENTS_PER_FILE, "latents of a file, at most", ge=1)


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``neuronpedia``."""
    target = "qsae_format_neuronpedia.checkpoint_format:NeuronpediaFormat"
    return [ComponentSpec("format", "neuronpedia", NeuronpediaConfig, target)]
