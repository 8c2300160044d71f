"""Stored coders of every kind in which one thing is otherwise, under checksums that fit: whoever means harm
has them.

One value of ``coder.json``, or the type, shape or values of one tensor. What is allowed: the coder loads and
all that worked before works; or an ArtifactError, or the PluginError of a component that is not installed.
A tensor of another type or shape is never loaded.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

GONE = object()
VALUES = (GONE, None, True, 0, -1, 1, 3, 10**12, 10**30, 1.5, 1e308, "", "x", "../..", [], {}, [1], [10**12])
N, WIDTH = 24, 16
QUANTIZERS: dict[str, tuple[dict[str, Any], ...]] = {
    "ste": (
        {"grid": "ternary"},
        {"grid": "binary", "granularity": "tensor"},
        {"n_bits": 3, "granularity": "group", "group_size": 8},
    ),
    "residual-binary": ({}, {"n_bits": 3, "granularity": "group", "group_size": 4}),
    "rtn": ({"n_bits": 3}, {"n_bits": 6}),
    "nf4": ({"block": 8},),
    "vector": ({"codebook_bits": 4}, {"length": 1, "codebook_bits": 9}),
    "half": ({}, {"dtype": "float16"}),
}
"""Options beside the defaults alone, which every quantizer is tried with."""
CODERS = {
    "topk": {"code_quantizer": {"use": "ste"}},
    "batchtopk": {},
    "matryoshka": {"quantizer": {"use": "vector"}, "encoder_quantizer": {"use": "mixed"}},
    "route-matryoshka": {"quantizer": {"use": "ste", "n_bits": 2}},
}
"""Parts of coders, all of which are tried; the others have their own."""


def field_targets(folder: pathlib.Path) -> Iterator[Any]:
    """Every quantizer that is installed, and every coder."""
    from qsae_core.plugins.records import load_plugins

    registry = load_plugins().registry
    trees: dict[str, dict[str, Any]] = {}
    for name in registry.names("quantizer"):
        for number, options in enumerate(QUANTIZERS.get(name, ({},))):
            block = {"use": name, **options}
            trees[f"vanilla {name} {number}"] = _tree(registry, "sae", "vanilla", quantizer=block)
    for slot in ("sae", "transcoder"):
        for name in registry.names(slot):
            trees[name] = _tree(registry, slot, name, **CODERS.get(name, {}))
    for number, (name, tree) in enumerate(trees.items()):
        place = folder / str(number)
        _store(tree, place, registry)
        use = Use(place, registry)
        yield name, place, [use], functools.partial(_changes, use)


def _tree(registry: Any, slot: str, name: str, **parts: Any) -> dict[str, Any]:
    fields = registry.get(slot, name).config.model_fields
    tree: dict[str, Any] = {slot: {"use": name}, "data": {"use": "tensors", "path": "x.pt"}}
    tree[slot] |= {"n_latents": N} if fields["n_latents"].default != 0 else {}
    if "group_sizes" in fields:
        tree[slot]["group_sizes"] = [8, 16]
    if "level_sizes" in fields:
        tree[slot]["level_sizes"] = [8, 16]
    if (registry.get(slot, name).default_parts or {}).get("sparsity", {}) is not None:
        tree["sparsity"] = {"use": "topk", "k": 2}
    if "quantizer" in parts:
        tree["encoder_quantizer"] = parts["quantizer"]
    return tree | parts


def _store(tree: dict[str, Any], place: pathlib.Path, registry: Any) -> None:
    import torch

    from qsae_core.artifact import artifact
    from qsae_core.compose.compose import compose_coder
    from qsae_core.config.layers import Layer
    from qsae_core.config.run import resolve
    from qsae_core.contracts import Batch, CoderShape

    config = resolve([Layer(tree, "here")], registry)
    slot = next(slot for slot in ("sae", "transcoder") if slot in tree)
    layers = 2 if registry.load_target(registry.get(slot, tree[slot]["use"])).reads_layers else 1
    shape = CoderShape(WIDTH, WIDTH, layers, layers)
    coder = compose_coder(config, registry, shape)
    torch.manual_seed(0)
    x = torch.randn(64, WIDTH) if layers == 1 else torch.randn(64, layers, WIDTH)
    coder.initialize(Batch(x, x))
    artifact.save(coder.eval(), place, config, registry, {"model": "toy"}, masters=True)


def _methods(place: pathlib.Path, registry: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a stored coder is asked, load first; the others use what it gave."""
    import torch

    import qsae_core
    from qsae_core.artifact import artifact

    found: dict[str, Any] = {}

    def load() -> None:
        found["coder"] = qsae_core.load(place, registry=registry)
        shape = found["coder"].shape
        layers = (shape.layers_in,) if found["coder"].reads_layers else ()
        found["x"] = torch.randn(3, *layers, shape.d_in)

    def read_levels() -> None:
        for level in range(1, found["coder"].levels + 1):
            qsae_core.load(place, level=level, registry=registry)(found["x"])
            found["coder"].at_level(level)(found["x"])

    yield "load", load
    yield "forward", lambda: found["coder"](found["x"])
    yield "code levels", lambda: found["coder"].code_levels(found["coder"].encode(found["x"]))
    yield "atoms", lambda: found["coder"].atoms()
    yield "norms", lambda: found["coder"].atom_norms()
    yield "masters", lambda: found["coder"].dictionary(quantized=False)
    yield "errors", lambda: found["coder"].atom_errors()
    yield "codes", lambda: found["coder"].codes_and_scales()
    yield "form", lambda: found["coder"].form()
    yield "levels", read_levels
    yield "bytes", lambda: (artifact.level_bytes(place), artifact.measurements(found["coder"], place))
    yield "fast", lambda: qsae_core.load(place, arithmetic="fast", registry=registry)(found["x"])
    yield "screened", lambda: qsae_core.load(place, screen="int8", registry=registry)(found["x"])


