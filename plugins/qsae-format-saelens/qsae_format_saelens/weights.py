"""sae_weights.safetensors as a dense form, and back.

Shapes: D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import DenseForm
from qsae_core.errors import ArtifactError
from qsae_core.reading import let_go
from qsae_format_saelens.understood import Rule, Understood

FINETUNED = ("scaling_factor", "finetuning_scaling_factor")
"""Names of what latents were multiplied with before they were decoded, before version 6."""
LOGARITHM = "log_threshold"
ROWS_AT_ONCE = 4096


def dense_of(tensors: Mapping[str, Tensor], found: Understood, where: str) -> tuple[DenseForm, list[str]]:
    """The dense form, and what was folded into it, a sentence each.

    Raises:
        ArtifactError: if a tensor is missing, of another shape, or none that the architecture has.
    """
    tensors, notes = dict(tensors), []
    factor_F = _factor(tensors, found, where)
    rule, kind = found.rule, found.rule.kind
    if kind.function == "jumprelu" and LOGARITHM in tensors and "threshold" not in tensors:
        logarithm_F = tensors.pop(LOGARITHM)
        tensors["threshold"] = logarithm_F.double().exp().float()
        notes.append("log_threshold is read as the threshold exp(log_threshold), and written so")
    _check(tensors, rule, where)
    if kind.function == "jumprelu" and bool((tensors["threshold"] < 0).any()):
        # relu(z) 1[z > threshold] is z 1[z > max(threshold, 0)]
        tensors["threshold"] = tensors["threshold"].clamp_min(0)
        notes.append("thresholds below 0 are read as 0: SAELens sets negative pre-activations to 0 as well")
    if factor_F is not None:
        tensors["W_dec"] = _times(tensors["W_dec"], factor_F)
        notes.append(
            "scaling_factor, which SAELens 6 does not load, is multiplied into W_dec; latents are before it"
        )
    fields: dict[str, Any] = {name: tensors[name] for name in ("W_dec", "b_dec")}
    fields["W_enc"] = tensors["W_enc"].T
    fields["b_enc"] = tensors["b_gate" if kind.function == "gated" else "b_enc"]
    for name in ("threshold", "r_mag", "b_mag", "W_skip"):
        fields[name] = tensors.get(name)
    dense = DenseForm(
        **fields,
        activation=kind.function,
        k=rule.k,
        ranks_by_norm=rule.rescales,
        subtracts_b_dec=rule.subtracts_b_dec,
    )
    return dense, notes


def _factor(tensors: dict[str, Tensor], found: Understood, where: str) -> Tensor | None:
    """What latents are multiplied with, taken out of the tensors; None where it is nothing or all ones."""
    names = [name for name in FINETUNED if name in tensors]
    if not names:
        return None
    factor_F = tensors.pop(names[0])
    ones = torch.ones_like(factor_F)
    if torch.allclose(factor_F, ones):  # as SAELens decides it
        return None
    if not found.is_finetuned or found.rule.rescales or len(names) > 1:
        raise ArtifactError(
            f"{names[0]} is not 1, and finetuning_scaling_factor of cfg.json is not true, so it is not said "
            "whether it counts",
            where=where,
            allowed="one factor for each latent, with finetuning_scaling_factor: true",
            next='write "finetuning_scaling_factor": true into cfg.json, or leave the tensor out',
        )
    if tuple(factor_F.shape) != (found.rule.d_sae,):
        raise _shape(names[0], factor_F, (found.rule.d_sae,), where)
    return factor_F


def _times(W_FE: Tensor, factor_F: Tensor) -> Tensor:
    """float32: rows times their factors, in float64 a few at a time, and rounded once."""
    rows = zip(W_FE.split(ROWS_AT_ONCE), factor_F.split(ROWS_AT_ONCE), strict=True)
    return torch.cat([(W.double() * factor.double()[:, None]).float() for W, factor in rows])


def _check(tensors: Mapping[str, Tensor], rule: Rule, where: str) -> None:
    """Refuse tensors that SAELens would refuse too: it loads neither fewer nor more than a variant has."""
    wanted = rule.kind.tensors
    missing, more = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
    if missing or more:
        faults = [f"there is no tensor {name}" for name in missing] + [
            f"it has no place for {n}" for n in more
        ]
        raise ArtifactError(
            f"architecture {rule.architecture!r}: {', and '.join(faults[:6])}",
            where=where,
            allowed=", ".join(sorted(wanted)),
        )
    vector = (rule.d_sae,)
    sizes = {"W_enc": (rule.d_in, rule.d_sae), "W_dec": (rule.d_sae, rule.d_out), "b_dec": (rule.d_out,)}
    sizes |= {"W_skip": (rule.d_out, rule.d_in)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes.get(name, vector):
            raise _shape(name, tensor, sizes.get(name, vector), where)
        if tensor.dtype == torch.float64:
            raise ArtifactError(
                f"{name} is float64",
                where=where,
                allowed="float32, float16, bfloat16",
                next="in SAELens: SAE.load_from_disk(PATH, dtype='float32').save_model(OTHER)",
            )


def _shape(name: str, tensor: Tensor, wanted: tuple[int, ...], where: str) -> ArtifactError:
    return ArtifactError(
        f"{name} has shape {list(tensor.shape)}, and d_in, d_sae and d_out ask for {list(wanted)}",
        where=where,
        allowed="both files of one coder",
    )


def writable(dense: DenseForm, kind: str, where: str) -> tuple[DenseForm, Rule]:
    """A dense form that SAELens has a place for, which computes the same, and what it is called there.

    Args:
        kind: ``sae`` or ``transcoder``.

    Raises:
        ArtifactError: if there is none.
    """
    d_in, d_out = dense.W_enc.shape[1], dense.W_dec.shape[1]
    own_class = dense.W_skip is not None or d_in != d_out or (kind == "transcoder" and dense.k is None)
    if own_class or kind == "transcoder":
        dense = dense.with_offset(False)
    if own_class and dense.activation == "gated":
        dense = dense.plain()  # there are no gated transcoders; it is a jumprelu
    reason = _refusal(dense, own_class)
    if reason is not None:
        raise ArtifactError(
            f"SAELens has no place for a coder with {reason}",
            where=where,
            allowed="relu, relu and the k largest latents, jumprelu, gated; transcoders: relu or jumprelu, "
            "with or without W_skip",
        )
    if own_class:
        words = (
            "jumprelu" * (dense.activation == "jumprelu"),
            "skip" * (dense.W_skip is not None),
            "transcoder",
        )
        name = "_".join(filter(None, words))
    else:
        name = (
            "topk" if dense.k is not None else "standard" if dense.activation == "relu" else dense.activation
        )
    rescales = dense.k is not None and dense.ranks_by_norm
    if rescales:
        dense = without_zero_atoms(dense)
    return dense, Rule(name, d_in, dense.n_latents, d_out, dense.subtracts_b_dec, dense.k, rescales)


def without_zero_atoms(dense: DenseForm) -> DenseForm:
    """The same function without atoms of norm 0, by which SAELens would divide: a latent that writes nothing
    gets any direction, and an encoder that never fires."""
    rows = dense.W_dec.split(ROWS_AT_ONCE)
    zero_F = torch.cat([(part == 0).all(1) for part in rows])
    for part in rows:
        let_go(part)
    if not bool(zero_F.any()):
        return dense
    W_enc, W_dec, b_enc = (t.clone() for t in (dense.W_enc, dense.W_dec, dense.b_enc))
    W_enc[zero_F], b_enc[zero_F], W_dec[zero_F, 0] = 0.0, -1.0, 1.0
    return replace(dense, W_enc=W_enc, W_dec=W_dec, b_enc=b_enc)


def _refusal(dense: DenseForm, own_class: bool) -> str | None:
    if dense.layers > 1:
        return f"the vectors of {dense.layers} layers in one"
    if dense.activation == "identity":
        return "signed latents: it sets negative pre-activations to 0"
    if dense.k is not None and dense.activation != "relu":
        return f"activation {dense.activation} and the {dense.k} largest latents"
    if dense.k is not None and own_class:
        width = "W_skip" if dense.W_skip is not None else "an output of another width than its input"
        return f"the {dense.k} largest latents and {width}"
    if dense.threshold is not None and bool((dense.threshold < 0).any()):
        return "thresholds below 0: it sets negative pre-activations to 0"
    return None


def tensors_of(dense: DenseForm) -> dict[str, Tensor]:
    """SAELens' name -> tensor, of a form that ``writable`` gave."""
    found = dense.tensors()
    names = {"b_enc": "b_gate"} if dense.activation == "gated" else {}
    tensors = {names.get(name, name): tensor for name, tensor in found.items()}
    tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    let_go(dense.W_enc)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
