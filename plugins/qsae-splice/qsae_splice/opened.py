"""What a command works with: a stored coder (or one for each layer), its language model, sites and tokens."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

from torch import Tensor

from qsae_core import load, load_set
from qsae_core.contracts import DataSource, LanguageModel, Site, SparseCoder
from qsae_core.errors import ConfigError, DataError, QsaeError
from qsae_core.runs import Layer, compose_data, load_plugins, resolve, resolve_device, set_folder
from qsae_splice.edits import Edit
from qsae_splice.scales import Scales, measure, needs_scales
from qsae_splice.spec import Spec
from qsae_splice.steering import Splicing, steer
from qsae_splice.tokens import Tokens, tokens_of

SINGLE = ""
"""What the layer of a single coder is called in a spec."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A coder, and where it is in the model."""

    coder: SparseCoder
    source: Site
    target: Site
    number: int | None = None
    """Of its layer among those that the data gives at once; None: it gives one."""


class Opened:
    """A coder and its language model.

    Args:
        path: of the coder.
        data: that it was trained on, or that is chosen now.
        places: layer -> coder; ``SINGLE`` of one coder.
        tokens: of the language model.
    """

    def __init__(
        self, path: pathlib.Path, data: DataSource, places: dict[str, Place], tokens: Tokens
    ) -> None:
        model = data.language_model()
        assert model is not None
        self.path, self.data, self.places, self.tokens, self.model = path, data, places, tokens, model

    def edits(self, spec: Spec) -> dict[str, list[Edit]]:
        """Layer -> its edits, in order.

        Raises:
            ConfigError: if an edit names a layer that there is not, or none where there are several.
        """
        found: dict[str, list[Edit]] = {name: [] for name in self.places}
        for edit in spec.edits:
            layer = SINGLE if edit.layer is None else edit.layer
            if layer not in found:
                several = SINGLE not in found
                raise ConfigError(
                    f"there is no coder of layer {layer}" if layer else "of which layer is not said",
                    where=str(edit),
                    allowed=f"LAYER/{edit.latent} with {', '.join(found)}" if several else f"{edit.latent}",
                )
            found[layer].append(edit)
        return found

    def scaled(self, spec: Spec, n_tokens: int) -> Spec:
        """The spec with the scales that its units need, measured where it does not have them.

        Args:
            n_tokens: held-out tokens to measure on.
        """
        scales = dict(spec.scales)
        for layer, edits in self.edits(spec).items():
            if needs_scales(edits) and not self._known(scales.get(layer), edits):
                found = self.measured(layer, n_tokens).of(edit.latent for edit in edits)
                scales[layer] = found.to_json()
        return dataclasses.replace(spec, scales=scales)

    def measured(self, layer: str, n_tokens: int) -> Scales:
        """The scales of a coder's latents, on the data's held-out part."""
        place = self.places[layer]
        batches = self.data.held_out(n_tokens, min(n_tokens, self.model.forward_positions))
        number = place.number
        return measure(place.coder, (b if number is None else b.layer(number) for b in batches))

    @contextmanager
    def steered(self, spec: Spec, prompt_tokens: int | Tensor | None = None) -> Iterator[list[Splicing]]:
        """While this is open, the language model is steered; each coder's edits at its own site."""
        with ExitStack() as opened:
            yield [
                opened.enter_context(
                    steer(
                        self.model,
                        place.coder,
                        place.target,
                        edits,
                        source=place.source,
                        mode=spec.mode,
                        scales=Scales.from_json(spec.scales[layer], "spec") if layer in spec.scales else None,
                        prompt_tokens=prompt_tokens,
                        special=self.tokens.special,
                    )
                )
                for (layer, place), edits in zip(self.places.items(), self.edits(spec).values(), strict=True)
            ]

    @cached_property
    def about(self) -> dict[str, object]:
        """JSON values: what is steered."""
        return {
            "path": str(self.path),
            "model": self.model.name,
            "sites": [str(place.target) for place in self.places.values()],
        }

    def _known(self, found: object, edits: Sequence[Edit]) -> bool:
        if found is None:
            return False
        scales = Scales.from_json(found, "spec")
        return all(scales.know(edit) for edit in edits)


def open_coder(
    path: pathlib.Path, layers: Sequence[Layer], device: str, tokenizer: str | None = None
) -> Opened:
    """A stored coder with the language model that it was trained on, or that the layers choose.

    Raises:
        ArtifactError: if there is no coder.
        DataError: if there is no language model, it is an encoder, or its tokenizer is not known.
        ConfigError: if the coder is of other widths than the model, or of several layers at once.
    """
    registry, device = load_plugins().registry, resolve_device(device)
    folder = set_folder(path)
    members: dict[str, SparseCoder] = {}
    if folder is None:
        members[SINGLE] = load(path, device=device, registry=registry)
    else:
        coders = load_set(path, device=device, registry=registry)
        members.update(zip(coders.names, coders.by_layer(), strict=True))
    config = resolve(layers, registry)
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
            next="--model NAME --layer N --site SITE, if its vectors are from there",
        )
    if not model.predicts_next:
        raise DataError(f"{model.name} is an encoder: it does not go on with a text", where=str(path))
    return Opened(path, data, _places(members, data, path), _tokens(model, tokenizer))


def _places(members: dict[str, SparseCoder], data: DataSource, path: pathlib.Path) -> dict[str, Place]:
    sources, targets = data.source_sites, data.target_sites
    several = SINGLE not in members
    coder = next(iter(members.values()))
    if not several and (coder.reads_layers or coder.shape[2:] != (1, 1)):
        raise ConfigError(
            f"{type(coder).__name__} reads or writes several layers at once, and an edit is of one site",
            where=str(path),
            allowed="a coder of one layer, or one for each of several layers (--per-layer)",
        )
    if len(sources) != len(members) or (coder.shape.d_in, coder.shape.d_out) != (data.d_in, data.d_out):
        raise ConfigError(
            f"the coder is of {len(members)} layer(s) of width {coder.shape.d_in} -> {coder.shape.d_out}, "
            f"and the vectors are of {len(sources)} of width {data.d_in} -> {data.d_out}",
            where=str(path),
            allowed="the model and the sites that it was trained on",
        )
    return {
        name: Place(member, sources[i], targets[i], i if several else None)
        for i, (name, member) in enumerate(members.items())
    }


def _tokens(model: LanguageModel, tokenizer: str | None) -> Tokens:
    return tokens_of(model, tokenizer)


def _moved(error: QsaeError, path: pathlib.Path) -> DataError:
    """The same error, with what to do where the model is gone."""
    following = error.next or "--model PLACE, where the language model is now"
    where = f"{path}: {error.where}" if error.where else str(path)
    return DataError(error.what, where=where, allowed=error.allowed, next=following)