def _works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


class Use:
    """All that is asked of a coder and worked before its files were changed."""

    def __init__(self, place: pathlib.Path, registry: Any) -> None:
        self.place, self.registry = place, registry
        self.intact = {what for what, call in _methods(place, registry) if _works(call)}
        self.to_refuse: str | None = None
        """What is not to work: ``load``, or ``masters``."""
        assert "load" in self.intact

    def __call__(self) -> None:
        """From load only the two errors are let through as they are."""
        from qsae_core.errors import ArtifactError, PluginError, QsaeError

        for what, call in _methods(self.place, self.registry):
            if what not in self.intact:
                continue
            try:
                call()
            except (ArtifactError, PluginError):
                raise
            except QsaeError as error:
                if what == "load":
                    raise TypeError(f"load raised {type(error).__name__}: {error}") from error
                raise
            if what == self.to_refuse:
                raise TypeError(f"{what} worked")


def _changes(use: Use, place: pathlib.Path, chance: random.Random) -> Iterator[str]:
    """Each change once, in an order that chance gives; all is put back afterwards."""
    whole = {file: file.read_bytes() for file in place.iterdir()}
    changes = [*_of_description(place), *_of_tensors(place, "coder"), *_of_tensors(place, "masters")]
    chance.shuffle(changes)
    for how, change in changes:
        form = change()
        if form is not None:
            use.to_refuse = "load" if form and how.startswith("coder: ") else None
            yield how
        for file, data in whole.items():
            file.write_bytes(data)


def _of_description(place: pathlib.Path) -> Iterator[tuple[str, Callable[[], bool | None]]]:
    description = json.loads((place / "coder.json").read_text())
    for path in _paths(description):
        for value in VALUES:
            word = "gone" if value is GONE else f"{value!r}"
            where = ".".join(map(str, path))
            yield f"{where} -> {word}", functools.partial(_describe, place, description, path, value)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if len(path) == 2 and path[0] == "config" and path[1] in ("data", "train", "run", "metrics", "evaluate"):
        return  # of the run, not of the coder
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from _paths(value[key], (*path, key))


