"""What a command works with: stored coders, their language model, sites and tokens."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

import torch
from torch import Tensor

from qsae_cli.commands import model_flags
from qsae_core.contracts import DataSource
from qsae_core.errors import ConfigError, DataError, QsaeError
from qsae_core.runs import Layer, compose_data, load_plugins, resolve, resolve_device
from qsae_splice.directions import read_direction
from qsae_splice.edits import AnyEdit, Edit
from qsae_splice.grammar import read_named
from qsae_splice.intervention import check_latent
from qsae_splice.places import Members, Place, loaded, main_places, other_places, together, trained_on
from qsae_splice.scales import Scales
from qsae_splice.spec import Spec
from qsae_splice.steering import Splicing, steer
from qsae_splice.stored_scales import known_largest, measured_scales
from qsae_splice.tokens import Tokens, tokens_of


class Opened:
    """Coders and their language model.

    Args:
        path: of the first coder.
        data: that it was trained on, or that is chosen now.
        places: name -> coder; ``SINGLE`` of one coder, the layer of each of a set, its sites where there
            are more.
        tokens: of the language model.
    """

    def __init__(
        self, path: pathlib.Path, data: DataSource, places: dict[str, Place], tokens: Tokens
    ) -> None:
        model = data.language_model()
        assert model is not None
        self.path, self.data, self.places, self.tokens, self.model = path, data, places, tokens, model
        self._measured: dict[tuple[str, int], Scales] = {}

    def edits(self, spec: Spec) -> dict[str, list[AnyEdit]]:
        """Coder -> its edits, in order.

        Raises:
            ConfigError: if an edit names a coder that there is not, or none where there are several.
        """
        found: dict[str, list[AnyEdit]] = {name: [] for name in self.places}
        for edit in spec.edits:
            found[self._place_of(edit)].append(edit)
        return found

    def scaled(self, spec: Spec, n_tokens: int) -> Spec:
        """The spec with the scales that its units need: of ``max`` those of the run's samples, where it has
        some; else they are measured.

        Args:
            n_tokens: held-out tokens to measure on.
        """
        scales = dict(spec.scales)
        for name, edits in self.edits(spec).items():
            known = Scales.from_json(scales[name], "spec") if name in scales else Scales()
            if all(known.know(edit) for edit in edits):
                continue
            latents = [edit.latent for edit in edits if isinstance(edit, Edit)]
            scales[name] = self._found(name, edits, n_tokens).of(latents).to_json()
        return dataclasses.replace(spec, scales=scales)

    def measured(self, name: str, n_tokens: int) -> Scales:
        """The scales of a coder's latents, on the data's held-out part; measured once."""
        if (name, n_tokens) not in self._measured:
            self._measured[name, n_tokens] = measured_scales(self.places[name], self.data, n_tokens)
        return self._measured[name, n_tokens]

    def measured_by(self, spec: Spec) -> list[str]:
        """Of each coder of which an edit asks for the unit ``max``, what that is the largest of."""
        found = []
        for name, edits in self.edits(spec).items():
            if any(isinstance(edit, Edit) and edit.unit == "max" for edit in edits):
                scales = Scales.from_json(spec.scales[name], "spec")
                what = scales.largest_from or f"{scales.n_tokens:,} held-out tokens"
                found.append(f"unit max{f' of {name}' if name else ''}: the largest activation in {what}")
        return found

    @contextmanager
    def steered(self, spec: Spec, prompt_tokens: int | Tensor | None = None) -> Iterator[list[Splicing]]:
        """While this is open, the language model is steered; each coder's edits at its own sites."""
        directions = {name: torch.tensor(vector) for name, vector in spec.directions.items()}
        with ExitStack() as opened:
            yield [
                opened.enter_context(
                    steer(
                        self.model,
                        place.coder,
                        place.targets,
                        edits,
                        source=place.sources,
                        mode=spec.mode,
                        scales=Scales.from_json(spec.scales[name], "spec") if name in spec.scales else None,
                        directions=directions,
                        prompt_tokens=prompt_tokens,
                        special=self.tokens.special,
                    )
                )
                for (name, place), edits in zip(self.places.items(), self.edits(spec).values(), strict=True)
            ]

    @cached_property
    def about(self) -> dict[str, object]:
        """JSON values: what is steered."""
        more = [str(place.folder) for place in self.places.values() if not place.own_data]
        return {
            "path": str(self.path),
            **({"also": more} if more else {}),
            "model": self.model.name,
            "sites": [str(target) for place in self.places.values() for target in place.targets],
        }

    def _place_of(self, edit: AnyEdit) -> str:
        if edit.layer is None and len(self.places) == 1:
            return next(iter(self.places))
        found = [n for n, place in self.places.items() if edit.layer in {n, *place.names}]
        if edit.layer in self.places:
            return edit.layer
        if len(found) == 1:
            return found[0]
        name = edit.latent if isinstance(edit, Edit) else edit.direction
        several = len(self.places) > 1
        raise ConfigError(
            "of which layer is not said"
            if edit.layer is None
            else f"there {'are several coders' if found else 'is no coder'} of layer {edit.layer}",
            where=str(edit),
            allowed=f"LAYER/{name} or SITE/{name}, of {', '.join(self.places)}" if several else f"{name}",
        )

    def _found(self, name: str, edits: Sequence[AnyEdit], n_tokens: int) -> Scales:
        """What is known of a coder's scales, as far as the edits ask for it."""
        units = {edit.unit for edit in edits if isinstance(edit, Edit)}
        stored = known_largest(self.places[name]) if "max" in units else None
        if stored is None:
            return self.measured(name, n_tokens)
        others = any(edit.unit not in (None, "raw", "max") for edit in edits)
        return (self.measured(name, n_tokens) if others else Scales()).with_largest(*stored)


