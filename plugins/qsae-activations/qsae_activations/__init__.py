"""Activations: functions of the pre-activations, before a sparsity rule selects."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class ReLUConfig(ComponentConfig):
    """f = max(z, 0): latents are never negative."""


class IdentityConfig(ComponentConfig):
    """f = z: signed latents; the sparsity rule alone decides what stays."""


class JumpReLUConfig(ComponentConfig):
    """f = z 1[z > theta], with a learned threshold per latent (Rajamanoharan et al., 2024)."""

    theta0: float = option(
        0.001, "threshold of every latent at the start, in the normalised space (RMS 1 per dimension)", gt=0
    )
    bandwidth: float = option(
        0.001, "pre-activations within half of it of a threshold give that threshold its gradient", gt=0
    )
    signed: bool = option(
        False, "thresholds may be below 0, and negative z above one are latents; else such a threshold is 0"
    )


class SigmoidConfig(ComponentConfig):
    """f = 1 / (1 + exp(-z)): latents between 0 and 1; the sparsity rule alone decides what stays."""


class StepConfig(ComponentConfig):
    """f = 1[sigma(z) >= 1/2]: latents of one bit, with the gradient of sigma(z)."""


@hookimpl
def qsae_register_activations() -> list[ComponentSpec]:
    """Register the activations."""
    return [
        ComponentSpec("activation", "relu", ReLUConfig, "qsae_activations.relu:ReLU"),
        ComponentSpec("activation", "identity", IdentityConfig, "qsae_activations.identity:Identity"),
        ComponentSpec("activation", "jumprelu", JumpReLUConfig, "qsae_activations.jumprelu:JumpReLU"),
        ComponentSpec("activation", "sigmoid", SigmoidConfig, "qsae_activations.sigmoid:Sigmoid"),
        ComponentSpec("activation", "step", StepConfig, "qsae_activations.step:Step"),
    ]
