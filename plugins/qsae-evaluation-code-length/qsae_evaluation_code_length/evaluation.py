"""The evaluation ``code-length``. Shapes: F latents, G groups of scored tokens."""

from __future__ import annotations

import pathlib
from typing import cast

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder
from qsae_core.conformance import Case
from qsae_core.contracts import (
    Accumulator,
    Evaluation,
    EvaluationContext,
    Observation,
    Result,
    SparseCoder,
    Table,
)
from qsae_core.measuring import FIT, CodeCounts, support_bits, value_bits
from qsae_evaluation_code_length import CodeLengthConfig
from qsae_evaluation_code_length.lengths import standard_error, uniform_support_bits, uniform_value_bits


class CodeLength(Evaluation):
    """Bits per token of the codes, latent by latent, as the length of a code that was fitted on other tokens.

    The definition is that of the metric ``rate``, whose totals are the sums of the columns:

    ``bits_support``, ``bits_values``, ``bits_per_token``: as ``rate`` has them, all over scored tokens;
    ``bits_dictionary``: bits of the decoder's matrices as they are stored, once;
    ``bits_per_token_amortized`` = bits_per_token + bits_dictionary / amortized_over;
    ``amortized_over``: tokens, those of the option ``amortize_over``, or all that were seen;
    ``bits_total``: one of the two, as the option ``dictionary`` says;
    ``half_share``: the fewest latents that hold half of bits_per_token, as a share of all;
    ``n_fitted``, ``n_scored``: tokens.

    Columns: ``bits``, ``bits_support``, ``bits_values`` (per token), ``bits_per_firing``, ``density`` (on
    scored tokens), ``bits_dictionary`` (once, of the latent's own row).
    """

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """The default, and blocks of which a short stream has several."""
        return [Case(), Case({"block": 8, "groups": 3}), Case({"block": 4, "dictionary": "amortized"})]

    def unavailable(self, context: EvaluationContext) -> str | None:
        """Where there is nothing to score."""
        block = cast(CodeLengthConfig, self.config).block
        if context.n_tokens <= block:
            return (
                f"{context.n_tokens} tokens are no more than the one block that is fitted (option `block`, "
                f"{block} tokens), and none is left to be scored"
            )
        return None

    def start(self, context: EvaluationContext) -> Counted:
        """Counts of nothing."""
        return Counted(cast(CodeLengthConfig, self.config), dictionary_bits(context.coder))


class Counted(Accumulator):
    """Counts of codes, and the bits of the dictionary's rows, ``[F]``; None where that is not known."""

    def __init__(self, config: CodeLengthConfig, dictionary_F: Tensor | None) -> None:
        self.config, self.dictionary_F = config, dictionary_F
        self.counts = CodeCounts(config.block, config.groups)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        self.counts.update(observation)

    def merge(self, other: Counted) -> None:
        """Add the counts."""
        self.counts.merge(other.counts)

    def result(self) -> Result:
        """The values that ``CodeLength`` names; None where no token is fitted or none is scored."""
        active, tokens = self.counts.active, self.counts.tokens
        fitted, scored = float(tokens[FIT]), float(tokens[1:].sum())
        if active is None or not fitted or not scored:
            return Result(dict.fromkeys(VALUES) | {"n_fitted": fitted, "n_scored": scored})
        support_GF, of_values_GF = support_bits(self.counts, active), value_bits(self.counts, active)
        support_F, of_values_F = support_GF.sum(0) / scored, of_values_GF.sum(0) / scored
        bits_F, fires_F = support_F + of_values_F, active[1:].sum(0).double()
        values: dict[str, float | None] = {
            "bits_support": float(support_F.sum()),
            "bits_values": float(of_values_F.sum()),
            "bits_per_token": float(bits_F.sum()),
            "half_share": _half_share(bits_F),
            "n_fitted": fitted,
            "n_scored": scored,
        }
        values |= self._with_dictionary(float(bits_F.sum()), fitted + scored)
        spread = {"bits_support": support_GF, "bits_values": of_values_GF}
        spread["bits_per_token"] = support_GF + of_values_GF
        columns = {
            "bits": bits_F,
            "bits_support": support_F,
            "bits_values": of_values_F,
            "bits_per_firing": torch.where(fires_F > 0, bits_F * scored / fires_F, torch.nan),
            "density": fires_F / scored,
        }
        if self.dictionary_F is not None:
            columns["bits_dictionary"] = self.dictionary_F
        return Result(
            {name: values[name] for name in VALUES},
            baseline=self._uniform(active, scored),
            uncertainty={name: standard_error(b.sum(1), tokens[1:]) for name, b in spread.items()},
            per_latent=columns,
            tables={"costliest": _costliest(columns, self.config.rows)},
        )

    def _with_dictionary(self, of_codes: float, measured: float) -> dict[str, float | None]:
        """The values with the dictionary's bits in them; None where these are not known."""
        total = None if self.dictionary_F is None else float(self.dictionary_F.sum())
        over = float(self.config.amortize_over or measured)
        amortized = None if total is None else of_codes + total / over
        headline = amortized if self.config.dictionary == "amortized" else of_codes
        return {
            "bits_dictionary": total,
            "bits_per_token_amortized": amortized,
            "bits_total": headline,
            "amortized_over": over,
        }

    def _uniform(self, active: Tensor, scored: float) -> dict[str, float | None]:
        support = uniform_support_bits(self.counts, active) / scored
        of_values = uniform_value_bits(self.counts, active) / scored
        return {
            "bits_support": support,
            "bits_values": of_values,
            "bits_per_token": support + of_values,
        }


VALUES = (
    "bits_total",
    "bits_per_token",
    "bits_support",
    "bits_values",
    "bits_per_token_amortized",
    "bits_dictionary",
    "amortized_over",
    "half_share",
    "n_fitted",
    "n_scored",
)


def dictionary_bits(coder: SparseCoder) -> Tensor | None:
    """float64 ``[F]``: bits of each latent's rows of the decoder's matrices as they are stored; what rows
    share is spread evenly over them. None of a coder that decodes otherwise."""
    parts = coder.by_layer()
    if parts:
        found = [dictionary_bits(part) for part in parts]
        known = [bits for bits in found if bits is not None]
        return torch.cat(known) if len(known) == len(found) else None
    if not isinstance(coder, MatrixCoder):
        return None
    matrices = [matrix.pack() for matrix in coder.decoders().values()]
    columns = [
        torch.full((packed.shape[0],), 8 * packed.n_bytes / packed.shape[0], dtype=torch.float64)
        for packed in matrices
    ]
    bits = torch.cat(columns) if columns else torch.zeros(0)
    return bits if len(bits) == coder.n_latents else None


def _half_share(bits_F: Tensor) -> float:
    """The fewest latents that hold half of all bits, as a share of the latents."""
    total_F = bits_F.sort(descending=True).values.cumsum(0)
    return (int((total_F < total_F[-1] / 2).sum()) + 1) / len(bits_F)


def _costliest(columns: dict[str, Tensor], n_rows: int) -> Table:
    """The latents with most bits per token, and the share of all bits that they and those above them hold."""
    bits_F = columns["bits"]
    order = bits_F.argsort(descending=True, stable=True)[:n_rows]
    cumulative = bits_F[order].cumsum(0) / bits_F.sum()
    shown = ("bits", "bits_support", "bits_values", "density", "bits_per_firing")
    rows = [
        [latent, *(_cell(columns[name][latent]) for name in shown), float(share)]
        for latent, share in zip(order.tolist(), cumulative, strict=True)
    ]
    return Table(("latent", *shown, "cumulative_share"), rows)


def _cell(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
