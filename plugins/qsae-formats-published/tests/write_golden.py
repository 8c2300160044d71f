"""Files as the published ones, what their libraries' formulas give, and what SAELens makes of them.

    python write_golden.py OUT --seed 0

Run by a Python that has sae-lens. The formulas are written here in float64, from the code that the SAEs were
published with; ``saelens_latents`` and ``saelens_reconstruction`` beside them are what SAELens' loader of
that set computes, where it has one. Shapes: B tokens, D width, F latents.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from safetensors.torch import save_file
from torch import Tensor

B, D, F, K = 20, 16, 32, 20
RESIDUAL = "blocks.3.hook_resid_post"


def normal(*size: int, by: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (by * torch.randn(*size)).to(dtype)


def coder(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Encoder ``[F, D]`` and atoms ``[D, F]`` of norms between 1/2 and 2, with biases."""
    norms = torch.linspace(0.5, 2, F)
    atoms = torch.nn.functional.normalize(torch.randn(D, F), dim=0) * norms
    return {
        "E": normal(F, D, by=0.4, dtype=dtype),
        "e": normal(F, by=0.3, dtype=dtype),
        "D": atoms.to(dtype),
        "d": normal(D, dtype=dtype),
    }


def expected(x: Tensor, latents: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    return {"x": x, "latents": latents.float(), "reconstruction": reconstruction.float()}


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


# --- SAELens


@torch.no_grad()
def saelens(
    load: str, folder: pathlib.Path, repo: str, name: str, x: Tensor, **overrides: Any
) -> dict[str, Tensor]:
    """Of the loader's SAE, with the factor folded in that ``SAE.from_pretrained`` takes from its table.

    Args:
        name: what is loaded, as the loader is given it.
        overrides: of its configuration; ``scale`` is that factor.
    """
    scale = overrides.pop("scale", None)

    def local(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        return str(folder / (subfolder or "") / filename)

    def convert(path: object, device: str, cfg_overrides: object = None) -> Any:
        own = {**overrides, "device": device, "dtype": "float32"}
        return vars(loaders)[load](repo, name, device=device, cfg_overrides=own)[:2]

    with mock.patch.object(loaders, "hf_hub_download", local):
        sae = SAE.load_from_disk(folder, converter=convert)
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    sae.turn_off_forward_pass_hook_z_reshaping()
    return {"saelens_latents": sae.encode(x), "saelens_reconstruction": sae(x)}


# --- the sets


def qwen_scope(path: pathlib.Path) -> dict[str, Tensor]:
    """Two layers; of many tokens fewer than K latents are positive."""
    config = {
        "model_type": "topk_sae",
        "base_model": "Qwen/Qwen3-1.7B-Base",
        "d_model": D,
        "d_sae": F,
        "k": K,
    }
    more = {"num_layers": 2, "hook_point": "resid_post", "dtype": "float32"}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config | more))
    found = {}
    for layer in (0, 3):
        parts, x = coder(), normal(B, D)
        torch.save(
            {"W_enc": parts["E"], "b_enc": parts["e"], "W_dec": parts["D"], "b_dec": parts["d"]},
            path / f"layer{layer}.sae.pt",
        )
        E, e, atoms, d, x64 = doubles(*parts.values(), x)
        z = x64 @ E.T + e
        f = torch.zeros_like(z).scatter(1, z.topk(K).indices, z.topk(K).values)
        of_layer = expected(x, f, f @ atoms.T + d)
        of_layer |= saelens(
            *("qwen_scope_sae_huggingface_loader", path),
            *("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", f"layer{layer}.sae.pt", x),
            d_in=D,
            d_sae=F,
            activation_fn_kwargs={"k": K},
        )
        found |= {f"{layer}/{name}": tensor for name, tensor in of_layer.items()}
    return found


def hyperparams(**more: Any) -> dict[str, Any]:
    return {
        "hook_point_in": RESIDUAL,
        "hook_point_out": RESIDUAL,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "expansion_factor": F // D,
        "d_model": D,
        "d_sae": F,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 1.25,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 10.5, "out": 10.5},
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
        "top_k": 8,
        "dtype": "torch.bfloat16",
        **more,
    }


