"""dictionary_learning: its ``trainSAE`` with ``normalize_activations=True``, which its README recommends.

That divides all vectors by one number, so that their mean squared norm is 1, and scales the biases back at
the end. Step counts that its trainers give for long runs are scaled to this one: warm-up (1000 steps by
default), the step from which thresholds are averaged (1000), the warm-up of a sparsity penalty (2000). The
rate falls over the last fifth, as in its authors' demonstration.

Attempts: ``kind``, ``lr``; ``penalty`` (standard, gated); ``target_l0`` (jumprelu); ``dead_after_tokens``,
which sets the trainer's own attribute, of 10M by default.
"""

from __future__ import annotations

from typing import Any

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.training import trainSAE
from torch import Tensor
from training import Batches, Spec, Trained, main

TRAINERS = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "jumprelu": JumpReluTrainer,
    "gated": GatedSAETrainer,
    "standard": StandardTrainer,
}
FRACTIONS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2 + 1 / 32]
"""Groups of a Matryoshka SAE, as in the authors' demonstration."""


def train(spec: Spec, attempt: dict[str, Any]) -> Trained:
    made: list[Any] = []

    def make(**config: Any) -> Any:
        trainer = TRAINERS[attempt["kind"]](**config)
        if "dead_after_tokens" in attempt:
            trainer.dead_feature_threshold = attempt["dead_after_tokens"]
        made.append(trainer)
        return trainer

    trainSAE(
        data=Batches(spec),
        trainer_configs=[{"trainer": make, **_config(spec, attempt)}],
        steps=spec.steps,
        normalize_activations=True,
        save_dir=spec.save,
        device="cpu",
        autocast_dtype=torch.float32,
    )
    ae = made[0].ae

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        x_hat, codes = ae(x, output_features=True)
        return x_hat, codes

    return Trained(reconstruct, ae.W_dec if hasattr(ae, "W_dec") else ae.decoder.weight.T)


def _config(spec: Spec, attempt: dict[str, Any]) -> dict[str, Any]:
    """What the trainer of the attempt's kind takes."""
    kind, warm_up = attempt["kind"], spec.warm_up_steps
    config = {
        "steps": spec.steps,
        "activation_dim": spec.d,
        "dict_size": spec.n_latents,
        "layer": 0,
        "lm_name": "none",
        "device": "cpu",
        "seed": spec.seed,
        "lr": attempt["lr"],
        "warmup_steps": warm_up,
        "decay_start": spec.steps - spec.decay_steps,
    }
    if kind in ("topk", "batchtopk", "matryoshka"):
        config |= {"k": spec.k, "threshold_start_step": spec.steps // 2}
    if kind == "matryoshka":
        config["group_fractions"] = FRACTIONS
    if kind in ("jumprelu", "gated", "standard"):
        config["sparsity_warmup_steps"] = warm_up
    if kind == "jumprelu":
        config["target_l0"] = attempt["target_l0"]
    if kind in ("gated", "standard"):
        config["l1_penalty"] = attempt["penalty"]
    return config


if __name__ == "__main__":
    main(train, "dictionary-learning")