def _describe(place: pathlib.Path, description: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Nothing of a tensor's type or shape is changed."""
    changed = copy.deepcopy(description)
    holder = functools.reduce(lambda found, key: found[key], path[:-1], changed)
    if value is GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    (place / "coder.json").write_text(json.dumps(changed))
    _sign(place, {})
    return False


def _of_tensors(place: pathlib.Path, file: str) -> Iterator[tuple[str, Callable[[], bool | None]]]:
    from safetensors.torch import load_file

    for name in load_file(place / f"{file}.safetensors"):
        for how in OTHERWISE:
            change = functools.partial(_alter, place, file, name, how)
            yield f"{file}: {name} is {how}", change


def _alter(place: pathlib.Path, file: str, name: str, how: str) -> bool | None:
    """Whether type or shape is changed, which a codebook's alone may be: it may be longer than its matrix
    needs; None where nothing is."""
    from safetensors.torch import load_file

    tensor = load_file(place / f"{file}.safetensors")[name]
    altered = OTHERWISE[how](tensor)
    same = altered is not None and (altered.dtype, altered.shape) == (tensor.dtype, tensor.shape)
    if same and bool((altered == tensor).all()):
        return None
    _sign(place, {file: {name: altered}})
    return not same and not (name.endswith("codebook") and how == "a row long")


def _sign(place: pathlib.Path, altered: dict[str, dict[str, Any]]) -> None:
    """Write files whose checksums fit, of every level too."""
    from safetensors.torch import load_file

    from qsae_core.artifact.tensor_files import save_tensors
    from qsae_core.coders.export import Cut, Export

    text = (place / "coder.json").read_text()
    for file in ("coder", "masters"):
        path = place / f"{file}.safetensors"
        tensors = load_file(path) | altered.get(file, {})
        tensors = {name: t.contiguous() for name, t in tensors.items() if t is not None}
        parts = {}
        try:
            levels = json.loads(text)["levels"]
            cuts = {name: Cut(dim, tuple(ends)) for name, (dim, ends) in levels["cuts"].items()}
            for level in range(1, min(levels["count"], 16)) if file == "coder" else ():
                parts[f"level {level}"] = Export(tensors, {}, cuts).at_level(level).tensors
        except Exception:  # what is changed has no such parts
            parts = {}
        save_tensors(path, tensors, text, parts)


OTHERWISE: dict[str, Callable[[Any], Any]] = {
    "gone": lambda t: None,
    "a row short": lambda t: t[:-1] if t.dim() else t[None],
    "a row long": lambda t: _longer(t, 0),
    "a column short": lambda t: t[..., :-1] if t.dim() else t[None],
    "a column long": lambda t: _longer(t, -1),
    "empty": lambda t: t[:0] if t.dim() else t[None][:0],
    "flat": lambda t: t.flatten(),
    "of a dimension more": lambda t: t[None],
    "turned": lambda t: t.movedim(0, -1) if t.dim() > 1 else t,
    "float64": lambda t: t.double(),
    "float32": lambda t: t.float(),
    "int64": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "uint8": lambda t: t.byte(),
    "zero": lambda t: t * 0,
    "its largest": lambda t: _filled(t, True),
    "its least": lambda t: _filled(t, False),
    "NaN": lambda t: t * float("nan") if t.is_floating_point() else t,
}


def _longer(tensor: Any, dim: int) -> Any:
    import torch

    whole = tensor.dim() and tensor.numel()
    return torch.cat([tensor, tensor.narrow(dim, 0, 1)], dim) if whole else tensor[None]


def _filled(tensor: Any, largest: bool) -> Any:
    import torch

    if tensor.dtype == torch.bool:
        return torch.full_like(tensor, largest)
    limits = (torch.finfo if tensor.is_floating_point() else torch.iinfo)(tensor.dtype)
    return torch.full_like(tensor, limits.max if largest else limits.min)
