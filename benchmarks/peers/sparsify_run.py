"""sparsify: its ``Trainer`` on a language model, as ``python -m sparsify`` calls it.

That command asks for a GPU (``device_map={"": "cuda:0"}``), so what it does is written out here, on the CPU:
the model in the number format of its weights, ``chunk_and_tokenize`` with one process for every two cores,
contexts shuffled once with its seed. All else is as its ``TrainConfig`` has it.

Options: ``autocast``: the coder's forward pass within torch's autocast to bf16, as the coder does by itself
on a GPU. ``cut``: a model without the layers behind the one that is read.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import torch
from datasets import load_dataset
from run_spec import Run
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer
from sparsify.data import chunk_and_tokenize
from torch import Tensor
from training import Trained
from transformers import AutoModel, AutoTokenizer
from whole_run import Side, main

NAME = "run"
SHUFFLE_SEED = 42
"""The default of its command."""


def prepare(run: Run) -> Callable[[], object]:
    if run.options.get("autocast"):
        autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        SparseCoder.forward = autocast(SparseCoder.forward)
    cut = {"num_hidden_layers": run.layer + 1} if run.options.get("cut") else {}
    model = AutoModel.from_pretrained(run.model, device_map={"": "cpu"}, dtype="auto", **cut)
    documents = load_dataset("json", data_files=run.text, split="train")
    contexts = chunk_and_tokenize(
        documents,
        AutoTokenizer.from_pretrained(run.model),
        max_seq_len=run.context,
        num_proc=max(1, run.threads // 2),
    )
    contexts = contexts.shuffle(SHUFFLE_SEED).with_format("torch").select(range(run.tokens // run.context))
    config = TrainConfig(
        SparseCoderConfig(num_latents=run.n_latents, k=run.k),
        batch_size=run.batch_size // run.context,
        layers=[run.layer],
        init_seeds=[run.seed],
        save_dir=run.folder,
        run_name=NAME,
        log_to_wandb=False,
    )
    return Trainer(config, contexts, model).fit


def load(run: Run) -> Trained:
    coder = SparseCoder.load_from_disk(pathlib.Path(run.folder) / NAME / f"layers.{run.layer}")

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        top = coder.encode(x)
        codes = torch.zeros(len(x), coder.num_latents).scatter_(1, top.top_indices, top.top_acts)
        return coder.decode(top.top_acts, top.top_indices), codes

    assert coder.W_dec is not None
    return Trained(reconstruct, coder.W_dec)


if __name__ == "__main__":
    main(Side(prepare, load), "eai-sparsify")
