"""What a run needs before its first step: its coders and their float twins, and data that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.compose.compose import coder_class, compose_coder
from qsae_core.compose.setup import shape_of
from qsae_core.config.run import Block, RunConfig
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.one_layer import OneLayer
from qsae_core.errors import ConfigError, DataError
from qsae_core.kinds import QUANTIZER_SLOTS, SLOTS
from qsae_core.places import SITE_NAMES
from qsae_core.results.run import FLOAT_TWIN, MAIN, slug

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


class Member(NamedTuple):
    """One coder of a run."""

    kind: str
    """``MAIN`` or ``FLOAT_TWIN``."""
    config: RunConfig
    coder: MatrixCoder
    layer: str | None = None
    """What its layer is called, where the run has a coder for each of several."""
    number: int = 0
    """Which of the data's layers that is."""

    @property
    def key(self) -> str:
        """What logs and checkpoints call it: ``coder``, ``float_twin``, ``coder/3``."""
        return self.kind if self.layer is None else f"{self.kind}/{self.layer}"

    @property
    def log_prefix(self) -> str:
        """What stands before the names of its logged values: nothing, ``float_twin/``, ``3/``."""
        return "".join(f"{part}/" for part in (self.kind, self.layer) if part not in (MAIN, None))

    def batch(self, batch: Batch) -> Batch:
        """Its vectors of a batch."""
        return batch if self.layer is None else batch.layer(self.number)

    def initialize(self, sample: Batch) -> None:
        """``SparseCoder.initialize`` with its vectors of a sample; an error names its layer."""
        try:
            self.coder.initialize(self.batch(sample))
        except DataError as error:
            if self.layer is not None:
                error.where = f"{error.where or 'data'}, layer {self.layer}"
            raise


def compose_members(config: RunConfig, plugins: Plugins, data: DataSource) -> list[Member]:
    """The coders of a run: one or, with ``run.per_layer``, one for each layer; then the float twins, where
    the run compares with them.

    Raises:
        ConfigError: if there is to be one for each layer, and the coder or the data does not have it so.
    """
    per_layer = config.run.per_layer
    if per_layer:
        check_per_layer(config, plugins, data)
    places = [(name, i) for i, name in enumerate(data.layer_names)] if per_layer else [(None, 0)]
    shape = CoderShape(data.d_in, data.d_out) if per_layer else shape_of(data)
    members, twins = [], []
    for layer, number in places:
        coder = compose_coder(config, plugins.registry, shape)
        members.append(Member(MAIN, config, coder, layer, number))
        twin = float_twin(config, coder, plugins) if config.run.compare_float else None
        if twin is not None:
            other = compose_coder(twin, plugins.registry, shape)
            twins.append(Member(FLOAT_TWIN, twin, other, layer, number))
    return members + twins


def check_per_layer(config: RunConfig, plugins: Plugins, data: DataSource) -> None:
    """Refuse one coder for each layer where the data or the coder is not made for it.

    Raises:
        ConfigError: which says what does not fit.
    """
    title = f"{config.coder_slot} '{config.coder.use}'"
    fault, allowed, hint = None, None, None
    if coder_class(config, plugins.registry).reads_layers:
        fault = f"{title} reads several layers at once, and there is to be one for each"
        allowed, hint = "coders that read one layer", "leave --per-layer out"
    elif data.layers_in == 1:
        fault, allowed = "there is to be a coder for each layer, and the data gives one", "several layers"
        hint = f"{data.for_several_layers or 'other data'}; or leave --per-layer out"
    elif data.layers_out != data.layers_in:
        fault = f"the data goes from {data.layers_in} layers to {data.layers_out}"
        allowed, hint = (
            "a target for each layer",
            "as many --target-sites as --sites; or leave --per-layer out",
        )
    elif len(set(map(slug, data.layer_names))) < data.layers_in:
        fault = f"two of the layers {', '.join(data.layer_names)} would have the same folder"
        allowed = "names that differ in more than capitals and signs"
        hint = "rename the layers; or train them one after the other, without --per-layer"
    if fault is not None:
        raise ConfigError(fault, where="--per-layer", allowed=allowed, next=hint)


def check_targets(config: RunConfig, batch: Batch, data: DataSource) -> None:
    """Refuse data with targets of its own for a coder that reconstructs its input, and data without for one
    that does not.

    Raises:
        ConfigError: which names the coder.
    """
    own, title = batch.y is not batch.x, f"'{config.coder.use}'"
    if config.coder_slot == "sae" and own:
        raise ConfigError(
            f"SAE {title} reconstructs its input, but the data has targets of its own",
            where="--data",
            allowed="data without targets, or a transcoder",
            next="qsae list-plugins shows the installed transcoders",
        )
    if config.coder_slot == "transcoder" and not own:
        raise ConfigError(
            f"transcoder {title} predicts other vectors than it reads, and the data has no targets",
            where="--data",
            allowed="data with a source and a target, or an SAE",
            next=data.for_targets or "other data",
        )


def check_order(members: Sequence[Member], data: DataSource) -> None:
    """Refuse a transcoder that would read what its language model computes after the target.

    Raises:
        ConfigError: which names both sites.
    """
    for member in members if data.source_sites else ():
        own = data if member.layer is None else OneLayer(data, member.number)
        if member.coder.is_autoencoder:
            continue
        for layer, target in enumerate(own.target_sites):
            read = (own.source_sites[number] for number in member.coder.layers_read(layer))
            later = next((site for site in read if site.is_after(target)), None)
            if later is not None:
                raise ConfigError(
                    f"{target} would be made of {later}, which the language model computes later",
                    where="data",
                    allowed=f"sources of earlier layers; within one, before it in {' -> '.join(SITE_NAMES)}",
                    next="exchange the source and the target, or choose others",
                )


FAR = 1.0
"""Mean over spread of inputs, squared, from where a transcoder without centring is warned of."""


def off_centre(member: Member, sample: Batch) -> str | None:
    """A sentence where a transcoder reads vectors whose mean is large beside their spread, as they are.

    Each step of its encoder's rows then moves all pre-activations by what the mean has in that direction,
    and latents go dead. An SAE subtracts ``b_dec``.
    """
    if member.coder.is_autoencoder or member.coder.norm_in.centres:
        return None
    x = member.batch(sample).x.double()
    mean = x.mean(0)
    ratio = float(mean.square().sum() / (x - mean).square().flatten(1).sum(1).mean())
    if ratio <= FAR:
        return None
    return (
        f"the mean of the inputs is {ratio**0.5:.3g} times as long as their spread, and --normalize none "
        "leaves it in: latents may go dead; --normalize center takes it out"
    )


def float_twin(config: RunConfig, coder: MatrixCoder, plugins: Plugins) -> RunConfig | None:
    """The same run without any quantizer, normalised alike; None where nothing is quantized anyway, or the
    coder has no slot for a quantizer and its weights are of few bits by themselves."""
    if not coder.is_quantized or "quantizer" not in config.components:
        return None
    components = dict(config.components)
    for slot in QUANTIZER_SLOTS:
        if slot in components:
            name = SLOTS[slot].default
            assert name is not None
            components[slot] = Block(name, plugins.registry.get(SLOTS[slot].kind, name).config())
    options = config.coder.options
    if getattr(options, "rotate", None) == "auto":
        rotated = options.model_copy(update={"rotate": True})
        components[config.coder_slot] = Block(config.coder.use, rotated)
    return replace(config, components=components)
