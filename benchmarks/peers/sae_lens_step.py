"""SAELens: ``SAETrainer.step`` of a TopK SAE, and what its ``fit`` does around it in every step.

Options: ``autocast`` (its own option), ``sparse`` (its ``use_sparse_activations``, which it recommends for
float32 and small k; with its default of rescaling codes by the decoder's norms their backward does not run on
a CPU, so that is off then). In the middle of a run: ``run_steps``, ``lr``, and ``dead_tokens`` without firing
after which a latent is dead.
"""

from __future__ import annotations

from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from stopwatch import Spec, measure, read_batches, read_spec, write
from torch import Tensor


def main() -> None:
    spec = read_spec()
    trainer = make_trainer(spec)

    def step(batch: Tensor, number: int) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(batch)
        trainer.n_training_steps += 1

    found = measure(spec, step, "sae-lens")
    write(spec, found | {"dead": trainer.dead_neurons.float().mean().item()})


def make_trainer(spec: Spec) -> SAETrainer:
    sparse = bool(spec.options.get("sparse"))
    config = TopKTrainingSAEConfig(
        d_in=spec.d,
        d_sae=spec.n_latents,
        k=spec.k,
        device="cpu",
        dtype="float32",
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,
    )
    rate = spec.options.get("lr", 3e-4)
    training = SAETrainerConfig(
        total_training_samples=spec.options.get("run_steps", 20_000) * spec.batch_size,
        lr=rate,
        lr_end=rate,
        dead_feature_window=spec.options.get("dead_tokens", 1000 * spec.batch_size) // spec.batch_size,
        train_batch_size_samples=spec.batch_size,
        device="cpu",
        autocast=bool(spec.options.get("autocast")),
        logger=LoggingConfig(log_to_wandb=False),
    )
    return SAETrainer(training, TopKTrainingSAE(config), iter(read_batches(spec)))


if __name__ == "__main__":
    main()
