"""Small coders as dictionary_learning itself writes them, with what it computes.

Run by a Python that has it: ``python write_golden.py OUT [--seed N]``. Its trainers make the files; weights
are then drawn anew, so that no bias is zero, no norm is 1, and latents lie on both sides of thresholds.
Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import tempfile
from typing import ClassVar

import torch
from dictionary_learning.dictionary import (
    AutoEncoder,
    AutoEncoderNew,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import (
    MatryoshkaBatchTopKSAE,
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
from dictionary_learning.training import trainSAE
from safetensors.torch import save_file

B, D, F, K, GROUPS = 64, 16, 40, 5, [8, 12, 20]
LAYER, STEPS, NORM_FACTOR = 3, 4, 2.5
COMMON = {"activation_dim": D, "dict_size": F, "layer": LAYER, "lm_name": "EleutherAI/pythia-70m-deduped"}
COMMON |= {"steps": STEPS, "seed": 0, "device": "cpu", "submodule_name": f"resid_post_layer_{LAYER}"}
COMMON |= {"warmup_steps": 1}
PENALTY = {"sparsity_warmup_steps": None, "decay_start": None}
TRAINERS = {
    "autoencoder": {"trainer": StandardTrainer, "l1_penalty": 0.1, **PENALTY},
    "gated": {"trainer": GatedSAETrainer, "l1_penalty": 0.1, **PENALTY},
    "jumprelu": {"trainer": JumpReluTrainer, "target_l0": 4, "sparsity_warmup_steps": 1},
    "topk": {"trainer": TopKTrainer, "k": K, "threshold_start_step": 0},
    "batchtopk": {"trainer": BatchTopKTrainer, "k": K, "threshold_start_step": 0},
    "batchtopk-unset": {"trainer": BatchTopKTrainer, "k": K},
    "matryoshka": {
        "trainer": MatryoshkaBatchTopKTrainer,
        "k": K,
        "group_fractions": [group / F for group in GROUPS],
        "threshold_start_step": 0,
    },
}


class Vectors(list):
    """Batches of a buffer, whose settings ``trainSAE`` records."""

    config: ClassVar = {"d_submodule": D, "io": "out", "n_ctxs": 100, "ctx_len": 128, "device": "cpu"}


def made(name: str) -> torch.nn.Module:
    """A coder of the class that a case is of."""
    classes = {
        "autoencoder": lambda: AutoEncoder(D, F),
        "autoencoder-new": lambda: AutoEncoderNew(D, F),
        "gated": lambda: GatedAutoEncoder(D, F),
        "jumprelu": lambda: JumpReluAutoEncoder(D, F),
        "topk": lambda: AutoEncoderTopK(D, F, K),
        "batchtopk": lambda: BatchTopKSAE(D, F, K),
        "matryoshka": lambda: MatryoshkaBatchTopKSAE(D, F, K, GROUPS),
    }
    return classes[name.removesuffix("-unset")]()


@torch.no_grad()
def draw(coder: torch.nn.Module, name: str, generator: torch.Generator) -> None:
    """Random weights of all sizes; thresholds where half of the latents above 0 stay, a few below 0."""
    for parameter in coder.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    if name == "jumprelu":
        coder.threshold.copy_(torch.randn(F, generator=generator).abs())
        coder.threshold[::7] *= -1
    elif name in ("topk", "batchtopk", "matryoshka"):
        coder.threshold.fill_(0.7 + torch.rand((), generator=generator).item())


def trained(folder: pathlib.Path, generator: torch.Generator) -> dict[str, pathlib.Path]:
    """Case -> folder that the library's own training wrote."""
    vectors = Vectors(torch.randn(32, D, generator=generator) for _ in range(STEPS + 1))
    configs = [{**COMMON, **config} for config in TRAINERS.values()]
    trainSAE(data=vectors, trainer_configs=configs, steps=STEPS, save_dir=str(folder), device="cpu")
    return {name: folder / f"trainer_{i}" for i, name in enumerate(TRAINERS)}


