"""Latents by what they do to the output: the output score.

What activates a latent and what it makes the model say may differ, and steering is worth most with latents
that do what their atoms say (Arad, Mueller and Belinkov 2025, "SAEs Are Good for Steering -- If You Select
the Right Features"). Shapes: C latents that are ranked, T positions, D width, V vocabulary, M tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Edit as SiteEdit
from qsae_core.contracts import LanguageModel, Site, SparseCoder, TokenBatch
from qsae_core.errors import ConfigError, DataError, QsaeError
from qsae_splice.compare import divergence
from qsae_splice.passes import whole_pass
from qsae_splice.positions import Positions

VERSION = 1


class Ranked(NamedTuple):
    """A latent's effect on the prediction behind the prompt."""

    latent: int
    score: float
    """``sum_{t in M} p'(t) - p(t)``: how much probability comes to the tokens that its atom writes."""
    chance: float | None
    """The same of the prediction under another latent of the list; None where there is no other."""
    kl: float
    """KL(p || p') in nats: how much changes at all."""
    writes: list[int]
    """M: the tokens that the atom writes: the largest logits of the atom alone at the last layer's end."""
    rises: list[int]
    """Tokens whose probability really rises most."""


@torch.no_grad()
def rank_by_output(
    model: LanguageModel,
    coder: SparseCoder,
    site: Site,
    batch: TokenBatch,
    latents: Sequence[int],
    *,
    norm: float,
    strength: float = 1.0,
    positions: Positions,
    n_tokens: int = 10,
    text_of: Callable[[int], str],
) -> list[Ranked]:
    """Latents by their output score on a prompt, largest first.

    Args:
        batch: one context.
        norm: mean norm of the vectors at the site.
        strength: norm of what is added, in mean norms.
        positions: where it is added.
        n_tokens: M.
    """
    index_C = torch.tensor(latents, device=coder.device)
    atoms_CD = coder.atoms_of(index_C)
    lengths_C1 = atoms_CD.norm(dim=1, keepdim=True)
    if not bool(lengths_C1.all()):
        silent = [latents[i] for i in (lengths_C1[:, 0] == 0).nonzero()[:, 0].tolist()]
        raise DataError(f"the decoder rows of latents {silent[:5]} are zero, so they write nothing")
    moves_CD = atoms_CD / lengths_C1 * (strength * norm)
    writes_CM = _written(model, site, batch, moves_CD).topk(n_tokens, dim=1).indices.cpu()
    p_V = model.logits(batch)[0, -1].float().log_softmax(-1).cpu()
    held_T = whole_pass(batch, None).at(positions, text_of)[0]
    if not bool(held_T.any()):
        raise ConfigError("there is no such position in the prompt", where="--positions", allowed="all")
    others_CM, found = writes_CM.roll(-1, dims=0), []
    for start, q_BV in _steered(model, site, batch, moves_CD, held_T):
        rise_BV = q_BV.exp() - p_V.exp()
        kl_B = divergence(p_V[None], q_BV)
        for row in range(len(q_BV)):
            c = start + row
            of_other = float(rise_BV[row][others_CM[c]].double().sum()) if len(latents) > 1 else None
            score = float(rise_BV[row][writes_CM[c]].double().sum())
            rises = rise_BV[row].topk(n_tokens).indices.tolist()
            found.append(Ranked(latents[c], score, of_other, float(kl_B[row]), writes_CM[c].tolist(), rises))
    return sorted(found, key=lambda ranked: (-ranked.score, ranked.latent))


def _steered(
    model: LanguageModel, site: Site, batch: TokenBatch, moves_CD: Tensor, held_T: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Number of the first latent, and the log-probabilities ``[B, V]`` behind the prompt under each of B."""
    at_once = max(1, model.forward_positions // batch.ids.shape[1])
    for start in range(0, len(moves_CD), at_once):
        moves_BD = moves_CD[start : start + at_once]
        repeated = batch.rows(torch.zeros(len(moves_BD), dtype=torch.int64))

        def move(h_BTD: Tensor, _: Any, moves_BD: Tensor = moves_BD) -> Tensor:
            return h_BTD + held_T.to(h_BTD)[None, :, None] * moves_BD.to(h_BTD)[:, None, :]

        yield start, model.logits(repeated, {site: SiteEdit(move)})[:, -1].float().log_softmax(-1).cpu()


def _written(model: LanguageModel, site: Site, batch: TokenBatch, moves_CD: Tensor) -> Tensor:
    """Logits ``[C, V]`` of each atom in place of the last layer's output (the logit lens): what the model's
    final norm and head make of it alone."""
    last, one = last_layer(model, site.layer, batch), batch.rows(torch.zeros(1, dtype=torch.int64))
    length, found = batch.ids.shape[1], []
    for part_ND in moves_CD.split(length):  # behind the last layer, positions do not see each other

        def put(h_1TD: Tensor, _: Any, part_ND: Tensor = part_ND) -> Tensor:
            out = h_1TD.clone()
            out[0, : len(part_ND)] = part_ND.to(h_1TD)
            return out

        edits = {Site(last, "resid_post"): SiteEdit(put)}
        found.append(model.logits(one, edits)[0, : len(part_ND)].float().cpu())
    return torch.cat(found)


def last_layer(model: LanguageModel, known: int, batch: TokenBatch) -> int:
    """The number of the model's last layer.

    It is looked for by asking: a model refuses a layer that it does not have.

    Args:
        known: a layer that there is.
        batch: any text; one token of it is read.
    """
    one = TokenBatch(batch.ids[:1, :1], batch.counted[:1, :1], batch.attention[:1, :1])

    def there(layer: int) -> bool:
        try:
            model.logits(one, {Site(layer, "resid_post"): SiteEdit(lambda h, _: h)})
        except QsaeError:
            return False
        return True

    low, high = known, known + 1
    while there(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if there(middle) else (low, middle)
    return low


def active_latents(coder: SparseCoder, x_1TD: Tensor, counted_1T: Tensor) -> list[int]:
    """Latents that are active anywhere in a context, special tokens left out."""
    codes = coder.encode(x_1TD[counted_1T.to(x_1TD.device)].to(coder.device))
    return [int(j) for j in codes.indices[codes.active].unique()]
