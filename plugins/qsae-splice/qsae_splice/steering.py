"""``steer`` and ``splice``: a language model whose vectors a coder changes, while a block runs.

Shapes: B sequences, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, cached_property

import torch
from torch import Tensor, nn

from qsae_core.contracts import LanguageModel, Site, SparseCoder
from qsae_splice.core_models import steered_language_model
from qsae_splice.edits import AnyEdit
from qsae_splice.intervention import Applied, Intervention
from qsae_splice.modules import ModuleSite, steered_module
from qsae_splice.passes import Known
from qsae_splice.scales import Scales
from qsae_splice.sites import AnySite, Sites, is_untouched, read_sites
from qsae_splice.stacks import occupied
from qsae_splice.tokens import Tokens, tokens_of


class Splicing:
    """What is done to a model while its block runs.

    Attributes:
        log: what each pass did at each site, in order; empty it where it grows too long.
    """

    def __init__(self, intervention: Intervention) -> None:
        self._intervention = intervention
        self.log: list[Applied] = intervention.log

    def shift(self) -> Tensor:
        """float32 ``[N]``: the effective shift ``||h' - h|| / ||h||`` of each vector edited so far."""
        return torch.cat([applied.shift for applied in self.log]) if self.log else torch.zeros(0)


def steer(
    model: LanguageModel | nn.Module,
    coder: SparseCoder,
    site: AnySite | Sequence[AnySite],
    edits: Sequence[AnyEdit],
    *,
    source: AnySite | Sequence[AnySite] | None = None,
    mode: str = "delta",
    scales: Scales | None = None,
    directions: Mapping[str, Tensor] | None = None,
    prompt_tokens: int | Tensor | None = None,
    special: Collection[int] | None = None,
    stack: bool = False,
) -> AbstractContextManager[Splicing]:
    """Edit latents, or vectors along directions, wherever the model computes, within the block; behind it the
    model is as before.

    Of qsae's ``LanguageModel`` these are ``logits``, ``extend`` and ``generate``; ``read`` gives vectors of
    the untouched model. Of a module of transformers these are its own calls and ``generate``. Blocks nest,
    for several coders and sites: each sees what those before it have changed.

    Args:
        site: what is changed. Of a ``LanguageModel`` a ``Site``, or its text ``"3.resid_post"``. Of a module
            the path of a part whose output it is, or a ``ModuleSite``. Of a coder that writes to several
            layers a sequence of them, in its own order.
        edits: none: the model is not changed.
        source: what a transcoder reads, in the same form; None: the site itself.
        mode: ``delta``: the coder's error is kept; ``replace``: it is dropped, at all tokens that are not
            special.
        scales: by which units other than ``raw`` are known (``measure``).
        directions: name -> float ``[D]``, of edits along them.
        prompt_tokens: real positions of each prompt, for passes over whole texts; None: what ``generate``
            was given, the first pass before a cache, and all of any other pass.
        special: tokens that are never edited; None: those of the model's tokenizer. Of a ``TokenBatch``
            those that are not counted are not edited either.
        stack: whether the site may be steered already; these edits come behind those.

    Raises:
        ConfigError: for a latent, a unit, a mode or a site that there is not; sites that are not the coder's;
            and a set of coders.
        DataError: for a direction of another width, not finite, or zero; once special tokens or texts of
            tokens are asked for and the tokenizer is not known.
    """
    sites = read_sites(model, coder, site, source)
    words = _Words(model, special)
    intervention = Intervention(
        coder,
        edits,
        mode,
        scales or Scales(),
        words.text_of,
        [str(target) for target in sites.targets],
        directions=directions,
        untouched=is_untouched(coder, sites),
    )
    return _steered(model, intervention, sites, Known(words.special, prompt_tokens), stack)


def splice(
    model: LanguageModel | nn.Module,
    coder: SparseCoder,
    site: AnySite | Sequence[AnySite],
    *,
    source: AnySite | Sequence[AnySite] | None = None,
    special: Collection[int] | None = None,
    stack: bool = False,
) -> AbstractContextManager[Splicing]:
    """The coder's reconstruction in place of the vectors at the site, its error dropped: ``steer`` in mode
    ``replace`` without edits."""
    return steer(model, coder, site, (), source=source, mode="replace", special=special, stack=stack)


@contextmanager
def _steered(
    model: LanguageModel | nn.Module, intervention: Intervention, sites: Sites, known: Known, stack: bool
) -> Iterator[Splicing]:
    with ExitStack() as opened:
        for target in sites.targets:
            opened.enter_context(occupied(model, target, stack=stack))
        if isinstance(model, LanguageModel):
            of_model = [[_site(place) for place in side] for side in sites]
            opened.enter_context(steered_language_model(model, intervention, of_model[0], of_model[1], known))
        else:
            parts = [[_module_site(place) for place in side] for side in sites]
            opened.enter_context(steered_module(model, intervention, parts[0], parts[1], known))
        yield Splicing(intervention)


def _site(place: Site | ModuleSite) -> Site:
    assert isinstance(place, Site)
    return place


def _module_site(place: Site | ModuleSite) -> ModuleSite:
    assert isinstance(place, ModuleSite)
    return place


class _Words:
    """What is known of a model's tokens, looked up once it is asked for.

    Args:
        special: tokens that are never edited; None: those of the tokenizer.
    """

    def __init__(self, model: LanguageModel | nn.Module, special: Collection[int] | None) -> None:
        self._model, self._given = model, None if special is None else frozenset(special)
        self.text_of = cache(self._text)

    def special(self) -> frozenset[int]:
        """Tokens that are never edited."""
        return self._tokens.special if self._given is None else self._given

    def _text(self, token: int) -> str:
        model = self._model
        return model.decode([token]) if isinstance(model, LanguageModel) else self._tokens.text_of(token)

    @cached_property
    def _tokens(self) -> Tokens:
        return tokens_of(self._model)
