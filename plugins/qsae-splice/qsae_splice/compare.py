"""A steered text, beside the unsteered one, and what steering did at each step.

Shapes: T positions of a text, S generated ones, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qsae_splice.opened import Opened
from qsae_splice.spec import Spec
from qsae_splice.steering import Splicing


@dataclass
class Continued:
    """A prompt gone on with.

    Attributes:
        prompt: the text.
        steered: what the steered model went on with.
        unsteered: what the model goes on with, under the same seed; None where it was not asked for.
        steps: for each token of the steered text: ``token``, its ``text``, whether it is of the prompt,
            ``kl`` (nats, KL(steered || unsteered) of the prediction that it was drawn from, both behind the
            steered text before it; None of the prompt's), ``shift`` by site, and ``activations`` by site:
            latent, or direction (of which it is ``h . d / ||d||``) -> (before, after).
        shift: mean and largest effective shift of vectors that were edited, and how many there were.
        notes: sentences for whoever reads the texts.
    """

    prompt: str
    steered: str
    unsteered: str | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    shift: dict[str, float | int | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@torch.no_grad()
def go_on(
    opened: Opened, spec: Spec, prompt: str, n_tokens: int, *, temperature: float, seed: int, compare: bool
) -> Continued:
    """Go on with a prompt, steered; with ``compare`` unsteered too, with what changed step by step."""
    ids = opened.tokens.read(prompt).ids
    length, drawn = ids.shape[1], {"temperature": temperature, "seed": seed}
    with opened.steered(spec) as runs:
        steered = opened.model.generate(ids, n_tokens, **drawn)  # type: ignore[arg-type]
        found = Continued(prompt, opened.tokens.text(steered[0, length:]))
        found.shift, found.notes = summary(runs), notes(runs)
    if compare:
        unsteered = opened.model.generate(ids, n_tokens, **drawn)  # type: ignore[arg-type]
        found.unsteered = opened.tokens.text(unsteered[0, length:])
        found.steps = _steps(opened, spec, steered, length)
    return found


def summary(runs: Sequence[Splicing]) -> dict[str, float | int | None]:
    """Mean and largest effective shift, and of how many vectors; None where none was edited."""
    shift_N = torch.cat([run.shift() for run in runs]).double()
    if not len(shift_N):
        return {"mean": None, "largest": None, "vectors": 0}
    return {"mean": float(shift_N.mean()), "largest": float(shift_N.max()), "vectors": len(shift_N)}


def notes(runs: Sequence[Splicing]) -> list[str]:
    """What whoever reads a steered text should know."""
    found, shift = [], summary(runs)
    largest = shift["largest"]
    if largest is None:
        found.append("no position was edited: the text is the unsteered one")
    elif not largest:
        found.append("no vector was changed: every edited activation was already what it was set to")
    elif largest > 1:
        found.append(
            f"the effective shift is up to {largest:.2f}: above 1 the edit is larger than the vector itself, "
            "and texts tend to break"
        )
    if any(_made_negative(run) for run in runs):
        found.append("an activation was made negative, which none of them is by itself here")
    return found


def _made_negative(run: Splicing) -> bool:
    before, after = False, False
    for applied in run.log:
        latents = [n for n, column in enumerate(applied.columns) if isinstance(column, int)]
        before |= bool((applied.before[:, latents] < 0).any())
        after |= bool((applied.after[:, latents] < 0).any())
    return after and not before


def _steps(opened: Opened, spec: Spec, ids_1T: Tensor, length: int) -> list[dict[str, Any]]:
    batch = opened.tokens.batch(ids_1T)
    with opened.steered(spec, prompt_tokens=length) as runs:
        steered_TV = opened.model.logits(batch)[0].log_softmax(-1)
    clean_TV = opened.model.logits(batch)[0].log_softmax(-1)
    kl_T = divergence(steered_TV, clean_TV).tolist()
    steps: list[dict[str, Any]] = [
        {
            "token": int(token),
            "text": opened.tokens.text_of(int(token)),
            "prompt": t < length,
            "kl": kl_T[t - 1] if t >= length else None,
            "shift": {},
            "activations": {},
        }
        for t, token in enumerate(ids_1T[0])
    ]
    for run in runs:
        for applied in run.log:
            rows = zip(applied.places.tolist(), applied.before, applied.after, applied.shift, strict=True)
            for place, before, after, shift in rows:
                pairs = zip(applied.columns, before.tolist(), after.tolist(), strict=True)
                steps[place]["shift"][applied.site] = float(shift)
                steps[place]["activations"][applied.site] = {str(j): (b, a) for j, b, a in pairs}
    return steps


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, of log-probabilities ``[..., V]``; 0 log 0 is 0."""
    difference = (p - q).masked_fill(p == -torch.inf, 0)
    return (p.exp() * difference).sum(-1).clamp_min(0)
