"""Hookpoints, such as ``layers.9.mlp``: the module of the base model that a coder stands for."""

from __future__ import annotations

import re

from qsae_core.contracts import Provenance
from qsae_format_sparsify.families import KNOWN_LAYERS, LAYER, family_of

HOOKPOINT = re.compile(r"(?P<layers>[a-z_]+(?:\.[a-z_]+)*)\.(?P<number>\d{1,5})(?P<module>(?:\.\w+)*)")


def layer_of(hookpoint: str | None) -> int | None:
    """The number in it; None where there is none."""
    found = HOOKPOINT.fullmatch(hookpoint or "")
    return int(found["number"]) if found else None


def places(hookpoint: str | None, model: str | None, *, transcodes: bool) -> Provenance:
    """Which sites a coder reads and writes: a transcoder what the module reads and gives, an SAE what it
    gives. Of a model whose modules are not known, only those of whole layers."""
    found, family = HOOKPOINT.fullmatch(hookpoint or ""), family_of(model)
    if found is None or found["layers"] not in (KNOWN_LAYERS if family is None else {family.layers}):
        return Provenance()
    module = found["module"].lstrip(".")
    modules = {"": LAYER} if family is None else {"": LAYER, **family.modules}
    source, target = modules.get(module, (None, None))
    sides = (source, target) if transcodes else (target, target)
    sources, targets = ((f"{int(found['number'])}.{site}",) if site else () for site in sides)
    return Provenance(sources=sources, targets=targets)


def hookpoint_of(provenance: Provenance, *, transcodes: bool) -> str | None:
    """What ``places`` gives these sites for; None where no module has them, or the model is not known."""
    family = family_of(provenance.model)
    layers = {place.partition(".")[0] for place in (*provenance.sources, *provenance.targets)}
    if family is None or len(layers) != 1 or not next(iter(layers)).isdecimal():
        return None
    start = f"{family.layers}.{next(iter(layers))}"
    wanted = Provenance(sources=provenance.sources, targets=provenance.targets)
    names = (start, *(f"{start}.{module}" for module in family.modules))
    return next(
        (name for name in names if places(name, provenance.model, transcodes=transcodes) == wanted), None
    )
