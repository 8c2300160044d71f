"""A coder and its language model, asked about texts: which latents fire, and what steering does.

Shapes: T tokens of a text, N of them that are not special.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from qsae_samples import Pieces
from qsae_splice import SINGLE, AnyEdit, Continued, Edit, Opened, Spec, check_latent, go_on, open_coder
from torch import Tensor

from qsae_cli.commands import recorded_data
from qsae_core.contracts import LanguageModel, SparseCodes
from qsae_core.errors import ConfigError, DataError
from qsae_report.serve.bodies import Continuation

STRONGEST = 20
"""Latents of a token that are named."""
MOST_TOKENS = 512
"""Of a text, also where the language model takes more: logits of all of them are held at once."""
MEASURE_TOKENS = 16384
"""Held-out tokens that units of edits are measured on; what ``qsae splice`` does if it is not told."""


class Asked:
    """A coder and its language model; any thread may ask, and one is answered at a time.

    Args:
        opened: the coder, or one for each of several layers.
        layer: the one whose latents are meant.
        measure_tokens: held-out tokens that units of edits are measured on, once they are asked for.

    Raises:
        ConfigError: if there is no such layer, or its coder reads several sites at once.
    """

    def __init__(
        self, opened: Opened, layer: str | None = None, measure_tokens: int = MEASURE_TOKENS
    ) -> None:
        self.layer = next(iter(opened.places)) if layer is None else layer
        if self.layer not in opened.places:
            raise ConfigError(
                f"there is no coder of layer {self.layer}", where="--layer", allowed=", ".join(opened.places)
            )
        self.opened, self._measure_tokens = opened, measure_tokens
        self._source = opened.places[self.layer].source
        self._pieces = Pieces(lambda ids: opened.tokens.text(torch.tensor(ids, dtype=torch.int64)))
        self._lock, self._ended = threading.Lock(), False
        self.most_tokens = most_tokens(opened.model)

    @torch.no_grad()
    def latents(self, text: str) -> dict[str, Any]:
        """JSON values: the ``tokens`` of a text, each with its ``text``, its ``bytes`` in hexadecimal digits
        where it is a part of a character, whether it is ``special``, how many latents are ``active``, and the
        strongest of these as ``latents``, pairs of number and activation.

        Special tokens have none: coders are not trained on them.

        Raises:
            DataError: if the text has too many tokens, or none.
        """
        with self._alone():
            batch, place = self.opened.tokens.read(text), self.opened.places[self.layer]
            ids = batch.ids[0].tolist()
            self._check_length(len(ids), "text")
            x_TD = self.opened.model.read(batch, [self._source])[self._source][0]
            codes = place.coder.encode(x_TD[batch.counted[0].to(x_TD.device)].to(place.coder.device))
            strongest, active = iter(_strongest(codes)), iter(codes.l0().tolist())
            tokens = [
                {
                    "text": piece,
                    "bytes": part,
                    "special": not counted,
                    "active": next(active) if counted else 0,
                    "latents": next(strongest) if counted else [],
                }
                for (piece, part), counted in zip(self._texts(ids), batch.counted[0].tolist(), strict=True)
            ]
            return {"tokens": tokens}

    def steered(self, asked: Continuation) -> dict[str, Any]:
        """JSON values: the ``prompt``, what the model goes on with ``steered`` and ``unsteered``, the
        effective ``shift`` (``mean``, ``largest``, ``vectors``), the mean ``kl``, ``notes``, and ``steps``.
        These are for each token of the steered text its ``text`` and ``bytes``, whether it is ``prompt``,
        ``kl``, ``shift``, and ``activations``: edited latent -> before and after, where an edit holds.

        Raises:
            DataError: if the prompt has no tokens, or the text would have too many.
            ConfigError: if there is no such latent or layer, or the scale of a unit is not known.
        """
        with self._alone():
            length = self.opened.tokens.read(asked.prompt).ids.shape[1]
            self._check_length(length + asked.max_new_tokens, "prompt", more=asked.max_new_tokens)
            edits = Spec(tuple(self._of_layer(edit) for edit in asked.edits))
            self._check_latents(edits)
            spec = self.opened.scaled(edits, self._measure_tokens)
            drawn = {"temperature": asked.temperature, "seed": asked.seed}
            found = go_on(self.opened, spec, asked.prompt, asked.max_new_tokens, **drawn, compare=True)  # type: ignore[arg-type]
            return self._shown(found)

    def end(self) -> None:
        """Wait until nobody is answered, and answer nobody any more."""
        with self._lock:
            self._ended = True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            if self._ended:
                raise DataError("the server has ended", next="start it again")
            yield

    def _of_layer(self, edit: AnyEdit) -> AnyEdit:
        named = None if self.layer == SINGLE else self.layer
        return edit if edit.layer is not None else dataclasses.replace(edit, layer=named)

    def _check_length(self, n_tokens: int, where: str, more: int = 0) -> None:
        if n_tokens > self.most_tokens:
            what = f"the text has {n_tokens - more:,} tokens"
            raise DataError(
                f"{what}, and {more:,} are to come" if more else what,
                where=where,
                allowed=f"{self.most_tokens} tokens, those at its beginning and those to come included",
                next="a shorter text, or fewer new tokens" if more else "a shorter text",
            )

    def _check_latents(self, spec: Spec) -> None:
        """Before units are measured, which takes its time."""
        for name, edits in self.opened.edits(spec).items():
            for edit in edits:
                if isinstance(edit, Edit):
                    check_latent(self.opened.places[name].coder, edit)

    def _shown(self, found: Continued) -> dict[str, Any]:
        steps = found.steps
        texts = self._texts([step["token"] for step in steps])
        kls = [step["kl"] for step in steps if step["kl"] is not None]
        return {
            "prompt": found.prompt,
            "steered": found.steered,
            "unsteered": found.unsteered,
            "shift": found.shift,
            "kl": sum(kls) / len(kls) if kls else None,
            "notes": found.notes,
            "steps": [
                {
                    "text": text,
                    "bytes": part,
                    "prompt": step["prompt"],
                    "kl": step["kl"],
                    "shift": max(step["shift"].values(), default=None),
                    "activations": self._activations(step["activations"]),
                }
                for (text, part), step in zip(texts, steps, strict=True)
            ],
        }

    def _activations(self, by_site: dict[str, Any]) -> dict[str, Any]:
        """Latent -> before and after, of the layer that is asked about."""
        return dict(by_site.get(str(self.opened.places[self.layer].target), {}))

    def _texts(self, ids: Sequence[int]) -> list[tuple[str, str | None]]:
        """A piece for each token: of all but the special ones they join to what these decode to. Beside it
        the bytes of a token that is a part of a character, in hexadecimal digits."""
        special, text_of = self.opened.tokens.special, self.opened.tokens.text_of
        pieces = iter(self._pieces.of([token for token in ids if token not in special]))
        found: list[tuple[str, str | None]] = []
        for token in ids:
            part = None if token in special else self.opened.model.partial_bytes(token)
            text = text_of(token) if token in special else next(pieces)
            found.append((text, None if part is None else part.hex()))
        return found


def open_asked(path: pathlib.Path, layer: str | None, tokenizer: str | None, device: str) -> Asked:
    """A stored coder and the language model that it was trained on.

    Raises:
        QsaeError: if there is no coder of one site, no language model behind it, or no tokenizer.
    """
    try:
        opened = open_coder(path, recorded_data({"path": path}), device, tokenizer)
    except DataError as error:
        if "--model" not in (error.next or ""):
            raise
        # a report is of the model that the coder was trained on, and has no such flag
        following = f"make the report as a file, without --serve; try `qsae splice {path} --help`"
        raise DataError(error.what, where=error.where, allowed=error.allowed, next=following) from error
    return Asked(opened, layer)


def most_tokens(model: LanguageModel) -> int:
    """How many tokens a text may have."""
    return min(MOST_TOKENS, model.max_positions or MOST_TOKENS)


def _strongest(codes: SparseCodes) -> list[list[tuple[int, float]]]:
    """Of each token the latents with the largest activations, by size."""
    offsets, indices, values = codes.offsets.tolist(), codes.indices.cpu(), codes.values.cpu()
    found = []
    for start, end in itertools.pairwise(offsets):
        mine_K, latents_K = values[start:end], indices[start:end]
        best = mine_K.abs().argsort(descending=True, stable=True)[:STRONGEST]
        found.append(_pairs(latents_K[best], mine_K[best]))
    return found


def _pairs(latents: Tensor, values: Tensor) -> list[tuple[int, float]]:
    pairs = zip(latents.tolist(), values.tolist(), strict=True)
    return [(latent, value) for latent, value in pairs if value]
