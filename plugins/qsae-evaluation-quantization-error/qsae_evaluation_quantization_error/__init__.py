"""Evaluation ``quantization-error``: what quantization does to weights, support and every latent."""

from __future__ import annotations

from pydantic import model_validator

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option
from qsae_core.errors import OptionsError


class QuantizationErrorConfig(ComponentConfig):
    """A quantized coder beside its full-precision twin, latent by latent, on the same tokens.

    Weights: errors of rows and entries, levels in use. Support: which latents enter and leave the codes.
    Survival: how well each latent's activations follow the twin's, in three classes, beside controls.
    """

    least_firings: int = option(
        20, "a latent that fires less often than this in the twin is not judged", ge=2, le=2**31 - 1
    )
    survived: float = option(0.9, "a latent whose r is at least this has survived", gt=0, le=1)
    damaged: float = option(
        0.5, "a latent whose r is below this is damaged; between the two it is blurred", gt=-1, le=1
    )
    top: int = option(20, "how many of a latent's strongest tokens are compared", ge=1, le=1000)
    control_tokens: int | None = option(
        None,
        "tokens, the first ones, on which the controls encode twice more; none: all; 0: no controls",
        ge=0,
    )
    other_seed: str | None = option(
        None,
        "a float coder of another seed, a run's folder or an artifact, for the control by another training; "
        "none: there is no such control",
        allowed="a path",
    )
    returned_above: float = option(
        0.7, "cosine above which a latent that is matched has come back", ge=0, lt=1
    )
    rows: int = option(50, "rows of the tables of the most damaged latents and of the largest errors", ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> QuantizationErrorConfig:
        if self.damaged > self.survived:
            raise OptionsError(
                f"a latent is damaged below r = {self.damaged:g} and has survived from {self.survived:g} on",
                allowed="damaged of at most survived",
            )
        if self.control_tokens == 0 and self.other_seed is not None:
            raise OptionsError(
                "a coder of another seed is a control, and control_tokens of 0 leaves all of them out",
                allowed="control_tokens above 0, or none; or no other_seed",
            )
        return self


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_quantization_error.evaluation:QuantizationError"
    return [ComponentSpec("evaluation", "quantization-error", QuantizationErrorConfig, target)]
