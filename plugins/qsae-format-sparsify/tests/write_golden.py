"""Small coders as EleutherAI's sparsify itself writes them, with what it computes.

Run by a Python that has it: ``python write_golden.py OUT [--seed N]``. Weights are drawn anew, so that no
bias is zero and no norm is 1. Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import torch
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig

B, D, F, K = 64, 16, 40, 5
CASES = {
    "sae": {"num_latents": F, "k": K},
    "sae-expansion": {"expansion_factor": 3, "k": K, "normalize_decoder": False},
    "transcoder": {"num_latents": F, "k": K, "transcode": True},
    "transcoder-skip": {"num_latents": F, "k": K, "transcode": True, "skip_connection": True},
    "sae-multi": {"num_latents": F, "k": K, "multi_topk": True},
}
HOOKPOINTS = {
    "layers": ["layers.2", "layers.10"],
    "transcoders": ["layers.2.mlp", "layers.10.mlp"],
    "sites": ["layers.3.mlp", "layers.3.self_attn"],
}
REFUSED = {
    "refused-groupmax": {"num_latents": F, "k": K, "activation": "groupmax"},
}


@torch.no_grad()
def made(generator: torch.Generator, dtype: torch.dtype = torch.float32, **options) -> SparseCoder:
    """A coder with random weights of all sizes."""
    coder = SparseCoder(D, SparseCoderConfig(**options), dtype=dtype)
    for parameter in coder.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return coder


@torch.no_grad()
def computed(coder: SparseCoder, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Vectors, latents and reconstructions by the library's own code, in float32.

    With ``multi_topk``, forward gives what the 4 k largest latents make; encode and decode do not.
    """
    coder = coder.float()
    x = torch.randn(B, D, generator=generator)
    found, forward = coder.encode(x), coder(x).sae_out.contiguous()
    latents = torch.zeros(B, coder.num_latents).scatter(1, found.top_indices, found.top_acts)
    if not coder.cfg.multi_topk:
        return {"x": x, "latents": latents, "reconstruction": forward}
    decoded = coder.decode(found.top_acts, found.top_indices).contiguous()
    return {"x": x, "latents": latents, "reconstruction": decoded, "forward": forward}


def main() -> None:
    """Write every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(given.seed)
    for name, options in (CASES | REFUSED).items():
        coder = made(generator, **options)
        coder.save_to_disk(given.out / name / "checkpoint")
        if name in CASES:
            save_file(computed(coder, generator), given.out / name / "expected.safetensors")
    for dtype in (torch.bfloat16, torch.float16):
        coder, case = made(generator, dtype, **CASES["sae"]), given.out / str(dtype).removeprefix("torch.")
        coder.save_to_disk(case / "checkpoint")
        save_file(computed(coder, generator), case / "expected.safetensors")
    for name in HOOKPOINTS:
        run(given.out / name, name, generator)
    before_2025_02_12(given.out / "skip-before-transcode", generator)


def run(case: pathlib.Path, name: str, generator: torch.Generator) -> None:
    """A run's folder, as the library's trainer writes it: a coder of each hookpoint, and ``config.json``."""
    options = CASES["transcoder" if name == "transcoders" else "sae"]
    expected = {}
    for hookpoint in HOOKPOINTS[name]:
        coder = made(generator, **options)
        coder.save_to_disk(case / "checkpoint" / hookpoint)
        layer = hookpoint.split(".")[1]
        member = {"sites": {"mlp": f"{layer}.mlp_out", "self_attn": f"{layer}.attn_out"}}.get(name, {})
        member = member.get(hookpoint.rpartition(".")[2], layer)
        expected |= {f"{member}/{key}": value for key, value in computed(coder, generator).items()}
    save_file(expected, case / "expected.safetensors")
    config = TrainConfig(SparseCoderConfig(**options), hookpoints=HOOKPOINTS[name])
    config.save_json(case / "checkpoint" / "config.json")
    written = json.loads((case / "checkpoint" / "config.json").read_text())
    # the command's own configuration adds these
    written |= {
        "model": "HuggingFaceTB/SmolLM2-135M",
        "dataset": "EleutherAI/SmolLM2-135M-10B",
        "ctx_len": 2048,
    }
    (case / "checkpoint" / "config.json").write_text(json.dumps(written))


def before_2025_02_12(case: pathlib.Path, generator: torch.Generator) -> None:
    """A transcoder of when ``b_dec`` was taken off its input, and ``cfg.json`` had no ``transcode``."""
    coder = made(generator, num_latents=F, k=K, skip_connection=True)
    coder.save_to_disk(case / "checkpoint")
    path = case / "checkpoint" / "cfg.json"
    then = ("expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection")
    cfg = json.loads(path.read_text())
    path.write_text(json.dumps({name: cfg[name] for name in (*then, "d_in")} | {"signed": False}))
    again = SparseCoder.load_from_disk(case / "checkpoint")
    save_file(computed(again, generator), case / "expected.safetensors")


if __name__ == "__main__":
    main()
