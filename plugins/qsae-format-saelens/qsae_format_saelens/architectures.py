"""What SAELens calls the variants, which of them a dense form holds, and why it does not hold others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from qsae_core.errors import ArtifactError


class Architecture(NamedTuple):
    """One word of ``architecture`` in cfg.json."""

    function: Literal["relu", "jumprelu", "gated"]
    """On pre-activations; all are 0 where these are negative."""
    has_k: bool = False
    is_transcoder: bool = False
    """Whether it has a class of its own for vectors of another width, from which nothing is subtracted."""
    has_skip: bool = False

    @property
    def tensors(self) -> frozenset[str]:
        """The names of its tensors in sae_weights.safetensors."""
        biases = {"b_gate", "b_mag", "r_mag"} if self.function == "gated" else {"b_enc"}
        more = {"threshold"} if self.function == "jumprelu" else set()
        return frozenset({"W_enc", "W_dec", "b_dec", *biases, *more, *({"W_skip"} if self.has_skip else ())})


ARCHITECTURES: Mapping[str, Architecture] = {
    "standard": Architecture("relu"),
    "topk": Architecture("relu", has_k=True),
    "jumprelu": Architecture("jumprelu"),
    "gated": Architecture("gated"),
    "transcoder": Architecture("relu", is_transcoder=True),
    "skip_transcoder": Architecture("relu", is_transcoder=True, has_skip=True),
    "jumprelu_transcoder": Architecture("jumprelu", is_transcoder=True),
    "jumprelu_skip_transcoder": Architecture("jumprelu", is_transcoder=True, has_skip=True),
}

_INFERENCE = (
    "in SAELens: TrainingSAE.load_from_disk(PATH).save_inference_model(OTHER), which writes a jumprelu"
)
_REFUSED: Mapping[str, tuple[str, str]] = {
    "abstopk": (
        "keeps the k latents of largest size with their signs, and a dense form keeps the largest ones",
        "keep it in SAELens; as an ordinary topk it has two latents for each of its own: W_enc and -W_enc",
    ),
    "matching_pursuit": (
        "chooses each latent by what those before it left over, so one product with an encoder gives no code",
        "keep it in SAELens",
    ),
    "temporal": (
        "reads the vectors of earlier tokens by attention, and a coder here sees one token at a time",
        "keep it in SAELens",
    ),
    "batchtopk": ("is a training state, whose rule is about whole batches", _INFERENCE),
    "matryoshka_batchtopk": ("is a training state, whose rule is about whole batches", _INFERENCE),
}
"""Architecture -> why it is not read, and what to do."""


def architecture_named(name: str, where: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ArtifactError: if a dense form does not hold it, or SAELens has none of that name.
    """
    known = ARCHITECTURES.get(name)
    if known is not None:
        return known
    reason, further = _REFUSED.get(name, ("is none of SAELens", None))
    raise ArtifactError(
        f"architecture {name!r} {reason}", where=where, allowed=", ".join(ARCHITECTURES), next=further
    )
