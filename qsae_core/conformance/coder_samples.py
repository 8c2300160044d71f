"""Coders that the coder rules try: with their default parts, and with other parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.component import ComponentSpec
from qsae_core.compose.part_factories import NoParts
from qsae_core.conformance.cases import Case
from qsae_core.conformance.reference_parts import reference
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.toy_data import ToyData
from qsae_core.conformance.verdicts import NotApplicable, set_seed
from qsae_core.contracts.coder import Budget, CoderShape, LossOutput, Parts
from qsae_core.contracts.data import Batch
from qsae_core.errors import QsaeError
from qsae_core.kinds import PART_SLOTS, SLOTS

N_LATENTS, BATCH, STEPS = 64, 128, 20
K = 8
"""Parts with a larger ``k`` get this one: 8 of 64 latents in 16 dimensions."""
SAE_SHAPE, TRANSCODER_SHAPE = CoderShape(16, 16), CoderShape(16, 12)
MOST_OTHERS = 5
"""Installed quantizers, and installed sparsity rules, that each coder is combined with."""

Overrides = Mapping[str, ComponentSpec]


class Variant(NamedTuple):
    """One coder to build: sample options, and parts other than its default ones (slot -> component)."""

    case: Case
    parts: Overrides

    @property
    def label(self) -> str:
        """For messages: the parts that are not the default ones."""
        chosen = ", ".join(f"{slot} {spec.name}" for slot, spec in self.parts.items())
        return f"with {chosen}" if chosen else "with its default parts"


def shape_of(subject: Subject, case: Case) -> CoderShape:
    """The widths that the coder is built for."""
    usual = SAE_SHAPE if subject.spec.kind == "sae" else TRANSCODER_SHAPE
    return usual._replace(**case.shape)


def data_of(subject: Subject, case: Case, seed: int = 0) -> ToyData:
    """Vectors of the coder's widths."""
    return ToyData(shape_of(subject, case), seed=seed)


def variants(subject: Subject, case: Case) -> Iterator[Variant]:
    """The coder with its default parts; for the first case also every combination of ``_others``."""
    yield Variant(case, {})
    if case != subject.cases[0]:
        return
    quantizers, rules = _others(subject, "quantizer"), _others(subject, "sparsity")
    choices: list[dict[str, ComponentSpec]] = [{"quantizer": q} for q in quantizers]
    choices += [{"encoder_quantizer": q} for q in quantizers[:2]]
    choices += [{"code_quantizer": q} for q in _others(subject, "code_quantizer")[:1]]
    choices += [{"sparsity": s} for s in rules]
    choices += [{"quantizer": q, "sparsity": s} for q, s in zip(quantizers, rules, strict=False)]
    for parts in choices:
        if _admitted(subject, parts):
            yield Variant(case, parts)


def built(subject: Subject, variant: Variant, seed: int = 0) -> MatrixCoder:
    """A coder as a run makes it: built under a seed, given data, told its budget; in training mode."""
    coder = bare(subject, variant, seed)
    try:
        coder.initialize(data_of(subject, variant.case).next_batch(4 * BATCH))
    except Exception as error:
        raise NotApplicable(f"it does not take its first data {variant.label} ({error})") from error
    coder.begin_training(Budget(STEPS, STEPS * BATCH, BATCH))
    return coder.train()


def bare(subject: Subject, variant: Variant, seed: int = 0) -> MatrixCoder:
    """A coder that has seen no data.

    Raises:
        NotApplicable: if it does not construct; a combination of parts may be refused with a QsaeError.
    """
    try:
        return construct(subject, variant, seed)
    except Exception as error:
        raise NotApplicable(f"it does not construct {variant.label} ({error})") from error


def construct(subject: Subject, variant: Variant, seed: int = 0) -> MatrixCoder:
    """A coder that has seen no data; lets every exception through."""
    set_seed(seed)
    options = {"n_latents": N_LATENTS, **variant.case.options}
    parts = Parts(**{slot: _factory(subject, slot, variant.parts) for slot in PART_SLOTS})
    coder: MatrixCoder = subject.target(
        subject.spec.config(**options), shape_of(subject, variant.case), parts
    )
    return coder


def buildable(subject: Subject, case: Case) -> Iterator[tuple[Variant, MatrixCoder]]:
    """Every variant that is not refused, with an initialised coder.

    Raises:
        NotApplicable: if the coder does not even construct with its default parts.
    """
    for variant in variants(subject, case):
        if variant.parts and _refuses(subject, variant):
            continue
        yield variant, built(subject, variant)


def train(
    coder: MatrixCoder, batches: list[Batch], first: int = 1, each: Callable[[LossOutput], None] | None = None
) -> list[LossOutput]:
    """Steps of Adam at 3e-3 as the trainer makes them; ``each`` sees every step's output after backward."""
    optimizer = torch.optim.Adam([p for p in coder.parameters() if p.requires_grad], lr=3e-3)
    outputs = []
    for step, batch in enumerate(batches, first):
        set_seed(step)
        optimizer.zero_grad(set_to_none=True)
        output = coder.loss(batch)
        torch.autograd.backward(total(output))
        if each is not None:
            each(output)
        coder.before_step()
        optimizer.step()
        coder.after_step(step)
        outputs.append(output)
    return outputs


def total(output: LossOutput) -> torch.Tensor:
    """What the optimiser minimises."""
    return torch.stack(list(output.terms.values())).sum()


def _others(subject: Subject, kind: str) -> list[ComponentSpec]:
    """Parts to combine with: the kit's own, then the installed ones."""
    own = {
        "quantizer": ("sign", "none"),
        "code_quantizer": ("eighths",),
        "sparsity": ("topk", "l1"),
    }[kind]
    installed = subject.registry.specs(kind) if subject.registry is not None else []
    return [reference(kind, name) for name in own] + installed[:MOST_OTHERS]


def _admitted(subject: Subject, parts: Overrides) -> bool:
    """Whether the coder has these slots and does not list the parts among those it refuses."""
    spec = subject.spec
    for slot, part in parts.items():
        has_slot = spec.default_parts.get(slot, {}) is not None
        refused = (slot, part.name) in spec.refuses or (part.kind, part.name) in spec.refuses
        if not has_slot or refused:
            return False
    return True


def _refuses(subject: Subject, variant: Variant) -> bool:
    """Whether building this combination ends in a QsaeError, as a combination of parts may."""
    try:
        construct(subject, variant)
    except QsaeError:
        return True
    return False


def _factory(subject: Subject, slot: str, overrides: Overrides) -> Callable[[Any], Any]:
    """Builds one part for each matrix or group of latents that the coder asks for."""
    if slot in overrides:
        return _builder(subject, overrides[slot], {})
    kind, default = SLOTS[slot].kind, SLOTS[slot].default
    block = subject.spec.default_parts.get(slot, {"use": default})
    if block is None:
        return NoParts(slot, "it")
    options = {key: value for key, value in block.items() if key != "use"}
    registry = subject.registry
    if registry is not None and block["use"] in registry.names(kind):
        return _builder(subject, registry.get(kind, block["use"]), options)
    return _builder(subject, reference(kind, block["use"]), {})


def _builder(subject: Subject, spec: ComponentSpec, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    target = Subject(spec, subject.registry).target
    config = spec.config(**options).for_latents(N_LATENTS)
    k = getattr(config, "k", None)
    if isinstance(k, int) and k > K:
        config = config.model_copy(update={"k": K})
    return functools.partial(target, config)