@torch.no_grad()
def computed(coder: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Vectors, latents and reconstructions by the library's own classes, in float32."""
    coder = coder.float()
    x = torch.randn(B, D, generator=generator)
    found = {"x": x, "latents": coder.encode(x), "reconstruction": coder(x)}
    return {name: tensor.clone().contiguous() for name, tensor in found.items()}


def saved(coder: torch.nn.Module, path: pathlib.Path) -> None:
    """As ``trainSAE`` saves one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.cpu() for key, value in coder.state_dict().items()}, path)


def main() -> None:
    """Write every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(given.seed)
    torch.manual_seed(given.seed)
    holder = pathlib.Path(tempfile.mkdtemp())
    configs = {}
    for name, folder in trained(holder, generator).items():
        coder, case = made(name), given.out / name
        coder.load_state_dict(torch.load(folder / "ae.pt"))  # as training left it: of this class
        draw(coder, name, generator)
        saved(coder, case / "checkpoint" / "ae.pt")
        configs[name] = json.loads((folder / "config.json").read_text())
        shutil.copy(folder / "config.json", case / "checkpoint" / "config.json")
        save_file(computed(coder, generator), case / "expected.safetensors")
    shutil.rmtree(holder)
    others(given.out, configs, generator)


def others(out: pathlib.Path, configs: dict[str, dict], generator: torch.Generator) -> None:
    """What training does not write by itself: files alone, other types, backups, several layers."""
    for name, suffix in (("autoencoder", ".pt"), ("matryoshka", ".pt")):
        coder, case = made(name), out / f"{name}-alone"
        draw(coder, name, generator)
        saved(coder, case / f"checkpoint{suffix}")
        save_file(computed(coder, generator), case / "expected.safetensors")

    coder, case = made("topk"), out / "topk-bfloat16"
    draw(coder, "topk", generator)
    saved(coder.bfloat16(), case / "checkpoint" / "ae.pt")
    configured(case / "checkpoint", configs["topk"])
    save_file(computed(coder, generator), case / "expected.safetensors")

    coder, case = made("autoencoder-new"), out / "transcoder"
    draw(coder, "autoencoder-new", generator)
    saved(coder, case / "checkpoint" / "ae.pt")
    both = json.loads(json.dumps(configs["autoencoder"]))
    both["trainer"]["dict_class"], both["buffer"]["io"] = "AutoEncoderNew", "in_and_out"
    configured(case / "checkpoint", both)
    save_file(computed(coder, generator), case / "expected.safetensors")

    coder, case = made("batchtopk"), out / "backup"
    draw(coder, "batchtopk", generator)
    optimizer = torch.optim.Adam(coder.parameters())
    parts = {"ae": coder.state_dict(), "optimizer": optimizer.state_dict()}
    more = {"config": configs["batchtopk"]["trainer"], "norm_factor": NORM_FACTOR}
    (case / "checkpoint").mkdir(parents=True)
    torch.save({"step": 7, **parts, **more}, case / "checkpoint" / "ae.pt")
    configured(case / "checkpoint", configs["batchtopk"])
    coder.scale_biases(NORM_FACTOR)
    save_file(computed(coder, generator), case / "expected.safetensors")

    expected = {}
    for layer in (3, 11):
        coder = made("topk")
        draw(coder, "topk", generator)
        folder = out / "layers" / "checkpoint" / f"resid_post_layer_{layer}" / "trainer_0"
        saved(coder, folder / "ae.pt")
        config = json.loads(json.dumps(configs["topk"]))
        config["trainer"] |= {"layer": layer, "submodule_name": f"resid_post_layer_{layer}"}
        configured(folder, config)
        expected |= {f"{layer}/{key}": value for key, value in computed(coder, generator).items()}
    save_file(expected, out / "layers" / "expected.safetensors")


def configured(folder: pathlib.Path, config: dict) -> None:
    """As ``trainSAE`` writes it."""
    (folder / "config.json").write_text(json.dumps(config, indent=4))


if __name__ == "__main__":
    main()
