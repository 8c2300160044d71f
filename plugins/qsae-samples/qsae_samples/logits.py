"""Which next tokens an atom speaks for: the language model's own last norm and head, applied to the atom.

The atom takes the place of the last layer's output, at every position of a context, and what the model then
predicts is compared with what it predicts from a vector of zeros there. Shapes: F latents, B contexts,
T positions, D width, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsae_core.contracts import Edit, EvaluationContext, LanguageModel, Site, TokenBatch
from qsae_core.errors import QsaeError
from qsae_samples.files import packed, spelled

if TYPE_CHECKING:
    from qsae_samples.text import Pieces

RESIDUAL = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Sites whose vectors are, or are added to, what the head reads."""
POSITIONS = 512
"""Atoms that go through the model at once."""
LOGIT_BINS = 50
"""Of equal width, from the least logit of an atom to its largest."""


@torch.no_grad()
def logit_arrays(
    context: EvaluationContext, tokens: TokenBatch | None, n: int, pieces: Pieces
) -> Mapping[str, NDArray[Any]]:
    """The n tokens that each atom raises most, and the n that it lowers most, beside mean and histogram of
    all; nothing where the model has no
    head, or the atoms are not of the residual stream, or of several layers.

    Args:
        tokens: a context of the model, whichever.
        pieces: of the model's tokenizer.
    """
    model = cast(LanguageModel, context.data.language_model())
    sites = context.data.target_sites
    if not n or tokens is None or not model.has_logits or len(sites) != 1 or sites[0].name not in RESIDUAL:
        return {}
    some = TokenBatch(tokens.ids, tokens.counted, tokens.attention)
    site = last_site(model, some)
    coder = context.coder
    latents_F = torch.arange(coder.n_latents, device=coder.device)
    ids, values, means, counts = [], [], [], []
    zero_V = _predicted(model, some, site, torch.zeros_like(coder.atoms_of(latents_F[:1])))[0]
    for part in latents_F.split(POSITIONS):
        found = (_predicted(model, some, site, coder.atoms_of(part)) - zero_V).cpu()
        n_shown = min(n, found.shape[1])
        raised, lowered = found.topk(n_shown), found.topk(n_shown, largest=False)
        ids.append(torch.stack([raised.indices, lowered.indices], 1))
        values.append(torch.stack([raised.values, lowered.values], 1))
        means.append(found.mean(1))
        counts += [row.histc(LOGIT_BINS) for row in found]
    known, rows = torch.cat(ids).unique(return_inverse=True)
    return {
        "logit_token": rows.numpy().astype(np.uint32),
        "logit_value": torch.cat(values).numpy().astype(np.float32),
        "logit_mean": torch.cat(means).numpy().astype(np.float32),
        "logit_histogram": torch.stack(counts).numpy().astype(np.uint32),
        "logit_ids": known.numpy().astype(np.uint32),
        "logit_text": packed([pieces.behind(token) for token in known.tolist()]),
        "logit_bytes": packed([spelled(model.partial_bytes(token)) for token in known.tolist()]),
    }


def last_site(model: LanguageModel, tokens: TokenBatch) -> Site:
    """Where the last layer's output is; a model refuses an edit of a layer that it does not have."""
    lowest, above = 0, 1
    while _has(model, tokens, above):
        lowest, above = above, 2 * above
    while above - lowest > 1:
        middle = (lowest + above) // 2
        lowest, above = (middle, above) if _has(model, tokens, middle) else (lowest, middle)
    return Site(lowest, "resid_post")


def _has(model: LanguageModel, tokens: TokenBatch, layer: int) -> bool:
    try:
        model.logits(tokens, {Site(layer, "resid_post"): Edit(lambda vectors, _: vectors)})
    except QsaeError:
        return False
    return True


def _predicted(model: LanguageModel, tokens: TokenBatch, site: Site, vectors_ND: Tensor) -> Tensor:
    """float32 ``[N, V]``: the logits of vectors in the place of the last layer's output."""
    n, length = len(vectors_ND), tokens.ids.shape[1]
    n_contexts = -(-n // length)

    def replace(old: Tensor, _: Mapping[Site, Tensor]) -> Tensor:
        new = old.new_zeros(n_contexts * length, old.shape[2])
        new[:n] = vectors_ND.to(new)
        return new.view(n_contexts, length, -1)

    contexts = tokens.rows(torch.zeros(n_contexts, dtype=torch.int64))
    return model.logits(contexts, {site: Edit(replace)}).flatten(0, 1)[:n]
