"""dictionary_learning: ``TopKTrainer.update``, which is its whole step.

Option ``autocast``: the update runs within torch's autocast, as its ``trainSAE`` does on a GPU (there it
leaves autocast out on a CPU). In the middle of a run: ``run_steps``, ``lr``, and ``dead_tokens`` without
firing after which a latent is dead.
"""

from __future__ import annotations

from dictionary_learning.trainers.top_k import TopKTrainer
from stopwatch import autocast, measure, read_spec, write
from torch import Tensor


def main() -> None:
    spec = read_spec()
    trainer = TopKTrainer(
        steps=spec.options.get("run_steps", 20_000),
        activation_dim=spec.d,
        dict_size=spec.n_latents,
        k=spec.k,
        layer=0,
        lm_name="none",
        seed=spec.seed,
        device="cpu",
        lr=spec.options.get("lr"),
        warmup_steps=min(1000, spec.options.get("run_steps", 20_000) // 20),
    )
    trainer.dead_feature_threshold = spec.options.get("dead_tokens", trainer.dead_feature_threshold)

    def step(batch: Tensor, number: int) -> None:
        with autocast(spec):
            trainer.update(number, batch)

    found = measure(spec, step, "dictionary-learning")
    silent = trainer.num_tokens_since_fired >= trainer.dead_feature_threshold
    write(spec, found | {"dead": silent.float().mean().item()})


if __name__ == "__main__":
    main()
