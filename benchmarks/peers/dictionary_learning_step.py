"""dictionary_learning: ``TopKTrainer.update``, which is its whole step.

Option ``autocast``: the update runs within torch's autocast, as its ``trainSAE`` does on a GPU (there it
leaves autocast out on a CPU).
"""

from __future__ import annotations

from dictionary_learning.trainers.top_k import TopKTrainer
from stopwatch import autocast, measure, read_spec, write
from torch import Tensor


def main() -> None:
    spec = read_spec()
    trainer = TopKTrainer(
        steps=20_000,
        activation_dim=spec.d,
        dict_size=spec.n_latents,
        k=spec.k,
        layer=0,
        lm_name="none",
        seed=spec.seed,
        device="cpu",
    )

    def step(batch: Tensor, number: int) -> None:
        with autocast(spec):
            trainer.update(number, batch)

    write(spec, measure(spec, step, "dictionary-learning"))


if __name__ == "__main__":
    main()
