"""Encode and select. Shapes: B tokens, C rows of a chunk, F latents, D width, K or m a token, N entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts.activation import Activation
from qsae_core.contracts.codes import SparseCodes, concatenate
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels.dense_rows import collect_rows
from qsae_core.kernels.dispatch import workspace
from qsae_core.kernels.precision import full_precision
from qsae_core.kernels.processes import partners
from qsae_core.kernels.products import sums_by_latent, transposed_product
from qsae_core.kernels.rows import Matrix, Rows, as_rows
from qsae_core.kernels.screening import Kind, candidates_for, chunk_buffer, rows_per_chunk

TOKENS_AT_ONCE = 4096
"""Whose products with a block of a large matrix are held at once: 64 MiB of them."""


@full_precision
def encode(
    x_BD: Tensor,
    W_enc_FD: Matrix,
    bias_F: Tensor,
    activation: Activation,
    rule: SparsityRule,
    *,
    importance_F: Tensor | None = None,
    offset_D: Tensor | None = None,
    screen: Kind = "none",
) -> SparseCodes:
    """Sparse codes ``rule(activation((x - offset) W_enc^T + bias))``; differentiable in all tensors.

    Pre-activations of a chunk of rows live in one reused buffer, and never those of a batch. Gradients flow
    through the entries that stay, and touch nothing else. What stays is computed again entry by entry in
    float32 where a rule keeps few entries; so values depend neither on the batch nor on how the entries were
    found. Entries of a rule with a fixed k are in ascending order within a token. Of several partners each
    gets the entries of its own latents: a rule that keeps the k largest keeps those of the whole dictionary.

    Args:
        importance_F: weight of each latent in the ranking; None: equal.
        offset_D: subtracted from every x (``b_dec`` of most SAEs).
        screen: look for the entries among candidates from a low-precision product; only where
            ``refusal_to_screen`` gives None, and only approximately the same selection.
    """
    rows = as_rows(W_enc_FD)
    weight = rows.dense() if rows.trains else None  # with its graph, before it is read without
    with torch.no_grad():
        centred_BD = x_BD if offset_D is None else x_BD - offset_D
        if screen == "none":
            support, pre_acts = _search(centred_BD, rows, bias_F, activation, rule, importance_F)
        else:
            support, pre_acts = _search_screened(centred_BD, rows, bias_F, rule, importance_F, screen)
    if torch.is_grad_enabled():
        pre_acts = _EntryPreActs.apply(x_BD, weight, bias_F, offset_D, pre_acts, centred_BD, rows, support)  # type: ignore[no-untyped-call]
    gates = activation.gates(pre_acts, support.indices) if rule.needs_gates else None
    return replace(support, values=activation(pre_acts, support.indices), gates=gates)


def refusal_to_screen(activation: Activation, rule: SparsityRule) -> str | None:
    """Why entries cannot be found among the largest candidates; None where they can."""
    if not _keeps_k_largest(rule):
        return "its sparsity rule does not keep a fixed number of the largest latents of each token"
    if not activation.keeps_order:
        return "its activation does not keep the order of the pre-activations"
    return None


def _keeps_k_largest(rule: SparsityRule) -> bool:
    return rule.fixed_k is not None and rule.selects_largest


def _search(
    x_BD: Tensor,
    rows: Rows,
    bias_F: Tensor,
    activation: Activation,
    rule: SparsityRule,
    importance_F: Tensor | None,
) -> tuple[SparseCodes, Tensor]:
    """The entries that stay (codes with empty values), their pre-activations ``[N]``; from a full product."""
    chunk = rows_per_chunk(rows.shape[0])
    ranks_batch = type(rule).finish_batch is not SparsityRule.finish_batch
    k_largest = _keeps_k_largest(rule)
    by_order, divided = k_largest and activation.keeps_order, k_largest and partners().world > 1
    supports, gathered = [], []
    rule.begin_batch(x_BD.shape[0])
    if by_order and not divided and rows.blocks() is not None:
        indices_BK = _largest_in_blocks(x_BD, rows, bias_F, rule, importance_F)
        support = _support(indices_BK.sort(dim=1).values, rows.shape[0])
        return support, _exact(x_BD, rows, bias_F, support)
    for rows_CD in x_BD.split(chunk) if len(x_BD) else [x_BD]:
        pre_CF = chunk_buffer("pre-activations", x_BD, rows.shape[0])[: len(rows_CD)]
        rows.pre_activations(rows_CD, bias_F, pre_CF)
        codes = rule.select(pre_CF if by_order else activation.candidates(pre_CF), importance_F)
        if rule.fixed_k is None and not ranks_batch:
            gathered.append(collect_rows(pre_CF, codes.indices, codes.offsets))
        # values matter to a rule that decides over the whole batch, to partners, and to nobody else
        supports.append(codes if ranks_batch or divided else codes.with_values(codes.values[:0]))
    support = concatenate(supports)
    if ranks_batch:
        support = rule.finish_batch(support, importance_F)
    elif gathered:
        return support.with_values(x_BD.new_empty(0)), torch.cat(gathered)
    elif divided:
        support = _largest_of_all(support, rule, rows.shape[0], importance_F)
    if support.k is not None:
        support = _support(support.indices.view(-1, support.k).sort(dim=1).values, support.n_latents)
    support = support.with_values(x_BD.new_empty(0))
    return support, _exact(x_BD, rows, bias_F, support)


def _largest_in_blocks(
    x_BD: Tensor, rows: Rows, bias_F: Tensor, rule: SparsityRule, importance_F: Tensor | None
) -> Tensor:
    """Int ``[B, K]``: the k largest, from a product with some rows after the others, each made once for as
    many tokens as can be."""
    if len(x_BD) > TOKENS_AT_ONCE:
        parts = x_BD.split(TOKENS_AT_ONCE)
        return torch.cat([_largest_in_blocks(x_CD, rows, bias_F, rule, importance_F) for x_CD in parts])
    x_CD = x_BD
    best_CK, at_CK = x_CD.new_empty(len(x_CD), 0), torch.empty(len(x_CD), 0, dtype=torch.int64)
    for first, rows_RD in rows.blocks() or ():
        part = slice(first, first + len(rows_RD))
        scores_CR = workspace("pre-activations of a block", (len(x_CD), len(rows_RD)), x_CD)
        torch.addmm(bias_F[part], x_CD, rows_RD.T, out=scores_CR)
        if importance_F is not None:
            scores_CR.mul_(importance_F[part])
        place_CK = rule.select(scores_CR).indices.view(len(x_CD), -1).long()
        best_CK = torch.cat([best_CK, scores_CR.gather(1, place_CK)], 1)
        at_CK = torch.cat([at_CK.to(place_CK.device), place_CK + first], 1)
        kept_CK = rule.select(best_CK).indices.view(len(x_CD), -1).long()
        best_CK, at_CK = best_CK.gather(1, kept_CK), at_CK.gather(1, kept_CK)
    return at_CK


def _search_screened(
    x_BD: Tensor, rows: Rows, bias_F: Tensor, rule: SparsityRule, importance_F: Tensor | None, kind: Kind
) -> tuple[SparseCodes, Tensor]:
    """The same, from candidates of a low-precision product."""
    assert rule.fixed_k is not None
    n_latents, k = rows.shape[0], rule.fixed_k
    m = min(candidates_for(kind, k), n_latents)
    indices_Bm = rows.screen(kind).candidates(x_BD, bias_F, importance_F, m)
    pre_Bm = _exact(x_BD, rows, bias_F, _support(indices_Bm, n_latents)).view(-1, m)
    ranking_Bm = pre_Bm if importance_F is None else pre_Bm * importance_F[indices_Bm]
    place_BK = rule.select(ranking_Bm).indices.view(-1, min(k, m)).long()
    indices_BK, order_BK = indices_Bm.gather(1, place_BK).sort(dim=1)
    place_BK = place_BK.gather(1, order_BK)
    pre_BK = pre_Bm.gather(1, place_BK)
    if partners().world > 1:
        kept_BK = partners().among_largest(ranking_Bm.gather(1, place_BK), k)
        return _cut(indices_BK, kept_BK, n_latents), pre_BK[kept_BK]
    return _support(indices_BK, n_latents), pre_BK.view(-1)


def _largest_of_all(
    codes: SparseCodes, rule: SparsityRule, n_latents: int, importance_F: Tensor | None
) -> SparseCodes:
    """Of the entries that a rule took for the k largest of this partner's latents, those that are among the k
    largest of all partners'; ascending, without values."""
    assert rule.fixed_k is not None
    assert codes.k is not None
    shape = (codes.batch_size, codes.k)
    indices_BK, order_BK = codes.indices.view(shape).sort(dim=1)
    weights = 1.0 if importance_F is None else importance_F.index_select(0, codes.indices)
    scores_BK = (codes.values * weights).view(shape).gather(1, order_BK)
    return _cut(indices_BK, partners().among_largest(scores_BK, rule.fixed_k), n_latents)


