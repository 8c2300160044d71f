"""Edits that replace the vectors at a site.

Shapes: B contexts, T positions, L layers, D width, N counted positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core.contracts import DataSource, Edit, LanguageModel, Site, SparseCoder
from qsae_core.errors import ConfigError

Sites = tuple[Site, ...]


def coder_edits(
    coder: SparseCoder, vectors: Tensor, counted_BT: Tensor, sources: Sites, targets: Sites
) -> dict[Site, Edit]:
    """The coder's output in place of the vectors at every target, at counted positions.

    At a single target these are the ``vectors``, which it gave for the untouched pass: nothing has changed
    before it. At several, a layer's reconstruction is made while the model runs, from what the replaced
    layers before it have made of its source. A coder of which a layer hangs on a later source too, such as a
    crosscoder, cannot run along: its vectors are those of the untouched pass.

    Args:
        vectors: ``[N, D]``, or ``[N, L, D]`` at several targets: of the untouched pass.
    """
    if len(targets) == 1:
        return {targets[0]: replacing_edit(vectors, counted_BT, sources, targets[0])}
    read = _sites_read(coder, sources, targets)
    if _from_untouched(coder, read, targets):
        return {
            target: replacing_edit(vectors[:, i], counted_BT, (), target) for i, target in enumerate(targets)
        }
    return {target: running_edit(coder, i, counted_BT, read[i], target) for i, target in enumerate(targets)}


def cannot_splice(coder: SparseCoder, data: DataSource, model: LanguageModel) -> str | None:
    """Why the coder's output cannot take its targets' place, as one context shows: it reads a site that the
    language model computes later. None where it can."""
    sources, targets = data.source_sites, data.target_sites
    read = _sites_read(coder, sources, targets)
    edits = {
        target: Edit(lambda vectors_BTD, _: vectors_BTD, tuple(site for site in sites if site != target))
        for target, sites in zip(targets, read, strict=True)
    }
    if _from_untouched(coder, read, targets) or not any(edit.reads for edit in edits.values()):
        return None
    contexts, _ = next(iter(data.held_out_contexts(1, 1)))
    try:
        model.logits(contexts, edits)
    except ConfigError as error:
        return f"the coder reads what comes after its target: {error.what}"
    return None


def _sites_read(coder: SparseCoder, sources: Sites, targets: Sites) -> list[Sites]:
    """For each target the sources that its reconstruction hangs on."""
    return [tuple(sources[j] for j in coder.layers_read(i)) for i in range(len(targets))]


def _from_untouched(coder: SparseCoder, read: list[Sites], targets: Sites) -> bool:
    """Whether it cannot run along, and need not: each layer that it reads it replaces with the same vectors,
    which a transcoder that reads later layers does not."""
    later = any(site.layer > targets[i].layer for i, sites in enumerate(read) for site in sites)
    return len(targets) > 1 and coder.is_autoencoder and later


def replacing_edit(vectors_ND: Tensor, counted_BT: Tensor, sources: Sites, target: Site) -> Edit:
    """At ``target``: replace the vectors at counted positions, in their order, by these, which were made of
    the vectors at the sources.

    So these have to be computed before the target, where they are not the target itself.
    """
    reads = tuple(source for source in sources if source != target)
    return Edit(lambda vectors_BTD, _: _replaced(vectors_BTD, counted_BT, vectors_ND), reads)


def running_edit(coder: SparseCoder, layer: int, counted_BT: Tensor, sources: Sites, target: Site) -> Edit:
    """At ``target``: replace the vectors at counted positions by what the coder makes of the same pass.

    Of vectors that overflowed it makes NaN, as of a single coder's.

    Args:
        layer: number of the target among the coder's.
        sources: what that layer of the coder reads.
    """

    def replace(vectors_BTD: Tensor, found: Mapping[Site, Tensor]) -> Tensor:
        counted = counted_BT.to(vectors_BTD.device)
        read = [vectors_BTD if site == target else found[site] for site in sources]
        x_NLD = torch.stack([each[counted] for each in read], dim=1).to(coder.device)
        finite_N = x_NLD.isfinite().all(dim=(1, 2))
        made = x_NLD.new_full((len(x_NLD), vectors_BTD.shape[2]), torch.nan)
        made[finite_N] = coder.reconstruct_layer(x_NLD[finite_N], layer)
        return _replaced(vectors_BTD, counted_BT, made)

    return Edit(replace, tuple(source for source in sources if source != target))


def constant_edit(vector_D: Tensor, counted_BT: Tensor) -> Edit:
    """Replace the vectors at counted positions by one vector."""
    return Edit(lambda vectors_BTD, _: _replaced(vectors_BTD, counted_BT, vector_D))


def _replaced(vectors_BTD: Tensor, counted_BT: Tensor, values: Tensor) -> Tensor:
    edited = vectors_BTD.clone()
    edited[counted_BT.to(vectors_BTD.device)] = values.to(vectors_BTD)
    return edited
