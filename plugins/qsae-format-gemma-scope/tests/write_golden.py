"""Small files of Gemma Scope, and what other libraries make of them; run in such a library's environment.

    python write_golden.py OUT [--seed N]      folders for qsae_core.conformance.check_golden
    python write_golden.py --compute LIST      what is asked for in a JSON file, of files that are there

The files are written here with numpy and safetensors, under the names that Google's have, since no library
writes them. With SAELens installed, its loaders compute what is expected of SAEs and transcoders; with
circuit-tracer, its own of transcoders and cross-layer transcoders. Crosscoders are in none; of these the
formula of the technical report is computed in float64. Shapes: B tokens, L layers, D width, F latents.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

B, D, F = 48, 16, 24
HAS_SAELENS = importlib.util.find_spec("sae_lens") is not None


class Case(NamedTuple):
    """A golden folder."""

    name: str
    loader: str
    """What computes it: a key of LOADERS."""
    repository: str
    folders: dict[str, str]
    """Name of a member, or nothing of a single coder -> its folder in the repository."""
    config: dict[str, Any] | None = None
    """Of Gemma Scope 2: beside what follows from its shapes."""
    old: bool = False
    """Names of older files, and a scaling factor."""
    d_out: int = D
    layers: int = 1


def at(layer: int | str, module: str, *more: str) -> dict[str, str]:
    target = more[0] if more else module
    return {f"hf_hook_point_{s}": f"model.layers.{layer}.{m}" for s, m in (("in", module), ("out", target))}


ATTENTION, MLP_IN, MLP_OUT = (
    "self_attn.o_proj.input",
    "pre_feedforward_layernorm.output",
    "post_feedforward_layernorm.output",
)
ONE, PT = "gemma-3-1b-pt", {"model_name": "google/gemma-3-1b-pt"}
SAELENS = [
    Case("res", "gemma_2", "gemma-scope-2b-pt-res", {"": "layer_20/width_16k/average_l0_71"}),
    Case(
        "mlp-set",
        "gemma_2",
        "gemma-scope-9b-pt-mlp",
        {"3": "layer_3/width_16k/average_l0_61", "11": "layer_11/width_16k/average_l0_8"},
    ),
    Case("att", "gemma_2", "gemma-scope-9b-it-att", {"": "layer_0/width_16k/canonical"}),
    Case("old-names", "gemma_2", "gemma-scope-2b-pt-res", {"": "layer_5/width_1m"}, old=True),
    Case("embedding", "gemma_2", "gemma-scope-2b-pt-res", {"": "embedding/width_4k/average_l0_6"}),
    Case(
        "transcoder",
        "gemma_2_transcoder",
        "gemma-scope-2b-pt-transcoders",
        {"": "layer_4/width_16k/average_l0_88"},
    ),
    Case(
        "two-res",
        "gemma_3",
        "gemma-scope-2-270m-pt",
        {"": "resid_post/layer_5_width_16k_l0_small"},
        {"model_name": "google/gemma-3-270m-pt", "l0": 20, "type": "sae", **at(5, "output")},
    ),
    Case(
        "two-mlp-set",
        "gemma_3",
        "gemma-scope-2-1b-it",
        {str(n): f"mlp_out_all/layer_{n}_width_16k_l0_big" for n in (2, 10)},
        {"model_name": "gemma-v3-1b-it", "l0": 120, "type": "sae", **at("{}", MLP_OUT)},
    ),
    Case(
        "two-attention",
        "gemma_3",
        "gemma-scope-2-1b-pt",
        {"": "attn_out/layer_7_width_16k_l0_medium"},
        {**PT, "l0": 60, "type": "sae", **at(7, ATTENTION)},
    ),
    Case(
        "two-transcoder",
        "gemma_3",
        "gemma-scope-2-1b-pt",
        {"": "transcoder/layer_7_width_16k_l0_medium"},
        {**PT, "l0": 60, "type": "transcoder", **at(7, MLP_IN, MLP_OUT)},
        d_out=12,
    ),
    Case(
        "two-transcoder-affine",
        "gemma_3",
        "gemma-scope-2-1b-pt",
        {"": "transcoder_all/layer_25_width_16k_l0_big_affine"},
        {**PT, "l0": 120, "type": "transcoder", **at(25, MLP_IN, MLP_OUT)},
    ),
    Case(
        "two-without-config",
        "gemma_3",
        "gemma-scope-2-4b-it",
        {"": "transcoder/layer_17_width_262k_l0_small_affine"},
    ),
    Case(
        "two-crosscoder",
        "published",
        "gemma-scope-2-1b-pt",
        {"": "crosscoder/layer_7_13_22_width_65k_l0_medium"},
        {**PT, "l0": 60, "type": "crosscoder", **at("{7,13,22}", "output")},
        layers=3,
    ),
]
CIRCUIT_TRACER = [
    Case(
        "clt",
        "gemma_scope_2_clt",
        "gemma-scope-2-270m-pt",
        {"": "clt/width_262k_l0_big"},
        {"model_name": "google/gemma-3-270m-pt", "l0": 150, "type": "clt", **at("{all}", MLP_IN, MLP_OUT)},
        layers=3,
    ),
    Case(
        "clt-affine",
        "gemma_scope_2_clt",
        "gemma-scope-2-1b-it",
        {"": "clt/width_262k_l0_medium_affine"},
        layers=3,
    ),
    Case(
        "traced-transcoder",
        "gemma_scope_transcoder",
        "gemma-scope-2b-pt-transcoders",
        {"": "layer_4/width_16k/average_l0_88"},
    ),
    Case(
        "traced-affine",
        "gemma_scope_2_transcoder",
        "gemma-scope-2-1b-pt",
        {"": "transcoder_all/layer_25_width_16k_l0_big_affine"},
        {**PT, "l0": 120, "type": "transcoder", **at(25, MLP_IN, MLP_OUT)},
    ),
]

# --- files


def weights(rng: np.random.Generator, case: Case, number: int, affine: bool) -> dict[str, np.ndarray]:
    """A layer's tensors: nothing is 0 that may be something, and no norm is 1."""
    n_latents = F // 2 if case.layers > 1 else F
    norms = rng.uniform(0.5, 2, n_latents)
    found = {
        "w_enc": rng.normal(size=(D, n_latents)),
        "w_dec": rng.normal(size=(n_latents, case.d_out)) * norms[:, None],
        "b_enc": rng.normal(size=n_latents) / 2,
        "b_dec": rng.normal(size=case.d_out),
        "threshold": rng.uniform(0.1, 2, n_latents),
    }
    if case.layers > 1:
        found["w_dec"] = rng.normal(size=(n_latents, case.layers, D)) * norms[:, None, None]
        found["w_dec"][:, :number] = 0
    if affine:
        found["affine_skip_connection"] = rng.normal(size=(D, case.d_out))
    return {name: values.astype("float32") for name, values in found.items()}