def open_coder(
    path: pathlib.Path,
    layers: Sequence[Layer],
    device: str,
    tokenizer: str | None = None,
    also: Sequence[pathlib.Path] = (),
    spec: Spec | None = None,
) -> Opened:
    """A stored coder with the language model that it was trained on, or that the layers choose.

    Args:
        also: more coders of that model, at their own sites.
        spec: what is going to be edited: a latent that there is not is refused before the model is loaded.

    Raises:
        ArtifactError: if there is no coder.
        DataError: if there is no language model, it is an encoder, or its tokenizer is not known.
        ConfigError: if the coder is of other widths than the model; if two coders write to one site.
    """
    registry, device = load_plugins().registry, resolve_device(device)
    config = resolve(layers, registry)
    members = loaded(path, registry, device)
    if spec is not None:
        _check_latents(spec, members, bool(also))
    try:
        data = compose_data(config, registry, device=device)
    except DataError as error:
        raise _moved(error, path) from error
    model = data.language_model()
    if model is None:
        raise DataError(
            f"there is no language model behind the data {config.data.use!r} of this coder",
            where=str(path),
            allowed="a coder of vectors of a language model",
            next=f"{model_flags(path)}, if its vectors are from there",
        )
    if not model.predicts_next:
        raise DataError(f"{model.name} is an encoder: it does not go on with a text", where=str(path))
    first = main_places(path, members, data)
    name = trained_on(path) if also else ""
    more = [place for other in also for place in other_places(other, name, registry, device)]
    return Opened(path, data, together(first, more), tokens_of(model, tokenizer))


def read_directions(texts: Sequence[str], known: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Directions that the command line names, beside those that are known.

    Raises:
        ConfigError: if one is named twice, or cannot be read.
    """
    found = {name: list(vector) for name, vector in known.items()}
    for text in texts:
        name, place = read_named(text)
        if name in found:
            raise ConfigError(
                f"there are two directions {name}", where="--direction", allowed="one of a name"
            )
        found[name] = read_direction(place).tolist()
    return found


def _check_latents(spec: Spec, members: Members, more: bool) -> None:
    """Of edits of coders that are known already; ``steer`` checks those of the others."""
    single = len(members) == 1 and not more
    for edit in spec.edits:
        name = next(iter(members)) if single and edit.layer is None else edit.layer
        if isinstance(edit, Edit) and name is not None and name in members:
            check_latent(members[name][0], edit)


def _moved(error: QsaeError, path: pathlib.Path) -> DataError:
    """The same error, with what to do where the model is gone."""
    following = error.next or "--model PLACE, where the language model is now"
    where = f"{path}: {error.where}" if error.where else str(path)
    return DataError(error.what, where=where, allowed=error.allowed, next=following)
