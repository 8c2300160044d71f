"""Transcoder ``matryoshka-transcoder``: nested groups of latents, each prefix a transcoder of its own."""

from __future__ import annotations

from typing import ClassVar

from qsae_core import ComponentSpec, GroupSizes, NestedConfig, TranscoderConfig, hookimpl, option


class MatryoshkaTranscoderConfig(TranscoderConfig, NestedConfig):
    """Matryoshka transcoder: mean over nested prefixes of the squared error of the target, plus AuxK."""

    usual_groups: ClassVar[tuple[int, ...]] = (1, 2, 4, 9)

    expansion: float | None = option(
        16.0,
        "size of the dictionary in widths of the vectors that are encoded, where n_latents is not given",
        aliases=("expansion-factor",),
        instead_of="n_latents",
        gt=0,
    )
    group_sizes: GroupSizes | None = option(
        None,
        "latents of each nested group, in order; none: four groups of 1/16, 2/16, 4/16 and 9/16 of all",
        allowed="a list of sizes of 1 or more that add up to n_latents, such as [16,48]; or none",
        min_length=1,
    )


@hookimpl
def qsae_register_transcoders() -> list[ComponentSpec]:
    """Register ``matryoshka-transcoder``."""
    return [
        ComponentSpec(
            "transcoder",
            "matryoshka-transcoder",
            MatryoshkaTranscoderConfig,
            "qsae_transcoder_matryoshka.model:MatryoshkaTranscoder",
            default_parts={"activation": {"use": "relu"}, "sparsity": {"use": "batchtopk", "k_share": 0.005}},
        )
    ]
