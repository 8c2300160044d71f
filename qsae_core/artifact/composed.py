"""The coder of installed components that computes what a checkpoint does; nothing is approximated.

Shapes: D in, F latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import compose_coder
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.cross_layer import CrossLayerForm, Form
from qsae_core.contracts.dense import ROWS_AT_ONCE, DenseForm
from qsae_core.contracts.format import Checkpoint
from qsae_core.errors import ArtifactError, ConfigError, PluginError
from qsae_core.kinds import CODER_SLOTS, HALF, PART_SLOTS, QUANTIZER_SLOTS, SLOTS
from qsae_core.reading import let_go

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def compose_checkpoint(checkpoint: Checkpoint, registry: Registry, place: str) -> MatrixCoder:
    """The coder that a checkpoint describes, in evaluation mode.

    Args:
        place: what errors call the checkpoint.

    Raises:
        ArtifactError: if installed components do not compute what its form does, with what differs.
        PluginError: if one of them is not installed.
    """
    form, chosen = checkpoint.form, blocks(checkpoint, registry)
    shape = CoderShape(*form.widths)
    try:
        with blank_rows():  # take_form fills them
            coder = compose_coder(chosen, registry, shape, place=place)
    except ConfigError as error:
        raise ArtifactError(error.what, where=place, allowed=error.allowed, next=error.next) from error
    name = next(chosen[slot]["use"] for slot in CODER_SLOTS if slot in chosen)
    try:
        wanted = coder.form_to_take(form)
        coder.take_form(wanted)
    except ConfigError as error:
        raise ArtifactError(error.what, where=place) from error
    _let_go(form, wanted)
    reason = _difference(coder, wanted)
    if reason is not None:
        raise ArtifactError(f"'{name}' does not compute what the checkpoint does: {reason}", where=place)
    return coder.eval()


def _let_go(*forms: Form) -> None:
    """The memory of the files that they are views of."""
    for form in forms:
        for tensor in form.tensors().values():
            let_go(tensor)


def blocks(checkpoint: Checkpoint, registry: Registry) -> dict[str, dict[str, Any]]:
    """Slot -> block of a coder of the checkpoint's sizes, with its own components where it names some.

    Raises:
        PluginError: if one is not installed.
    """
    form, slot = checkpoint.form, checkpoint.kind
    found: dict[str, dict[str, Any]] = {name: {"use": "none"} for name in QUANTIZER_SLOTS}
    found |= _stored_as(form, registry)
    if form.activation != "gated":  # that is the SAE's own, and no component
        found["activation"] = {"use": form.activation}
    found["sparsity"] = {"use": "none"} if form.k is None else {"use": "topk", "k": form.k}
    found[slot] = {"use": _usual_coder(form, slot, registry)}
    for name, block in checkpoint.components.items():
        if name in (slot, *PART_SLOTS):
            found[name] = dict(block)
    for name, block in found.items():
        _check_installed(name, block, registry)
    found[slot] |= {"n_latents": form.n_latents, "normalize": "none", "rotate": False}
    spec = registry.get(slot, found[slot]["use"])
    fields = spec.config.model_fields
    if "skip" in fields:
        found[slot]["skip"] = any(name.endswith("W_skip") for name in form.tensors())
    if "subtract_b_dec" in fields:
        found[slot]["subtract_b_dec"] = isinstance(form, DenseForm) and form.subtracts_b_dec
    parts = spec.default_parts
    return {name: block for name, block in found.items() if parts.get(name, {}) is not None}


def _stored_as(form: Form, registry: Registry) -> dict[str, dict[str, Any]]:
    """Slot -> quantizer that keeps a matrix in the 16-bit type in which the file has it; where none is
    installed, or several matrices are of several types, float32 holds them too."""
    if HALF not in registry.names("quantizer"):
        return {}
    found = {}
    for slot, name in (("encoder_quantizer", "W_enc"), ("quantizer", "W_dec")):
        types = {tensor.dtype for key, tensor in form.tensors().items() if key.endswith(name)}
        if types in ({torch.bfloat16}, {torch.float16}):
            found[slot] = {"use": HALF, "dtype": str(types.pop()).removeprefix("torch.")}
    return found


def _usual_coder(form: Form, slot: str, registry: Registry) -> str:
    """The SAE that is trained with this activation and rule; the transcoder, or another one that there is."""
    if isinstance(form, CrossLayerForm):
        return "cross-layer-transcoder"
    if slot == "transcoder":
        installed = registry.names(slot)
        return slot if slot in installed or not installed else installed[0]
    if form.layers > 1:
        return "crosscoder"
    if form.activation == "gated":
        return "gated"
    plain_rank = form.k is not None and not form.ranks_by_norm
    return "topk" if plain_rank else "jumprelu" if form.activation == "jumprelu" else "vanilla"


def _check_installed(slot: str, block: Mapping[str, Any], registry: Registry) -> None:
    kind = SLOTS[slot].kind
    if block["use"] in registry.names(kind):
        return
    raise PluginError(
        f"the checkpoint takes {kind} '{block['use']}', which is not installed",
        allowed=f"installed: {', '.join(registry.names(kind)) or 'none'}",
        next=f"pip install qsae-{kind}-{block['use']}, or the family of plugins that has it",
    )


@torch.no_grad()
def _difference(coder: MatrixCoder, wanted: Form) -> str | None:
    """What the coder's own form has otherwise, to the last bit."""
    try:
        found = coder.form()
    except ConfigError as error:
        return error.what
    for name, value in vars(wanted).items():
        own = getattr(found, name, None)
        if isinstance(value, str | int | None) and not isinstance(own, Tensor) and own != value:
            return f"{name} is {value}, and the coder's is {own}"
    own_tensors = found.tensors()
    for name, tensor in wanted.tensors().items():
        if name not in own_tensors:
            return f"it has {name}, which the coder has no place for"
        off = _largest_difference(own_tensors[name], tensor)
        if off:
            return f"{name} differs by up to {off:.3g}"
    return None


def _largest_difference(own: Tensor, wanted: Tensor) -> float:
    """Between two tensors of a shape, a few rows at a time."""
    largest = 0.0
    for a, b in zip(own.split(ROWS_AT_ONCE), wanted.split(ROWS_AT_ONCE), strict=True):
        largest = max(largest, float((a.float() - b.float()).abs().max()))
        let_go(own)
        let_go(wanted)
    return largest
