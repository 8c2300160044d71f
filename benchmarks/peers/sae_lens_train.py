"""SAELens: its ``SAETrainer.fit`` with ``normalize_activations="expected_average_only_in"``.

That is what the training examples of its documentation set: vectors are multiplied by one number, so that
their mean norm is sqrt(d), and the number is folded into the weights at the end. The rate falls over the last
fifth, as in these examples. The coder is measured as users get it: saved with ``save_inference_model``, and
loaded again (a BatchTopK coder becomes a JumpReLU coder on the way).

Attempts: ``kind``, ``lr``; ``penalty`` (standard, gated, jumprelu); ``dead_window``, the steps without firing
after which a latent counts as dead, 1000 by default.
"""

from __future__ import annotations

import itertools
import tempfile
from typing import Any

from sae_lens import SAE
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from training import Batches, Spec, Trained, main

ARCHITECTURES = {"matryoshka": "matryoshka_batchtopk"}
"""Where its name differs from the attempt's kind."""
FRACTIONS = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
"""Where the levels of a Matryoshka SAE end."""
TANH = {
    "jumprelu_sparsity_loss_mode": "tanh",
    "jumprelu_bandwidth": 2.0,
    "jumprelu_init_threshold": 0.1,
    "pre_act_loss_coefficient": 3e-6,
}
"""What its documentation recommends for a JumpReLU SAE."""


def train(spec: Spec, attempt: dict[str, Any]) -> Trained:
    sae_class, config_class = get_sae_training_class(ARCHITECTURES.get(attempt["kind"], attempt["kind"]))
    sae = sae_class(config_class(**_config(spec, attempt)))
    training = SAETrainerConfig(
        total_training_samples=spec.steps * spec.batch_size,
        train_batch_size_samples=spec.batch_size,
        lr=attempt["lr"],
        lr_end=attempt["lr"],
        lr_warm_up_steps=spec.warm_up_steps,
        lr_decay_steps=spec.decay_steps,
        dead_feature_window=attempt.get("dead_window", 1000),
        device="cpu",
        n_batches_for_norm_estimate=spec.steps,
        logger=LoggingConfig(log_to_wandb=False),
    )
    # fit() takes the batches once for their norm, and then once more for training
    batches = itertools.chain(Batches(spec), Batches(spec))
    trained = SAETrainer(training, sae, batches).fit()
    with tempfile.TemporaryDirectory() as temporary:
        folder = spec.save or temporary
        trained.save_inference_model(folder)
        served = SAE.load_from_disk(folder, device="cpu")

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = served.encode(x)
        return served.decode(codes), codes

    return Trained(reconstruct, served.W_dec)


def _config(spec: Spec, attempt: dict[str, Any]) -> dict[str, Any]:
    """What the configuration of the attempt's architecture takes."""
    kind = attempt["kind"]
    config = {
        "d_in": spec.d,
        "d_sae": spec.n_latents,
        "device": "cpu",
        "dtype": "float32",
        "normalize_activations": "expected_average_only_in",
    }
    if kind in ("topk", "batchtopk", "matryoshka"):
        config["k"] = spec.k
    if kind == "matryoshka":
        config["matryoshka_widths"] = [round(share * spec.n_latents) for share in FRACTIONS]
    if kind in ("standard", "gated"):
        config |= {"l1_coefficient": attempt["penalty"], "l1_warm_up_steps": spec.warm_up_steps}
    if kind == "jumprelu":
        config |= TANH | {"l0_coefficient": attempt["penalty"], "l0_warm_up_steps": spec.steps}
    return config


if __name__ == "__main__":
    main(train, "sae-lens")