def _cut(indices_BK: Tensor, kept_BK: Tensor, n_latents: int) -> SparseCodes:
    """Codes of the entries that are kept, without values."""
    offsets = torch.zeros(len(kept_BK) + 1, dtype=torch.int64, device=kept_BK.device)
    torch.cumsum(kept_BK.sum(1), 0, out=offsets[1:])
    none = indices_BK.new_empty(0, dtype=torch.float32)
    return SparseCodes(indices_BK[kept_BK].to(torch.int32), none, offsets, n_latents)


def _support(indices_BK: Tensor, n_latents: int) -> SparseCodes:
    """Codes with k entries a token and no values."""
    return SparseCodes.from_top_k(indices_BK, indices_BK.new_empty(0, dtype=torch.float32), n_latents)


def _exact(x_BD: Tensor, rows: Rows, bias_F: Tensor, support: SparseCodes) -> Tensor:
    return rows.dots(x_BD, support) + bias_F.index_select(0, support.indices)


class _EntryPreActs(torch.autograd.Function):
    """``[N]`` pre-activations at the support's entries, already computed; this attaches their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor,
        offset: Tensor | None,
        pre_acts: Tensor,
        centred: Tensor,
        rows: Rows,
        support: SparseCodes,
    ) -> Tensor:
        ctx.rows, ctx.support = rows, support
        ctx.save_for_backward(weight, centred)
        return pre_acts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, centred = ctx.saved_tensors
        (grad_N,) = gradients
        support: SparseCodes = ctx.support
        to_x, to_weight, to_bias, to_offset = ctx.needs_input_grad[:4]
        by_latent_F = sums_by_latent(support, grad_N) if to_bias or to_offset else None
        return (
            ctx.rows.product(support, grad_N) if to_x else None,
            transposed_product(support, grad_N, centred) if to_weight else None,
            by_latent_F if to_bias else None,
            -(by_latent_F @ ctx.rows.dense().detach()) if to_offset and by_latent_F is not None else None,
            *(None,) * 4,
        )
