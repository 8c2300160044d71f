"""Evaluation ``loss-recovered``: what splicing the coder into the language model costs."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class LossRecoveredConfig(ComponentConfig):
    """Cross-entropy and KL of the language model with the coder's output in place of the target site's
    vectors; a transcoder reads its source site in the same pass. Where there is a coder for each of several
    layers, each alone, and all at once.

    Beside it, the same with zeros and with the site's mean there; CE recovered is the share of the damage
    of such an ablation that the coder undoes.
    """

    tokens: int = option(
        8192,
        "held-out tokens to use, if the evaluation is given so many; each takes 4 forward passes, 3 of "
        "them from the target's layer on",
        gt=0,
    )
    positions_per_pass: int = option(
        1024,
        "positions that go through the language model at once, in whole contexts; the memory of logits is "
        "about twice this times the vocabulary times 4 bytes",
        gt=0,
    )


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_loss_recovered.evaluation:LossRecovered"
    return [ComponentSpec("evaluation", "loss-recovered", LossRecoveredConfig, target)]
