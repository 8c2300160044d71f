"""Small dense forms of every variant that a checkpoint may hold, and damaged and malicious files.

Shapes: D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

import io
import pathlib
import pickle
from collections.abc import Iterator
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from qsae_core.contracts.cross_layer import CrossLayerForm, Form, LayerForm
from qsae_core.contracts.dense import DenseForm
from qsae_core.contracts.provenance import Provenance

D, E, F, K, LAYERS = 8, 6, 24, 5, 3
PROVENANCE = Provenance.at(3, "resid_post", model="toy", context=128)
"""Of a form that reads one layer."""


def _form(seed: int, d_out: int = D, **more: Any) -> DenseForm:
    """Atoms of different norms, biases and an offset; nothing is zero, so that a forgotten tensor shows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    W_dec = normal(F, d_out) * torch.linspace(0.5, 2, F)[:, None]
    return DenseForm(normal(F, D), normal(F) / 2, W_dec, normal(d_out), **more)


def forms() -> dict[str, Form]:
    """What it is -> a form."""
    thresholds_F = torch.linspace(0.1, 1.5, F)
    skip = torch.randn(E, D, generator=torch.Generator().manual_seed(9))
    square_skip = torch.randn(D, D, generator=torch.Generator().manual_seed(26))
    return {
        "ReLU SAE": _form(0),
        "TopK SAE": _form(1, k=K),
        "TopK SAE that ranks by norm": _form(2, k=K, ranks_by_norm=True),
        "JumpReLU SAE": _form(3, activation="jumprelu", threshold=thresholds_F),
        "TopK SAE with signed latents": _form(4, activation="identity", k=K),
        "ReLU SAE that subtracts b_dec": _form(10, subtracts_b_dec=True),
        "TopK SAE that subtracts b_dec": _form(11, k=K, subtracts_b_dec=True),
        "JumpReLU SAE that subtracts b_dec": _form(
            12, activation="jumprelu", threshold=thresholds_F, subtracts_b_dec=True
        ),
        "gated SAE": _form(13, activation="gated", **_magnitudes(13), subtracts_b_dec=True),
        "gated SAE that subtracts nothing": _form(14, activation="gated", **_magnitudes(14)),
        "ReLU transcoder": _form(5, E),
        "TopK transcoder": _form(6, E, k=K),
        "JumpReLU transcoder": _form(7, E, activation="jumprelu", threshold=thresholds_F),
        "TopK transcoder with a skip connection": _form(8, E, k=K, W_skip=skip),
        "JumpReLU transcoder with a skip connection": _form(
            15, E, activation="jumprelu", threshold=thresholds_F, W_skip=skip
        ),
        "ReLU transcoder with a skip connection": _form(16, E, W_skip=skip),
        "ReLU crosscoder of two layers": _form(17, layers=2),
        "JumpReLU crosscoder of two layers": _form(
            18, activation="jumprelu", threshold=thresholds_F, layers=2
        ),
        "ReLU cross-layer transcoder": _cross_layer(19),
        "ReLU cross-layer transcoder of one width": _cross_layer(27, d_out=D),
        "TopK cross-layer transcoder": _cross_layer(20, k=K),
        "JumpReLU cross-layer transcoder with a skip connection": _cross_layer(21, jumps=True, skips=True),
        "ReLU transcoder of one width with a skip connection": _form(22, W_skip=square_skip),
        "JumpReLU transcoder of one width with a skip connection": _form(
            23, activation="jumprelu", threshold=thresholds_F, W_skip=square_skip
        ),
        "TopK transcoder of one width with a skip connection": _form(24, k=K, W_skip=square_skip),
        "TopK transcoder of one width with signed latents and a skip connection": _form(
            25, activation="identity", k=K, W_skip=square_skip
        ),
    }


def _magnitudes(seed: int) -> dict[str, Any]:
    """Of gated latents, some of whose thresholds lie below 0."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(F, generator=generator) / 2 for name in ("r_mag", "b_mag")}


def _cross_layer(
    seed: int, d_out: int = E, *, jumps: bool = False, skips: bool = False, k: int | None = None
) -> CrossLayerForm:
    """Of three layers."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    layers = [
        LayerForm(
            normal(F, D),
            normal(F) / 2,
            normal(F, LAYERS - number, d_out),
            normal(d_out),
            threshold=torch.linspace(0.1, 1.5, F) + number if jumps else None,
            W_skip=normal(d_out, D) if skips else None,
        )
        for number in range(LAYERS)
    ]
    return CrossLayerForm(tuple(layers), "jumprelu" if jumps else "relu", k)


def provenance(form: Form) -> Provenance:
    """Where the vectors of a toy form are from."""
    n_layers = form.widths[2]
    if n_layers == 1:
        return PROVENANCE
    sites = ("mlp_in", "mlp_out") if isinstance(form, CrossLayerForm) else ("resid_post", "resid_post")
    source, target = (tuple(f"{layer}.{site}" for layer in range(n_layers)) for site in sites)
    return Provenance("toy", source, target, context=128)


def vectors(form: Form) -> Tensor:
    """float64 ``[64, D]``, or ``[64, L, D]`` where a form has several layers."""
    width, _, layers, _ = form.widths
    generator = torch.Generator().manual_seed(10)
    x = torch.randn(64, layers, width, generator=generator, dtype=torch.float64)
    return x if layers > 1 else x[:, 0]


def foreign(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> path of things that are no checkpoint of a coder."""
    for name in ("empty", "text", "model"):
        (folder / name).mkdir()
    (folder / "text" / "cfg.json").write_text("[1, 2", encoding="utf-8")
    (folder / "notes.txt").write_text("no checkpoint", encoding="utf-8")
    (folder / "zero.safetensors").write_bytes(b"")
    (folder / "model" / "config.json").write_text('{"architectures": ["Llama"]}', encoding="utf-8")
    tensors = {"model.embed_tokens.weight": torch.ones(4, 2)}
    safetensors.torch.save_file(tensors, folder / "model" / "model.safetensors")
    safetensors.torch.save_file(tensors, folder / "other.safetensors")
    return {
        "an empty folder": folder / "empty",
        "a folder with a broken cfg.json": folder / "text",
        "a language model's folder": folder / "model",
        "a safetensors file of something else": folder / "other.safetensors",
        "a text file": folder / "notes.txt",
        "an empty file": folder / "zero.safetensors",
        "a path where nothing is": folder / "nothing",
    }


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, or every file of a folder."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def damages(file: pathlib.Path) -> Iterator[str]:
    """Damage a file in one way after the other, and give what was done; it is whole again at the end."""
    whole = file.read_bytes()
    broken = {"cut in half": whole[: len(whole) // 2], "emptied": b"", "overwritten": b"\xff" * len(whole)}
    for what, data in broken.items():
        file.write_bytes(data)
        yield f"{file.name} {what}"
    file.write_bytes(whole)


class _Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self.path,)


def pickles(trap: pathlib.Path) -> list[bytes]:
    """Files that make ``trap`` when they are unpickled: as pickle writes them, and as torch does."""
    buffer = io.BytesIO()
    torch.save({"W_enc": _Touch(trap)}, buffer)
    return [pickle.dumps(_Touch(trap)), buffer.getvalue()]
