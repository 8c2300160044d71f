"""The evaluation ``ground-truth``. Shapes: A features, F latents, P pairs of them, D width of a direction."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    Observation,
    Result,
    SparseCodes,
    Table,
)
from qsae_core.measuring import (
    column,
    directions,
    equal_layers,
    mean,
    random_directions,
    standard_error,
    unit_rows,
)
from qsae_evaluation_ground_truth import GroundTruthConfig
from qsae_evaluation_ground_truth.firing import Firing
from qsae_evaluation_ground_truth.recovery import recovery
from qsae_evaluation_ground_truth.truth import Truth

FIRING = ("precision", "recall", "f1")


class GroundTruth(Evaluation):
    """How much of a known dictionary is found, and whether latents fire where their features are active."""

    config: GroundTruthConfig

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The data does not know its features, or the coder's latents are of no one place."""
        if context.coder.by_layer():
            return "latents of different layers share features; each layer's coder is compared with the truth"
        if context.coder.chooses_layer:
            return (
                "the coder's atoms are of whichever layer it chooses for a token, the truth is of one layer"
            )
        try:
            Truth(context.data, context.coder)
        except LookupError as error:
            return str(error)
        return None

    def start(self, context: EvaluationContext) -> Compared:
        """The matching of atoms with features; no token is compared yet."""
        return Compared(self.config, context)


class Compared(Accumulator):
    """The coder's latents and the true features, over tokens."""

    def __init__(self, config: GroundTruthConfig, context: EvaluationContext) -> None:
        self.config, self.n_tokens = config, config.tokens
        self._wanted = min(config.tokens, context.n_tokens)
        self._truth = Truth(context.data, context.coder)
        self._features: SparseCodes | None = None
        coder, dictionary = context.coder, self._truth.dictionary().to(context.device)
        self._truth_AD = unit_rows(equal_layers(coder, dictionary))
        self._unit_FD = directions(coder)
        self._norms_A, self._norms_F = (
            torch.linalg.vector_norm(x.detach().flatten(1).double(), dim=1).cpu()
            for x in (dictionary, coder.atom_norms()[:, None])
        )
        self._found = recovery(self._truth_AD, self._unit_FD, config.exact_up_to, config.found_above)
        self._firing = Firing(self._found.matching, len(self._truth_AD), len(self._unit_FD))
        self._ratio, self._with_norm, self._seen, self._told = 0.0, 0, 0, True

    def update(self, observation: Observation) -> None:
        """Compare the codes of a batch with the coefficients of the same tokens."""
        target, reconstruction = (
            x.flatten(1).double() for x in (observation.target, observation.reconstruction)
        )
        norms = target.norm(dim=1)
        known = norms > 0
        self._ratio += float((reconstruction.norm(dim=1)[known] / norms[known]).sum())
        self._with_norm += int(known.sum())
        first = self._seen if observation.first is None else observation.first
        self._seen += len(target)
        if self._features is None and self._told:
            self._features = self._truth.features(self._wanted)
            self._told = self._features is not None
        if self._features is not None:
            truth = _tokens(self._features, first, first + len(target))
            self._firing.add(truth, observation.codes.to("cpu"))

    def merge(self, other: Compared) -> None:
        """Add what another one has seen of the same coder and data."""
        self._ratio += other._ratio
        self._with_norm += other._with_norm
        self._seen += other._seen
        self._told = self._told and other._told
        self._firing.merge(other._firing)

    def result(self) -> Result:
        """What the README names."""
        found, config = self._found, self.config
        random_FD = random_directions(self._unit_FD, config.seed)
        by_chance = recovery(self._truth_AD, random_FD, config.exact_up_to, config.found_above)
        told = self._told and self._firing.tokens > 0
        firing = self._firing.columns() if told else {}
        of_pairs = {name: firing.get(name) for name in FIRING}
        ratios_P = self._coefficient_ratios()
        values = {
            **found.values,
            **{name: mean(column_P) for name, column_P in of_pairs.items()},
            **self._l0(told),
            "shrinkage": self._ratio / self._with_norm if self._with_norm else None,
            "coefficient_ratio": mean(ratios_P),
            "n_tokens": float(self._seen),
            "n_features": float(self._truth_AD.any(1).sum()),
            "n_latents": float(len(self._unit_FD)),
            "matching_exact": float(found.matching.how == "exact"),
        }
        errors = {name: standard_error(column_P) for name, column_P in of_pairs.items()}
        return Result(
            values,
            {**by_chance.values, **{name: mean(firing.get(f"{name}_by_chance")) for name in FIRING}},
            uncertainty={**found.errors, **errors, "coefficient_ratio": standard_error(ratios_P)},
            per_latent=self._columns(firing, ratios_P),
            tables={"features": self._table(firing)},
        )

    def _l0(self, told: bool) -> dict[str, float | None]:
        """Active latents, and active features, of a token."""
        if not told:
            return {"l0": None, "l0_true": None}
        sums = {"l0": self._firing.of_latent, "l0_true": self._firing.of_feature}
        return {name: float(counts.sum()) / self._firing.tokens for name, counts in sums.items()}

    def _coefficient_ratios(self) -> Tensor:
        """float64 ``[P]``: sum of ``f_j ||w_j||`` over that of ``z_i ||d_i||``, where both are active; NaN
        where they never are."""
        matching, firing = self._found.matching, self._firing
        latents = firing.latent_sum[matching.columns] * self._norms_F[matching.columns]
        return latents / (firing.feature_sum[matching.columns] * self._norms_A[matching.rows])

    def _columns(self, firing: Mapping[str, Tensor], ratios_P: Tensor) -> dict[str, Tensor]:
        matching, n = self._found.matching, len(self._unit_FD)
        found = {"feature": matching.rows, "feature_cosine": matching.cosines}
        if firing:
            found |= {name: firing[name] for name in FIRING} | {"coefficient_ratio": ratios_P}
        return {name: column(n, matching.columns, values) for name, values in found.items()}

    def _table(self, firing: Mapping[str, Tensor]) -> Table:
        """A row for each feature that counts, matched or not."""
        matching, n = self._found.matching, len(self._truth_AD)
        latents = dict(zip(matching.rows.tolist(), matching.columns.tolist(), strict=True))
        columns = {"cosine": column(n, matching.rows, matching.cosines)}
        if firing:
            columns["rate"] = self._firing.of_feature / self._firing.tokens
            columns |= {name: column(n, matching.rows, firing[name]) for name in FIRING}
        cells = [x.tolist() for x in columns.values()]
        rows = [
            (i, latents.get(i), *(None if math.isnan(of_each[i]) else of_each[i] for of_each in cells))
            for i in self._truth_AD.any(1).nonzero()[:, 0].tolist()
        ]
        return Table(("feature", "latent", *columns), rows)


def _tokens(codes: SparseCodes, start: int, end: int) -> SparseCodes:
    """The codes of some of the tokens."""
    offsets = codes.offsets[start : end + 1]
    entries = slice(int(offsets[0]), int(offsets[-1]))
    return SparseCodes(
        codes.indices[entries], codes.values[entries], offsets - offsets[0], codes.n_latents, codes.k
    )