def write(case: Case, root: pathlib.Path, rng: np.random.Generator) -> None:
    """The files of a case, below ``root/REPOSITORY``."""
    for name, place in case.folders.items():
        folder = root / case.repository / place
        folder.mkdir(parents=True)
        affine = place.endswith("_affine")
        layers = [weights(rng, case, number, affine) for number in range(case.layers)]
        if case.repository.startswith("gemma-scope-2-"):
            for number, tensors in enumerate(layers):
                file = f"params_layer_{number}" if case.layers > 1 else "params"
                save_arrays(tensors, folder / f"{file}.safetensors")
            if case.config is not None:
                width = sum(len(tensors["b_enc"]) for tensors in layers)
                known = {key: v.format(name) if "{}" in str(v) else v for key, v in case.config.items()}
                known |= {"width": width, "architecture": "jump_relu", "affine_connection": affine}
                (folder / "config.json").write_text(json.dumps(known))
            continue
        arrays = {key if case.old else key.replace("w_", "W_"): values for key, values in layers[0].items()}
        if case.old:
            arrays["scaling_factor"] = np.ones(F, dtype="float32")
        np.savez(folder / "params.npz", **arrays)


# --- what computes them: each takes root, repository, folder and x, and gives latents and reconstruction


def saelens(name: str, root: pathlib.Path, repository: str, folder: str, x: torch.Tensor) -> Any:
    """One of SAELens' loaders, as SAE.from_pretrained calls it, with files that are here."""
    from huggingface_hub.utils import EntryNotFoundError
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def here(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        path = root / repo_id.removeprefix("google/") / subfolder / filename
        if not path.exists():
            raise EntryNotFoundError(str(path))
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return {key: list(tensor.shape) for key, tensor in load_file(here(repo_id, filename)).items()}

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = here, shapes
    sizes: dict[str, int] = {}
    if name.startswith("gemma_2"):  # takes the sizes of the published ones from names
        arrays = np.load(root / repository / folder / "params.npz")
        d_in, d_sae = arrays["w_enc" if "w_enc" in arrays else "W_enc"].shape
        sizes = {"d_in": d_in, "d_sae": d_sae} | ({"d_out": len(arrays["b_dec"])} if "trans" in name else {})

    def converter(cfg_overrides: dict[str, Any], **options: Any) -> Any:
        loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[name]
        return loader(cfg_overrides={**cfg_overrides, **sizes}, **options)

    sae = SAE.from_pretrained(f"google/{repository}", folder, converter=converter)
    if sae.cfg.reshape_activations == "hook_z":  # it takes the heads apart from each other
        heads = x.unflatten(-1, (4, -1))
        return sae.encode(heads), sae(heads).flatten(-2)
    return sae.encode(x), sae(x)


def traced(name: str, root: pathlib.Path, repository: str, folder: str, x: torch.Tensor) -> Any:
    """One of circuit-tracer's loaders."""
    from circuit_tracer.transcoder import cross_layer_transcoder, single_layer_transcoder

    place, device = root / repository / folder, torch.device("cpu")
    if name == "gemma_scope_2_clt":
        paths = {n: str(place / f"params_layer_{n}.safetensors") for n in range(x.shape[1])}
        paths[len(paths)] = paths[0]  # it reads one file less than it is given
        clt = cross_layer_transcoder.load_gemma_scope_2_clt(paths, device=device, dtype=torch.float32)
        latents = clt.encode(x.transpose(0, 1))
        output = clt.decode(latents.to_sparse(), x.transpose(0, 1))
        return latents.transpose(0, 1).flatten(1), output.transpose(0, 1)
    load = getattr(single_layer_transcoder, f"load_{name}")
    file = "params.npz" if name == "gemma_scope_transcoder" else "params.safetensors"
    transcoder = load(str(place / file), 0, device=device, dtype=torch.float32)
    latents = transcoder.encode(x)
    return latents, transcoder.decode(latents, x)


def published(name: str, root: pathlib.Path, repository: str, folder: str, x: torch.Tensor) -> Any:
    """The formula of the technical report, in float64: latents read one layer and write to all."""
    place, x = root / repository / folder, x.double()
    latents, output = [], torch.zeros_like(x)
    for layer in range(x.shape[1]):
        p = {key: t.double() for key, t in load_file(place / f"params_layer_{layer}.safetensors").items()}
        z = x[:, layer] @ p["w_enc"] + p["b_enc"]
        latents.append(torch.where(z > p["threshold"], z.clamp_min(0), 0))
        output[:, layer] += p["b_dec"]
        for target in range(x.shape[1]):
            output[:, target] += latents[-1] @ p["w_dec"][:, target]
    return torch.cat(latents, dim=1), output


LOADERS = {
    **dict.fromkeys(("gemma_2", "gemma_2_transcoder", "gemma_3"), saelens),
    **dict.fromkeys(("gemma_scope_transcoder", "gemma_scope_2_transcoder", "gemma_scope_2_clt"), traced),
    "published": published,
}


@torch.no_grad()
def compute(loader: str, root: pathlib.Path, repository: str, folder: str, x: torch.Tensor) -> dict[str, Any]:
    """x, latents and reconstruction."""
    latents, output = LOADERS[loader](loader, root, repository, folder, x)
    found = {"x": x, "latents": latents.float(), "reconstruction": output.float()}
    return {name: tensor.contiguous() for name, tensor in found.items()}


@torch.no_grad()
def embedded(case: Case, root: pathlib.Path, x: torch.Tensor) -> dict[str, Any]:
    """Of vectors as the embedding has them. SAELens' is for sqrt(d) times these, and has b_dec once there."""
    (folder,) = case.folders.values()
    scale = math.sqrt(D)
    latents, output = saelens(case.loader, root, case.repository, folder, x * scale)
    b_dec = torch.from_numpy(np.load(root / case.repository / folder / "params.npz")["b_dec"])
    found = {"x": x, "latents": latents, "reconstruction": (output - b_dec) / scale + b_dec}
    return {name: tensor.contiguous() for name, tensor in (found | {"saelens": output / scale}).items()}


def write_golden(out: pathlib.Path, seed: int) -> None:
    """Every case that this environment can compute."""
    rng = np.random.default_rng(seed)
    for case in SAELENS if HAS_SAELENS else CIRCUIT_TRACER:
        root = out / case.name / "checkpoint"
        write(case, root, rng)
        expected = {}
        for name, folder in case.folders.items():
            shape = (B, D) if case.layers == 1 else (B, case.layers, D)
            x = torch.from_numpy(rng.normal(size=shape).astype("float32"))
            if case.name == "embedding":
                found = embedded(case, root, x)
            else:
                found = compute(case.loader, root, case.repository, folder, x)
            expected |= {f"{name}/{key}".lstrip("/"): tensor for key, tensor in found.items()}
        save_file(expected, out / case.name / "expected.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compute", type=pathlib.Path)
    options = parser.parse_args()
    if options.out is not None:
        write_golden(options.out, options.seed)
    for asked in json.loads(options.compute.read_text()) if options.compute is not None else ():
        place = (pathlib.Path(asked["root"]), asked["repository"], asked["folder"])
        x = load_file(asked["x"])["x"]
        save_file(compute(asked["loader"], *place, x), asked["out"])


if __name__ == "__main__":
    main()
