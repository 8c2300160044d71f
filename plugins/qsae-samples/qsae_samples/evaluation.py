"""The evaluation ``samples``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from qsae_core.contracts import Evaluation, EvaluationContext, LanguageModel, Result, Table
from qsae_core.errors import QsaeError
from qsae_samples import SamplesConfig
from qsae_samples.assembled import arrays_of
from qsae_samples.files import FILE
from qsae_samples.firings import Firings
from qsae_samples.magnitudes import BELOW, STEPS
from qsae_samples.samples import Samples

if TYPE_CHECKING:
    from qsae_samples.windows import Surroundings


class SamplesEvaluation(Evaluation):
    """Examples of each latent, and what is known of how it fires: ``SamplesResult``.

    A latent fires where the magnitude of its activation is above ``threshold``; the stronger, the larger it
    is. Special tokens are not among the vectors that a coder is shown, and the first ``skip_first`` positions
    of a context are left out; both are counted. No choice hangs on the order or size of batches: it is the
    strongest, or those whose place in the data has the least hash.
    """

    observes = frozenset({"tokens"})

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, where the text cannot be told, or there is a coder for each of several layers."""
        if context.coder.by_layer():
            return "each layer's coder has samples of its own"
        model = cast(LanguageModel, context.data.language_model())  # as ``observes`` says
        try:
            model.decode([0])
        except QsaeError as error:
            return error.what
        return None

    def start(self, context: EvaluationContext) -> Firings:
        """The first pass, which finds the examples."""
        return Firings(cast(SamplesConfig, self.config), context)


@dataclass(frozen=True)
class SamplesResult(Result):
    """What was found; the samples themselves are one file, which ``files`` writes.

    Values: ``n_tokens``; ``n_special`` and ``n_skipped``, tokens that were left out; ``silent``, the share of
    latents that never fire; ``n_examples``; ``examples_per_latent``, of those that fire.
    Columns: ``count``, ``density``, ``mean``, ``largest``, ``n_examples``.
    Table ``strongest``: each latent's strongest example as text.

    Attributes:
        samples: the samples.
    """

    samples: Samples | None = None

    @classmethod
    def of(cls, found: Surroundings) -> SamplesResult:
        """The result of both passes."""
        samples = Samples(arrays_of(found), _about(found))
        arrays = samples.arrays
        n_examples = torch.from_numpy(arrays["example_offsets"]).diff()
        fires = torch.from_numpy(arrays["count"]) > 0
        n_fire = int(fires.sum())
        values = {
            **{name: float(samples.about[name]) for name in ("n_tokens", "n_special", "n_skipped")},
            "silent": 1 - n_fire / samples.n_latents if samples.n_tokens else None,
            "n_examples": float(n_examples.sum()),
            "examples_per_latent": float(n_examples.sum()) / n_fire if n_fire else None,
        }
        columns = {name: torch.from_numpy(arrays[name]) for name in ("count", "mean", "largest")}
        columns["density"] = torch.from_numpy(samples.densities)
        columns["n_examples"] = n_examples
        if not samples.n_tokens:
            columns["density"] = torch.full_like(columns["density"], torch.nan)
        return cls(
            values,
            per_latent=columns,
            tables={"strongest": _strongest(samples)},
            files={FILE: samples.save},
            samples=samples,
        )


def _about(found: Surroundings) -> dict[str, Any]:
    firings, data = found.firings, found.firings.context.data
    return {
        "n_tokens": firings.n_seen,
        "n_special": firings.n_special,
        "n_skipped": firings.n_skipped,
        "n_contexts": firings.n_contexts,
        "context_length": firings.context_length,
        "model": data.model_name,
        "layer": data.layer,
        "source_sites": [str(site) for site in data.source_sites],
        "target_sites": [str(site) for site in data.target_sites],
        "options": found.config.model_dump(mode="json", exclude={"every"}),
        "bins": {"of_an_octave": STEPS, "octaves_below_1": BELOW},
        "cofiring_tokens_share": min(1.0, found.config.cofiring_pairs / max(1, firings.n_pairs)),
    }


def _strongest(samples: Samples) -> Table:
    """A row for each latent that fires: how often, how strongly, on which token, in which text."""
    rows, densities = [], samples.densities
    for number in (samples.arrays["count"] > 0).nonzero()[0].tolist():
        example = samples.example(int(samples.arrays["example_offsets"][number]))
        density = float(densities[number])
        rows.append((number, density, example.value, example.token, example.text))
    return Table(("latent", "density", "activation", "token", "text"), rows)
