"""``steer`` and ``splice``: a language model whose vectors a coder changes, while a block runs.

Shapes: B sequences, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from qsae_core.contracts import LanguageModel, Site, SparseCoder
from qsae_core.errors import ConfigError
from qsae_splice.core_models import read_site, steered_language_model
from qsae_splice.edits import Edit
from qsae_splice.intervention import Applied, Intervention
from qsae_splice.modules import ModuleSite, read_module_site, steered_module
from qsae_splice.passes import Known
from qsae_splice.scales import Scales
from qsae_splice.stacks import occupied
from qsae_splice.tokens import tokens_of

AnySite = Site | ModuleSite | str


class Splicing:
    """What is done to a model while its block runs.

    Attributes:
        log: what each pass did, in order; empty it where it grows too long.
        latents: those that are edited: the columns of the log.
    """

    def __init__(self, intervention: Intervention) -> None:
        self._intervention = intervention
        self.log: list[Applied] = intervention.log
        self.latents = intervention.latents

    def shift(self) -> Tensor:
        """float32 ``[N]``: the effective shift ``||h' - h|| / ||h||`` of each vector edited so far."""
        return torch.cat([applied.shift for applied in self.log]) if self.log else torch.zeros(0)


def steer(
    model: LanguageModel | nn.Module,
    coder: SparseCoder,
    site: AnySite,
    edits: Sequence[Edit],
    *,
    source: AnySite | None = None,
    mode: str = "delta",
    scales: Scales | None = None,
    prompt_tokens: int | Tensor | None = None,
    special: Collection[int] | None = None,
    stack: bool = False,
) -> AbstractContextManager[Splicing]:
    """Edit latents wherever the model computes, within the block; behind it the model is as before.

    Of qsae's ``LanguageModel`` these are ``logits``, ``extend`` and ``generate``; ``read`` gives vectors of
    the untouched model. Of a module of transformers these are its own calls and ``generate``. Blocks nest,
    for several coders and sites: each sees what those before it have changed.

    Args:
        site: what is changed. Of a ``LanguageModel`` a ``Site``, or its text ``"3.resid_post"``. Of a module
            the path of a part whose output it is, or a ``ModuleSite``.
        edits: none: the model is not changed.
        source: what a transcoder reads, in the same form; None: the site itself.
        mode: ``delta``: the coder's error is kept; ``replace``: it is dropped, at all tokens that are not
            special.
        scales: by which units other than ``raw`` are known (``measure``).
        prompt_tokens: real positions of each prompt, for passes over whole texts; None: what ``generate``
            was given, the first pass before a cache, and all of any other pass.
        special: tokens that are never edited; None: those of the model's tokenizer. Of a ``TokenBatch``
            those that are not counted are not edited either.
        stack: whether the site may be steered already; these edits come behind those.

    Raises:
        ConfigError: for a latent, a unit, a mode or a site that there is not, and a coder of several layers.
        DataError: once special tokens or texts of tokens are asked for and the tokenizer is not known.
    """
    reads = site if source is None else source
    if coder.is_autoencoder != (reads == site):
        what = "an SAE reads what it changes" if coder.is_autoencoder else "a transcoder reads another site"
        raise ConfigError(
            f"{what}, and this is to read {reads} and to change {site}",
            where="source",
            allowed="None" if coder.is_autoencoder else "the site that it was trained to read",
        )
    of_model = cache(lambda: tokens_of(model))
    text_of = _decoder(model) if isinstance(model, LanguageModel) else lambda token: of_model().text_of(token)
    intervention = Intervention(coder, edits, mode, scales or Scales(), text_of, str(site))
    given = None if special is None else frozenset(special)
    known = Known(lambda: of_model().special if given is None else given, prompt_tokens)
    return _steered(model, intervention, (site, reads), known, stack)


def splice(
    model: LanguageModel | nn.Module,
    coder: SparseCoder,
    site: AnySite,
    *,
    source: AnySite | None = None,
    special: Collection[int] | None = None,
    stack: bool = False,
) -> AbstractContextManager[Splicing]:
    """The coder's reconstruction in place of the vectors at the site, its error dropped: ``steer`` in mode
    ``replace`` without edits."""
    return steer(model, coder, site, (), source=source, mode="replace", special=special, stack=stack)


@contextmanager
def _steered(
    model: LanguageModel | nn.Module,
    intervention: Intervention,
    places: tuple[AnySite, AnySite],
    known: Known,
    stack: bool,
) -> Iterator[Splicing]:
    with ExitStack() as opened:
        if isinstance(model, LanguageModel):
            site, source = (read_site(place) for place in places)
            opened.enter_context(occupied(model, site, stack=stack))
            opened.enter_context(steered_language_model(model, intervention, site, source, known))
        else:
            target, read = (read_module_site(place, model) for place in places)
            opened.enter_context(occupied(model, target, stack=stack))
            opened.enter_context(steered_module(model, intervention, target, read, known))
        yield Splicing(intervention)


def _decoder(model: LanguageModel) -> Callable[[int], str]:
    return cache(lambda token: model.decode([token]))
