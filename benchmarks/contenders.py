"""What takes part in the quality benchmarks: each library's coders, and the rates and penalties tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.settings import Sizes
from qsae_core.coders.routed import RoutedCoder
from qsae_core.plugins.records import load_plugins

MULTIPLES = (3, 10, 20)
"""Of each library's own learning rate: short runs need more than the long ones that it is meant for."""
SIGNUM_MULTIPLES = (0.1, 0.3, 1)
"""Of sparsify's rate for sign descent, which moves every weight by the rate: 3 times as much diverges."""
SAE_LENS_RATE = 3e-4
"""Default of its ``LanguageModelSAERunnerConfig`` and of its ``SAETrainerConfig``."""
OWN_RATES = {"standard": 1e-3, "gated": 5e-5, "jumprelu": 7e-5}
"""Defaults of dictionary_learning's trainers where they are not those of the 1/sqrt(F) rule."""
OTHER_SEEDS = ", other seeds"
"""Ends the kind of a contender that is another one again."""
SCRIPTS = {
    "SAELens": ("benchmarks/peers/sae_lens_train.py", "sae-lens"),
    "dictionary_learning": ("benchmarks/peers/dictionary_learning_train.py", "dictionary-learning"),
    "sparsify": ("benchmarks/peers/sparsify_train.py", "eai-sparsify"),
}


class Contender(NamedTuple):
    """One kind of coder of one library, trained once for each attempt.

    Attributes:
        library: ``qsae``, or a key of ``SCRIPTS``.
        kind: names it on the page, unique within the library.
        attempts: for each run its ``label``, its ``lr`` (``"auto"`` for qsae's own choice), and what the
            library's script understands; for qsae ``arguments`` of ``qsae train``. ``seed`` replaces the
            call's.
        plain: whether it takes part in the comparison, and is not one of its runs again, with one thing
            changed.
    """

    library: str
    kind: str
    attempts: tuple[dict[str, Any], ...]
    plain: bool = True


def topk_rate(n_latents: int) -> float:
    """The rule of Gao et al. (2024), which qsae, dictionary_learning and sparsify follow in long runs."""
    return 2e-4 / math.sqrt(n_latents / 2**14)


def signum_rate(n_latents: int) -> float:
    """sparsify's rule for its default optimizer."""
    return 5e-3 / math.sqrt(n_latents / 2**14)


