"""The evaluation ``stability``. Shapes: F latents, D width of an atom, P pairs of latents, S other seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    Observation,
    Result,
    SparseCoder,
    Table,
)
from qsae_core.errors import ConfigError
from qsae_core.measuring import Matching, column, directions, match, mean, random_directions, standard_error
from qsae_core.runs import load_other
from qsae_evaluation_stability import StabilityConfig
from qsae_evaluation_stability.code_pairs import CodePairs
from qsae_evaluation_stability.seeds import all_pairs, average, jackknife, pair, spread

OPTION = "evaluate: stability.others"


class Stability(Evaluation):
    """How much of a dictionary comes back with another seed."""

    config: StabilityConfig

    def unavailable(self, context: EvaluationContext) -> str | None:
        """No other runs are given, or latents are of several layers."""
        if not self.config.others:
            return "no runs with other seeds are given (option `others`)"
        if context.coder.by_layer():
            return "atoms of different layers have nothing in common; each layer's coder is compared alone"
        return None

    def start(self, context: EvaluationContext) -> Seeds:
        """The runs, and this one's latents matched with those of each other one.

        Raises:
            ArtifactError, ConfigError: if one is no sound coder, none of the same width, or given twice.
        """
        paths = self.config.others
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ConfigError(
                f"{twice[0]} is given twice", where=OPTION, allowed="runs with different seeds, each once"
            )
        others = [load_other(path, context.coder, context.data.layer, OPTION) for path in paths]
        return Seeds(self.config, context.coder, others)


class Seeds(Accumulator):
    """This run and others, and the codes of matched latents over tokens."""

    def __init__(self, config: StabilityConfig, coder: SparseCoder, others: Sequence[SparseCoder]) -> None:
        self.config, self.others = config, others
        self.n_tokens = max(config.tokens, 1)
        self._dictionaries = [directions(each) for each in (coder, *others)]
        own, n = self._dictionaries[0], len(self._dictionaries[0])
        self._matchings = [
            match(own, other, exact_up_to=config.exact_up_to) for other in self._dictionaries[1:]
        ]
        self._codes, self._shuffled = [], []
        for matching, other in zip(self._matchings, self._dictionaries[1:], strict=True):
            rows, columns = matching.rows, matching.columns
            self._codes.append(CodePairs(rows, columns, n, len(other)))
            self._shuffled.append(CodePairs(rows, columns.roll(1), n, len(other)))

    def update(self, observation: Observation) -> None:
        """Encode the same vectors by all other runs."""
        if not self.config.tokens:
            return
        assert observation.inputs is not None  # core gives what was encoded
        own = observation.codes.to("cpu")
        for other, codes, shuffled in zip(self.others, self._codes, self._shuffled, strict=True):
            with torch.no_grad():
                its = other.encode(observation.inputs).to("cpu")
            codes.add(own, its)
            shuffled.add(own, its)

    def merge(self, other: Seeds) -> None:
        """Add what another one has seen of the same runs."""
        for own, its in zip([*self._codes, *self._shuffled], [*other._codes, *other._shuffled], strict=True):
            own.merge(its)

    def result(self) -> Result:
        """What the README names."""
        of_pairs = all_pairs(self._dictionaries, self.config.exact_up_to)
        signed = {runs: found.pw_mcc for runs, found in of_pairs.items()}
        unsigned = {runs: found.pw_mcc_abs for runs, found in of_pairs.items()}
        cosines_SF, correlations_SF = self._by_latent()
        returned = {
            f"returned_above_{t:g}": self._returned(cosines_SF, t) for t in self.config.returned_above
        }
        n_runs, correlation_F = len(self._dictionaries), correlations_SF.nanmean(0)
        values = {
            "pw_mcc": average(list(signed.values())),
            "pw_mcc_spread": spread(list(signed.values())),
            "pw_mcc_abs": average(list(unsigned.values())),
            **{name: mean(shares_F) for name, shares_F in returned.items()},
            "code_correlation": mean(correlation_F),
            "n_runs": float(n_runs),
            "n_tokens": float(self._codes[0].tokens),
            "matching_exact": float(all(found.matching == "exact" for found in of_pairs.values())),
        }
        errors = {name: standard_error(shares_F) for name, shares_F in returned.items()}
        errors |= {"pw_mcc": jackknife(signed, n_runs), "pw_mcc_abs": jackknife(unsigned, n_runs)}
        errors["code_correlation"] = standard_error(correlation_F)
        columns = {"cosine": cosines_SF.nanmean(0), "code_correlation": correlation_F}
        for number, (matching, of_other) in enumerate(zip(self._matchings, cosines_SF, strict=True), 1):
            columns[f"match_{number}"] = column(len(of_other), matching.rows, matching.columns)
            columns[f"cosine_{number}"] = of_other
        rows = [
            (self._name(i), self._name(j), found.pw_mcc, found.pw_mcc_abs, found.n_pairs, found.matching)
            for (i, j), found in of_pairs.items()
        ]
        table = Table(("run", "other", "pw_mcc", "pw_mcc_abs", "pairs", "matching"), rows)
        return Result(values, self._chance(), {}, errors, columns, {"pairs": table})

    def _by_latent(self) -> tuple[Tensor, Tensor]:
        """float64 ``[S, F]`` each: cosine and correlation of each latent with its partner in each other run;
        NaN where it has none, or the correlation is not defined."""
        n, least = len(self._dictionaries[0]), self.config.min_firings
        cosines = [column(n, m.rows, m.cosines) for m in self._matchings]
        correlations = [column(n, c.own_P, c.correlations(least)) for c in self._codes]
        return torch.stack(cosines), torch.stack(correlations)

    def _returned(self, cosines_SF: Tensor, threshold: float) -> Tensor:
        """float64 ``[F]``: in how many of the other runs, as a share, a latent comes back; a latent without a
        partner does not, one without a direction is left out (NaN)."""
        known_F = self._dictionaries[0].any(1).cpu()
        return (cosines_SF > threshold).double().mean(0).where(known_F, torch.nan)

    def _chance(self) -> dict[str, float | None]:
        """What random rows in this run's place have with the others; and codes with shuffled partners."""
        random_FD, limit = random_directions(self._dictionaries[0], self.config.seed), self.config.exact_up_to
        of_random = [pair(random_FD, other, limit) for other in self._dictionaries[1:]]
        found = [match(random_FD, other, exact_up_to=limit) for other in self._dictionaries[1:]]
        shuffled = [mean(codes.correlations(self.config.min_firings)) for codes in self._shuffled]
        return {
            "pw_mcc": average([each.pw_mcc for each in of_random]),
            "pw_mcc_abs": average([each.pw_mcc_abs for each in of_random]),
            **{
                f"returned_above_{t:g}": average([_share(m, len(random_FD), t) for m in found])
                for t in self.config.returned_above
            },
            "code_correlation": average(shuffled),
        }

    def _name(self, number: int) -> str:
        return self.config.others[number - 1] if number else "this one"


def _share(matching: Matching, n_rows: int, threshold: float) -> float:
    return int((matching.cosines > threshold).sum()) / n_rows
