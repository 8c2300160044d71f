"""One latent as Neuronpedia shows it. Shapes: F latents, E width of what is written, W tokens of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from qsae_format_neuronpedia.histograms import Bars, of_firings, of_logits, rounded

if TYPE_CHECKING:
    from qsae_samples import Latent, Logit, Samples

ROWS = 3
"""Of a table of neurons, as SAEDashboard has them."""
TOP = -1
"""``bin_min`` and ``bin_contains`` of the strongest examples, which are of no interval."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
Activation = dict[str, Any]


class Features:
    """The latents of a coder, one at a time.

    Activations are multiplied by the norms of their atoms, and atoms divided by them, as SAEDashboard and
    Neuronpedia's own inference do (``fold_W_dec_norm``).

    Args:
        samples: where they fire.
        W_dec: ``[F, E]``.
        dataset: what their text is called; None: what they say of it.
    """

    def __init__(self, samples: Samples, W_dec: Tensor, dataset: str | None = None) -> None:
        self.samples, self.W_dec = samples, W_dec
        self.of_all = {
            "n_prompts_total": samples.about.get("n_contexts"),
            "n_tokens_in_prompt": samples.about.get("context_length"),
            "dataset": dataset or samples.about.get("measured"),
        }

    def of(self, number: int) -> dict[str, Any]:
        """JSON values, in the order of SAEDashboard's; what is not known of a latent is null, or an empty
        list."""
        latent, atom_E = self.samples.latent(number), self.W_dec[number]
        norm = float(atom_E.norm())
        fired = of_firings(latent.histogram, latent.edges * norm, latent.largest * norm)
        return {
            "feature_index": number,
            **_aligned(atom_E / norm if norm else atom_E),
            "correlated_neurons_indices": [],
            "correlated_neurons_l1": [],
            "correlated_neurons_pearson": [],
            "correlated_features_indices": [],
            "correlated_features_l1": [],
            "correlated_features_pearson": [],
            **self._tokens(latent),
            "frac_nonzero": latent.density,
            "freq_hist_data_bar_values": fired.values,
            "freq_hist_data_bar_heights": fired.heights,
            **self._all_tokens(latent),
            **self.of_all,
            "decoder_weights_dist": [],
            "activations": list(_activations(latent, norm)),
            "vector": [],
        }

    def _shown_logit(self, latent: Latent, value: float) -> float:
        """A logit less the mean of all tokens', over sqrt(E): of a model with an RMSNorm, what the atom of
        norm 1 adds where the norm divides by 1."""
        return (value - (latent.logit_mean or 0.0)) / self.W_dec.shape[1] ** 0.5

    def _tokens(self, latent: Latent) -> dict[str, Any]:
        """Those that the atom lowers and raises most."""
        found: dict[str, Any] = {}
        for side, tokens in (("neg", latent.lowers or []), ("pos", latent.raises or [])):
            found[f"{side}_str"] = [_text(token) for token in tokens]
            found[f"{side}_values"] = [rounded(self._shown_logit(latent, token.value)) for token in tokens]
        return found

    def _all_tokens(self, latent: Latent) -> dict[str, Any]:
        bars = Bars([], [])
        if latent.raises and latent.lowers and latent.logit_histogram is not None:
            least, largest = (
                self._shown_logit(latent, side[0].value) for side in (latent.lowers, latent.raises)
            )
            bars = of_logits(latent.logit_histogram, least, largest)
        return {
            "logits_hist_data_bar_heights": bars.heights,
            "logits_hist_data_bar_values": bars.values,
        }


def _text(token: Logit) -> str:
    r"""Of a part of a character its bytes, as ``\xe2\x80``: by its text it would be any such part."""
    return token.text if token.raw is None else "".join(f"\\x{byte:02x}" for byte in token.raw)


def _aligned(atom_E: Tensor) -> dict[str, Any]:
    """The largest entries of an atom, and their shares of the sum of all magnitudes."""
    largest = atom_E.topk(min(ROWS, len(atom_E)))
    total = float(atom_E.abs().sum())
    shares: Sequence[float | None] = [None] * len(largest.values)
    if total:
        shares = [rounded(abs(value) / total) for value in largest.values.tolist()]
    return {
        "neuron_alignment_indices": largest.indices.tolist(),
        "neuron_alignment_values": [rounded(value) for value in largest.values.tolist()],
        "neuron_alignment_l1": shares,
    }


def _activations(latent: Latent, norm: float) -> Iterator[Activation]:
    """The strongest examples, then those of each part by rank."""
    floors = [float(floor) * norm for floor in latent.group_floors]
    largest = latent.largest * norm
    for example in latent.examples:
        if example.group == 0:
            bin_min, bin_max, contains = float(TOP), rounded(largest), float(TOP)
        else:
            bin_min = rounded(floors[example.group - 1])
            bin_max = rounded(floors[example.group - 2] if example.group > 1 else largest)
            contains = rounded(latent.density / len(floors))
        values = [rounded(value * norm) if value else 0.0 for value in example.activations.tolist()]
        yield {
            "bin_min": bin_min,
            "bin_max": bin_max,
            "bin_contains": contains,
            "tokens": [
                piece or (BROKEN if value else "")
                for piece, value in zip(example.pieces, values, strict=True)
            ],
            "values": values,
            "qualifying_token_index": example.peak,
        }