def topk_contenders(sizes: Sizes) -> list[Contender]:
    """Every library's TopK SAE: qsae, which is the first, at its own rate, the peers at several.

    The peers' auxiliary loss revives latents that have not fired for 10M tokens or 1000 steps, longer than a
    short run. qsae scales that to an eighth of the run, so the peers are also measured with that, at the
    middle rate alone.
    """
    batch_size, n_latents = sizes.batch_size, sizes.n_latents
    rate, window = topk_rate(n_latents), sizes.steps * batch_size // 8
    steps, tokens = {"dead_window": window // batch_size}, {"dead_after_tokens": window}
    middle = MULTIPLES[1:2]
    adam: dict[str, Any] = {"optimizer": "adam"}
    auxk = adam | {"auxk_alpha": 1 / 32} | tokens
    signum = signum_rate(n_latents)
    return [
        _topk("topk", plain=True),
        _sweep("SAELens", "topk", SAE_LENS_RATE, kind="topk"),
        _sweep("SAELens", "topk, scaled AuxK window", SAE_LENS_RATE, middle, kind="topk", **steps),
        _sweep("dictionary_learning", "topk", rate, kind="topk"),
        _sweep("dictionary_learning", "topk, scaled AuxK window", rate, middle, kind="topk", **tokens),
        _sweep("sparsify", "topk, Adam", rate, **adam),
        _sweep("sparsify", "topk, Adam, AuxK", rate, middle, **auxk),
        _sweep("sparsify", "topk, signum", signum, SIGNUM_MULTIPLES, optimizer="signum"),
    ]


def topk_changes() -> list[Contender]:
    """qsae's TopK SAE at its own rate, with one thing changed."""
    changes = {
        "without restarts": ["--no-restart"],
        "without AuxK": ["--auxk-coefficient", "0"],
        "without either": ["--no-restart", "--auxk-coefficient", "0"],
        "vectors as they are": ["--normalize", "none"],
        "rate falls from the warm-up on": ["--decay", "0.95"],
        "gradients not clipped": ["--clip", "none"],
    }
    return [_topk(f"topk, {what}", *arguments) for what, arguments in changes.items()]


def other_seeds(contender: Contender, label: str, seeds: Sequence[int]) -> Contender:
    """One attempt of a contender again, with other seeds; the page shows them as such.

    Initial weights depend on the seed, and of qsae the order of the vectors too, as in a user's run.
    """
    attempt = next(attempt for attempt in contender.attempts if attempt["label"] == label)
    again = (attempt | {"label": f"{label}, seed {seed}", "seed": seed} for seed in seeds)
    return contender._replace(kind=f"{contender.kind}{OTHER_SEEDS}", attempts=tuple(again), plain=False)


def recovery_contenders(n_latents: int, l0: float) -> Iterator[Contender]:
    """Every kind of SAE that a library has and that can be trained on plain vectors.

    Penalties are spread around those that give about as many active latents as the data has features.

    Args:
        l0: what a jumprelu SAE aims at, where it can.
    """
    rate = topk_rate(n_latents)
    for name in single_layer():
        yield variant(name, l0, n_latents)
    for kind in ("topk", "batchtopk", "matryoshka"):
        yield _sweep("SAELens", kind, SAE_LENS_RATE, kind=kind)
    for kind, penalties in {"standard": (0.5, 1, 2), "gated": (1, 2, 4), "jumprelu": (0.5, 1, 2)}.items():
        yield _penalties("SAELens", kind, SAE_LENS_RATE, penalties)
    for kind in ("topk", "batchtopk", "matryoshka"):
        yield _sweep("dictionary_learning", kind, rate, kind=kind)
    yield _sweep("dictionary_learning", "jumprelu", OWN_RATES["jumprelu"], kind="jumprelu", target_l0=l0)
    for kind, penalties in {"standard": (0.1, 0.2, 0.4), "gated": (0.1, 0.2, 0.4)}.items():
        yield _penalties("dictionary_learning", kind, OWN_RATES[kind], penalties)
    yield _sweep("sparsify", "topk, Adam", rate, optimizer="adam")
    yield _sweep("sparsify", "topk, signum", signum_rate(n_latents), SIGNUM_MULTIPLES, optimizer="signum")


def single_layer() -> list[str]:
    """Every installed SAE that does not ask for several layers; the others need other data."""
    found = installed()
    return [name for name in found if not found[name]]


def several_layers() -> list[str]:
    """The installed SAEs that read several layers at once."""
    found = installed()
    return [name for name in found if found[name]]


def is_routed(name: str) -> bool:
    """Whether an SAE's atoms have one direction for all layers: one is a feature in one layer then."""
    registry = load_plugins().registry
    return issubclass(registry.load_target(registry.get("sae", name)), RoutedCoder)


def installed() -> dict[str, bool]:
    """Installed SAE -> whether it reads several layers at once."""
    registry = load_plugins().registry
    specs = {name: registry.get("sae", name) for name in registry.names("sae")}
    return {name: registry.load_target(spec).reads_layers for name, spec in specs.items()}


def variant(name: str, l0: float, n_latents: int) -> Contender:
    """An installed SAE; one that no line here knows has its defaults and k."""
    rate = topk_rate(n_latents)
    own = ["--sae", name, "--no-compare-float"]
    penalties = {
        "vanilla": ("--l1", (0.02, 0.04, 0.08)),
        "gated": ("--l1", (0.02, 0.04, 0.08)),
        "jumprelu": ("--target-l0", (0.8 * l0, l0, 1.2 * l0)),
    }
    if name in penalties:
        flag, values = penalties[name]
        return _qsae_penalties(name, own, flag, values, rate)
    if name == "quantized-matryoshka":  # k of the first level; the third is twice as large
        return _qsae(f"{name}, levels of 1, 1 and 2", [*own, "--n-levels", "3", "--k", "1"], rate)
    if name == "residual-quantized":  # k of each level
        return _qsae(f"{name}, 4 levels of 1", [*own, "--n-levels", "4", "--k", "1"], rate)
    return _qsae(name, own, rate)


def _topk(kind: str, *arguments: str, plain: bool = False) -> Contender:
    attempt = {"label": "auto", "lr": "auto", "arguments": ["--sae", "topk", *arguments]}
    return Contender("qsae", kind, (attempt,), plain)


def _qsae(kind: str, arguments: list[str], rate: float) -> Contender:
    attempts = ({"label": label, "lr": lr, "arguments": arguments} for label, lr in _rates(rate).items())
    return Contender("qsae", kind, tuple(attempts))


def _qsae_penalties(
    kind: str, arguments: list[str], flag: str, penalties: Sequence[float], rate: float
) -> Contender:
    attempts = [
        {"label": f"{label}, {penalty:g}", "lr": lr, "arguments": [*arguments, flag, str(penalty)]}
        for penalty in penalties
        for label, lr in _rates(rate).items()
    ]
    return Contender("qsae", kind, tuple(attempt | {"penalty": flag} for attempt in attempts))


def _rates(rate: float) -> dict[str, Any]:
    """qsae's own choice, and the same multiples of the rule as for the peers."""
    return {"auto": "auto"} | {f"x{m}": rate * m for m in MULTIPLES}


def _sweep(
    library: str, name: str, rate: float, multiples: Sequence[float] = MULTIPLES, **own: Any
) -> Contender:
    attempts = ({"label": f"x{m}", "lr": rate * m, **own} for m in multiples)
    return Contender(library, name, tuple(attempts))


def _penalties(library: str, kind: str, rate: float, penalties: Sequence[float]) -> Contender:
    attempts = [
        {"label": f"x{m}, {penalty:g}", "lr": rate * m, "kind": kind, "penalty": penalty}
        for penalty in penalties
        for m in MULTIPLES
    ]
    return Contender(library, kind, tuple(attempts))
