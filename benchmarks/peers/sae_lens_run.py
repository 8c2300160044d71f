"""SAELens: ``LanguageModelSAETrainingRunner`` with a TopK SAE, on a model in a local directory.

Its own transformer (``HookedTransformer``) takes models of a list alone, which SmolLM2 is not on, and no
directory. So the model is transformers' ``AutoModelForCausalLM``, which SAELens wraps, and stops behind the
layer that is read. All that is not said here is as its ``LanguageModelSAERunnerConfig`` has it.

Option ``autocast``: its ``autocast`` and ``autocast_lm``.
"""

from __future__ import annotations

from collections.abc import Callable

from datasets import load_dataset
from run_spec import Run
from sae_lens import SAE, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
from torch import Tensor
from training import Trained
from whole_run import Side, main


def prepare(run: Run) -> Callable[[], object]:
    autocast = bool(run.options.get("autocast"))
    config = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=run.d, d_sae=run.n_latents, k=run.k, device="cpu"),
        model_name=run.model,
        model_class_name="AutoModelForCausalLM",
        hook_name=f"model.layers.{run.layer}",
        is_dataset_tokenized=False,
        context_size=run.context,
        training_tokens=run.tokens,
        train_batch_size_tokens=run.batch_size,
        device="cpu",
        seed=run.seed,
        autocast=autocast,
        autocast_lm=autocast,
        output_path=run.folder,
        checkpoint_path=None,
        logger=LoggingConfig(log_to_wandb=False),
    )
    documents = load_dataset("json", data_files=run.text, split="train", streaming=True)
    return LanguageModelSAETrainingRunner(config, override_dataset=documents).run


def load(run: Run) -> Trained:
    served = SAE.load_from_disk(run.folder, device="cpu")

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = served.encode(x)
        return served.decode(codes), codes

    return Trained(reconstruct, served.W_dec)


if __name__ == "__main__":
    main(Side(prepare, load), "sae-lens")
