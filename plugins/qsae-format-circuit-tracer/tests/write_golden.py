"""Checkpoints as circuit-tracer writes them, and what it computes with them; run by a Python that has it.

    python write_golden.py OUT --seed 0     makes OUT/CASE/checkpoint and OUT/CASE/expected.safetensors
    python write_golden.py OUT --compute    for checkpoints that are there, with x in OUT/CASE/x.safetensors

circuit-tracer 0.5.0 has the class TopK, and loads no file with it; its main branch (0.4.1, April 2026) does.
The files of ``topk-*`` are the main branch's, and what is expected of them is computed by the class.
Shapes: B tokens, D width, F latents, L layers.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import torch
import yaml
from circuit_tracer.transcoder import single_layer_transcoder
from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    TranscoderSet,
    load_transcoder_set,
)
from circuit_tracer.utils.caching import is_cached, load_transcoders_from_cache
from safetensors.torch import load_file, save_file
from torch import Tensor

B, D, F, L, K = 24, 16, 40, 2, 5
CPU = torch.device("cpu")
HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}


# --- made of circuit-tracer's classes


def layer(number: int, rule: str, *, skip: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    """A transcoder with biases and thresholds; every fifth atom is large, none has norm 1."""
    threshold_F = torch.rand(F) * 2 if rule == "jumprelu" else torch.randn(F)
    activation: Any = {
        "relu": torch.nn.functional.relu,
        "jumprelu": JumpReLU(threshold_F.to(dtype), 0.1),
        "negative": JumpReLU(threshold_F.to(dtype), 0.1),
        "topk": TopK(K),
    }[rule]
    found = SingleLayerTranscoder(D, F, activation, number, skip_connection=skip, device=CPU, dtype=dtype)
    for name, parameter in found.named_parameters():
        if not name.startswith("activation_function"):
            parameter.data = torch.randn(parameter.shape).to(dtype) / 3
    found.W_dec.data[::5] *= 4
    return found


def layers(rule: str, **more: Any) -> Callable[[pathlib.Path], None]:
    """Writes a folder; ``config`` and ``record`` are what stands beside the layers."""
    config, record = more.pop("config", None), more.pop("record", None)

    def write(path: pathlib.Path) -> None:
        of_each = {number: layer(number, rule, **more) for number in range(L)}
        TranscoderSet(of_each, *HOOKS.values()).to_safetensors(str(path))
        for file, text in ((config, "config.yaml"), (record, "wanb-config.yaml")):
            if file:
                (path / text).write_text(yaml.safe_dump(file))
        if rule == "topk":  # the main branch writes k, and does not load what has it
            for file in path.glob("*.safetensors"):
                save_file({name: t for name, t in load_file(file).items() if name != "k"}, file)

    return write


def topk_file(path: pathlib.Path) -> None:
    """What the main branch's ``to_safetensors`` writes; 0.5.0's leaves ``k`` out."""
    layer(0, "topk", skip=True).to_safetensors(str(path))
    save_file({**load_file(path), "k": torch.tensor(K)}, path)


def cross_layer(
    rule: str, dtype: torch.dtype, config: dict[str, Any] | None
) -> Callable[[pathlib.Path], None]:
    """Writes the folder of a cross-layer transcoder."""

    def write(path: pathlib.Path) -> None:
        clt = CrossLayerTranscoder(L, F, D, rule, lazy_decoder=False, device=CPU, dtype=dtype)
        for name, parameter in clt.named_parameters():
            parameter.data = (torch.randn(parameter.shape) / 3).to(dtype)
            if name.startswith("activation_function"):
                parameter.data = parameter.data.abs()
        clt.to_safetensors(str(path))
        if config:
            (path / "config.yaml").write_text(yaml.safe_dump(config))

    return write


def cases() -> dict[str, Callable[[pathlib.Path], None]]:
    """Name of the folder below OUT -> what writes the checkpoint."""
    config = {"model_name": "Qwen/Qwen3-0.6B", "model_kind": "transcoder_set", **HOOKS}
    gemma = {
        "model_name": "google/gemma-2-2b",
        "model_kind": "transcoder_set",
        "feature_input_hook": "ln2.hook_normalized",
        "feature_output_hook": "hook_mlp_out",
        "scan": "gemma",
    }
    llama = {
        "model_name": "meta-llama/Llama-3.2-1B",
        "model_kind": "cross_layer_transcoder",
        "feature_input_hook": "hook_resid_mid",
        "feature_output_hook": "hook_mlp_out",
    }
    return {
        "relu-set": layers("relu", config=config),
        "jumprelu-set": layers("jumprelu", dtype=torch.bfloat16, config=gemma),
        "relu-skip-set": layers(
            "relu", skip=True, record={"d_feature": {"value": F}, "d_model": {"value": D}}
        ),
        "jumprelu-skip-file": lambda path: layer(0, "jumprelu", skip=True).to_safetensors(str(path)),
        "relu-half-file": lambda path: layer(0, "relu", dtype=torch.float16).to_safetensors(str(path)),
        "negative-thresholds-file": lambda path: layer(0, "negative").to_safetensors(str(path)),
        "clt-relu": cross_layer("relu", torch.float32, llama),
        "clt-jumprelu": cross_layer("jump_relu", torch.bfloat16, None),
        "topk-set": layers("topk", config={**config, "activation": "topk", "k": K}),
        "topk-skip-file": topk_file,
    }


# --- computed by circuit-tracer's loaders


def loaded_set(path: pathlib.Path) -> Any:
    """As ``ReplacementModel.from_pretrained(model, path)`` loads a folder; one without ``config.yaml`` by its
    other loaders."""
    as_they_are = {"device": CPU, "dtype": torch.float32}
    if is_cached(str(path)):
        return load_transcoders_from_cache(str(path), **as_they_are)[0]
    if list(path.glob("W_enc_*")):
        return load_clt(str(path), **as_they_are, lazy_decoder=False)
    files = {i: str(path / f"layer_{i}.safetensors") for i in range(len(list(path.glob("layer_*"))))}
    return load_transcoder_set(files, "scan", *HOOKS.values(), **as_they_are)


def loaded_layer(path: pathlib.Path) -> Any:
    """A layer's file; one with ``k`` is loaded by hand, since circuit-tracer's strict loader refuses it."""
    loaders = vars(single_layer_transcoder)
    load = loaders.get("load_transcoder") or loaders["load_relu_transcoder"]
    tensors = load_file(path)
    if "k" not in tensors:
        return load(str(path), 0, device=CPU, lazy_encoder=False, lazy_decoder=False)
    rule, skip = TopK(int(tensors.pop("k"))), "W_skip" in tensors
    sizes = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    found = SingleLayerTranscoder(*sizes, rule, 0, skip_connection=skip, device=CPU, dtype=torch.float32)
    found.load_state_dict(tensors)
    return found


@torch.no_grad()
def computed(path: pathlib.Path, x: Tensor) -> dict[str, Tensor]:
    """What is expected of ``x``: ``[B, D]`` for a file, ``[L, B, D]`` for a folder."""
    if path.is_file():
        one = loaded_layer(path)
        return {"x": x, "latents": one.encode(x), "reconstruction": one(x)}
    several = loaded_set(path)
    if isinstance(several, CrossLayerTranscoder):
        latents_BLF, x_hat_BLD = several.encode(x).transpose(0, 1), several(x).transpose(0, 1)
        found = {"x": x.transpose(0, 1), "latents": latents_BLF.flatten(1), "reconstruction": x_hat_BLD}
        return {name: tensor.contiguous() for name, tensor in found.items()}
    config = yaml.safe_load((path / "config.yaml").read_text()) if is_cached(str(path)) else {}
    of_each = {}
    for number, one in enumerate(several):
        if config.get("activation") == "topk":
            of_each[f"{number}/latents_as_loaded"] = one.encode(x[number])
            one.activation_function = TopK(config["k"])
        given = x[number].contiguous()
        found = {"x": given, "latents": one.encode(given), "reconstruction": one(given)}
        of_each |= {f"{number}/{name}": tensor for name, tensor in found.items()}
    return {name: tensor.clone() for name, tensor in of_each.items()}


def main() -> None:
    """Go through the cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compute", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    if asked.compute:
        for given in sorted(asked.out.glob("*/x.safetensors")):
            (path,) = given.parent.glob("checkpoint*")
            save_file(computed(path, load_file(given)["x"]), given.parent / "expected.safetensors")
        return
    for name, write in cases().items():
        path = asked.out / name / ("checkpoint.safetensors" if name.endswith("-file") else "checkpoint")
        path.parent.mkdir(parents=True)
        write(path)
        x = torch.randn(B, D) if path.is_file() else torch.randn(L, B, D)
        save_file(computed(path, x), path.parent / "expected.safetensors")


if __name__ == "__main__":
    main()