def llama_scope_folder(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """``SparseAutoEncoder.from_pretrained`` of lm_saes at the end of 2024, in float64."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "hyperparams.json").write_text(json.dumps(settings))
    parts = coder(torch.bfloat16)
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    save_file(dict(zip(names, parts.values(), strict=True)), path / "checkpoints" / "final.safetensors")
    x = normal(B, D, by=3)
    E, e, atoms, d, x64 = doubles(*parts.values(), x)
    norms = settings["dataset_average_activation_norm"]
    if settings["norm_activation"] == "dataset-wise":
        s_in, s_out = math.sqrt(D) / norms["in"], math.sqrt(D) / norms["out"]
        e, d, atoms = e / s_in, d / s_out, atoms * s_in / s_out
    if settings["sparsity_include_decoder_norm"]:
        n = atoms.norm(dim=0)
        atoms, E, e = atoms / n, E * n[:, None], e * n
    z = (x64 - d if settings["apply_decoder_bias_to_pre_encoder"] else x64) @ E.T + e
    if settings["act_fn"] == "relu":
        f = z.relu()
    elif settings["jump_relu_threshold"] > 0:
        f = z.where(z > settings["jump_relu_threshold"], 0)
    else:
        top = (z.relu() * atoms.norm(dim=0)).topk(settings["top_k"]).indices
        f = torch.zeros_like(z).scatter(1, top, z.relu().gather(1, top))
    return expected(x, f, f @ atoms.T + d)


def llama_scope(**more: Any) -> Callable[[pathlib.Path], dict[str, Tensor]]:
    def write(path: pathlib.Path) -> dict[str, Tensor]:
        settings = hyperparams(**more)
        found = llama_scope_folder(path, settings)
        if settings["act_fn"] == "jumprelu" and settings["hook_point_in"] == settings["hook_point_out"]:
            scale = math.sqrt(D) / settings["dataset_average_activation_norm"]["in"]
            args = ("llama_scope_sae_huggingface_loader", path.parent, "fnlp/x", path.name, found["x"])
            found |= saelens(*args, scale=scale)
        return found

    return write


def llama_scope_set(path: pathlib.Path) -> dict[str, Tensor]:
    found = {}
    for layer in (2, 11):
        hook = f"blocks.{layer}.hook_mlp_out"
        folder = path / f"Llama3_1-8B-Base-L{layer}M-8x"
        of_layer = llama_scope_folder(folder, hyperparams(hook_point_in=hook, hook_point_out=hook))
        found |= {f"{layer}/{name}": tensor for name, tensor in of_layer.items()}
    return found


def llama_scope_r1(**more: Any) -> Callable[[pathlib.Path], dict[str, Tensor]]:
    """``SparseAutoEncoder.encode`` of lm_saes in the spring of 2025, in float64."""

    def write(path: pathlib.Path) -> dict[str, Tensor]:
        settings = {
            "sae_type": "sae",
            "d_model": D,
            "expansion_factor": F // D,
            "act_fn": "jumprelu",
            "norm_activation": "dataset-wise",
            "sparsity_include_decoder_norm": True,
            "use_decoder_bias": True,
            "apply_decoder_bias_to_pre_encoder": False,
            "use_glu_encoder": False,
            "hook_point_in": RESIDUAL,
            "hook_point_out": RESIDUAL,
            **more,
        }
        path.mkdir()
        (path / "config.json").write_text(json.dumps(settings))
        parts, x = coder(), normal(B, D, by=3)
        average, log_threshold = torch.tensor(9.5), normal(F, by=0.5)
        names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        tensors = dict(zip(names, parts.values(), strict=True)) | {"log_jumprelu_threshold": log_threshold}
        norm = {f"dataset_average_activation_norm.{RESIDUAL}": average}
        save_file(tensors | norm, path / "sae_weights.safetensors")
        E, e, atoms, d, x64 = doubles(*parts.values(), x)
        s = math.sqrt(D) / average.item() if settings["norm_activation"] == "dataset-wise" else 1.0
        read = s * x64 - d if settings["apply_decoder_bias_to_pre_encoder"] else s * x64
        z = read @ E.T + e
        scores = z * atoms.norm(dim=0) if settings["sparsity_include_decoder_norm"] else z
        f = z * (scores > log_threshold.double().exp())
        found = expected(x, f, (f @ atoms.T + d) / s)
        if not settings["apply_decoder_bias_to_pre_encoder"]:
            args = ("llama_scope_r1_distill_sae_huggingface_loader", path.parent, "fnlp/x", path.name, x)
            found |= saelens(*args, scale=s)
        return found

    return write


def goodfire(path: pathlib.Path) -> dict[str, Tensor]:
    return linear_layers(
        *(path, "encoder_linear", "decoder_linear", torch.float32, "get_goodfire_huggingface_loader"),
        *("Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
    )


def deepseek_r1(path: pathlib.Path) -> dict[str, Tensor]:
    return linear_layers(
        *(path, "encoder", "decoder", torch.bfloat16, "deepseek_r1_sae_huggingface_loader"),
        *("qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"),
    )


def linear_layers(
    path: pathlib.Path, encoder: str, decoder: str, dtype: torch.dtype, load: str, repo: str, name: str
) -> dict[str, Tensor]:
    """A module with two linear layers, saved by its ``state_dict``."""
    parts, x = coder(dtype), normal(B, D)
    layers = {encoder: torch.nn.Linear(D, F), decoder: torch.nn.Linear(F, D)}
    module = torch.nn.ModuleDict(layers).to(dtype)
    for parameter, tensor in zip(module.parameters(), parts.values(), strict=True):
        parameter.data = tensor
    path.mkdir()
    torch.save(module.state_dict(), path / name)
    E, e, atoms, d, x64 = doubles(*parts.values(), x)
    f = (x64 @ E.T + e).relu()
    return expected(x, f, f @ atoms.T + d) | saelens(load, path, repo, name, x, d_in=D, d_sae=F)


def openai(activation: str | None) -> Callable[[pathlib.Path], dict[str, Tensor]]:
    def write(path: pathlib.Path) -> dict[str, Tensor]:
        parts, x = coder(), normal(B, D)
        state: dict[str, Any] = {
            "pre_bias": parts["d"],
            "latent_bias": parts["e"],
            "stats_last_nonzero": torch.zeros(F, dtype=torch.int64),
            "latents_activation_frequency": torch.ones(F),
            "latents_mean_square": torch.zeros(F),
            "encoder.weight": parts["E"],
            "decoder.weight": parts["D"],
        }
        if activation:
            options = {"k": 5, "postact_fn": "ReLU"} if activation == "TopK" else {}
            state |= {"activation": activation, "activation_state_dict": options}
        torch.save(state, path)
        E, e, atoms, d, x64 = doubles(*parts.values(), x)
        f = ((x64 - d) @ E.T + e).relu()
        return expected(x, f, f @ atoms.T + d)  # of TopK not what it computes: that file is refused

    return write


def ckkissane_z(path: pathlib.Path) -> dict[str, Tensor]:
    path.mkdir()
    found = {}
    for layer in (0, 7):
        parts, x, name = coder(), normal(B, D), f"gpt2-small_L{layer}_Hcat_z_v9"
        state = {"W_enc": parts["E"].T, "W_dec": parts["D"].T, "b_enc": parts["e"], "b_dec": parts["d"]}
        torch.save({key: tensor.contiguous() for key, tensor in state.items()}, path / f"{name}.pt")
        cfg = {"act_size": D, "dict_size": F, "layer": layer, "site": "z", "enc_dtype": "fp32", "seed": 49}
        more = {"act_name": f"blocks.{layer}.attn.hook_z", "model_name": "gpt2-small", "head": "cat"}
        (path / f"{name}_cfg.json").write_text(json.dumps(cfg | more))
        E, e, atoms, d, x64 = doubles(*parts.values(), x)
        f = ((x64 - d) @ E.T + e).relu()
        of_layer = expected(x, f, f @ atoms.T + d)
        of_layer |= saelens("connor_rob_hook_z_huggingface_loader", path, "ckkissane/x", f"{name}.pt", x)
        found |= {f"{layer}/{key}": tensor for key, tensor in of_layer.items()}
    return found


def ckkissane_crosscoder(path: pathlib.Path) -> dict[str, Tensor]:
    path.mkdir()
    W_enc, W_dec = normal(2, D, F, by=0.3), normal(F, 2, D, by=0.2)
    b_enc, b_dec, x = normal(F, by=0.3), normal(2, D), normal(B, 2, D)
    torch.save({"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec}, path / "cc_weights.pt")
    cfg = {"d_in": D, "dict_size": F, "enc_dtype": "fp32", "hook_point": "blocks.14.hook_resid_pre"}
    (path / "cfg.json").write_text(json.dumps(cfg | {"model_name": "gemma-2-2b", "site": "resid_pre"}))
    f = (torch.einsum("bld,ldf->bf", *doubles(x, W_enc)) + b_enc).relu()
    return expected(x, f, torch.einsum("bf,fld->bld", f, W_dec.double()) + b_dec)


CASES: dict[str, Callable[[pathlib.Path], dict[str, Tensor]]] = {
    "qwen-scope": qwen_scope,
    "llama-scope": llama_scope(),
    "llama-scope_one-norm": llama_scope(sparsity_include_decoder_norm=False),
    "llama-scope_topk": llama_scope(act_fn="topk", jump_relu_threshold=0.0, norm_activation="inference"),
    "llama-scope_relu": llama_scope(
        act_fn="relu", apply_decoder_bias_to_pre_encoder=True, jump_relu_threshold=0.0
    ),
    "llama-scope_transcoder": llama_scope(
        hook_point_in="blocks.3.ln2.hook_normalized",
        hook_point_out="blocks.3.hook_mlp_out",
        dataset_average_activation_norm={"in": 14.0, "out": 5.5},
    ),
    "llama-scope_set": llama_scope_set,
    "llama-scope-r1": llama_scope_r1(),
    "llama-scope-r1_plain": llama_scope_r1(norm_activation="inference", sparsity_include_decoder_norm=False),
    "llama-scope-r1_bias": llama_scope_r1(apply_decoder_bias_to_pre_encoder=True),
    "goodfire": goodfire,
    "deepseek-r1": deepseek_r1,
    "openai": openai("ReLU"),
    "openai_first": openai(None),
    "openai_refused": openai("TopK"),
    "ckkissane": ckkissane_z,
    "ckkissane_crosscoder": ckkissane_crosscoder,
}
"""``FORMAT``, or ``FORMAT_WHAT``."""


def main() -> None:
    """Write all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    for name, write in CASES.items():
        path = asked.out / name / ("checkpoint.pt" if name.startswith("openai") else "checkpoint")
        path.parent.mkdir(parents=True)
        found = write(path)
        tensors = {key: tensor.detach().contiguous().clone() for key, tensor in found.items()}
        save_file(tensors, path.parent / "expected.safetensors")


if __name__ == "__main__":
    main()
