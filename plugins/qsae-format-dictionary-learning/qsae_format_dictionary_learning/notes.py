"""What a user should know of a file, beside what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsae_core.contracts import DenseForm
from qsae_format_dictionary_learning.classes import BY_THRESHOLD
from qsae_format_dictionary_learning.settings import dict_class
from qsae_format_dictionary_learning.state import State

ROWS_AT_ONCE = 4096
UNIT = 1e-5
"""By which norms may differ from 1 where the library takes them for 1 (``torch.allclose``)."""


def of(
    name: str, dense: DenseForm, kept: Mapping[str, Any], trainer: Mapping[str, Any], state: State
) -> tuple[str, ...]:
    """Sentences, those that apply."""
    said = []
    if name == "AutoEncoder" and not _has_unit_norms(dense):
        said.append(
            "AutoEncoder.from_pretrained multiplies latents by the norms of their atoms unless it is called "
            "with normalize_decoder=False; here they are as they were trained"
        )
    if name in BY_THRESHOLD and kept["threshold"]["value"] < 0:
        said.append("its threshold was never set (-1), so every latent above 0 is active")
    if dict_class(trainer) not in (None, name):
        said.append(f"config.json says {dict_class(trainer)}, and its tensors are those of {name}")
    own, k = kept.get("k", {}).get("value"), trainer.get("k")
    if own is not None and k not in (None, own):
        said.append(f"config.json says k = {k}, and ae.pt {own}; load_dictionary refuses that")
    if state.step is not None:
        scaled = (
            f", biases multiplied by its norm_factor {state.norm_factor:.6g}" if state.norm_factor else ""
        )
        said.append(f"it is a backup of step {state.step}, from which training was to go on{scaled}")
    return tuple(said)


def _has_unit_norms(dense: DenseForm) -> bool:
    parts = dense.W_dec.split(ROWS_AT_ONCE)
    return all(bool((rows.float().norm(dim=1) - 1).abs().max() <= UNIT) for rows in parts)
