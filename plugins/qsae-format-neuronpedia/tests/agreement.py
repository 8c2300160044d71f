"""What SAEDashboard and the format say of the same latents on the same tokens, held side by side."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import torch
from qsae_samples import Samples

SHOWN = 5e-4
"""SAEDashboard rounds to three decimals."""


def features_of(folder: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Latent -> what is said of it."""
    files = sorted(folder.glob("batch-*.json"))
    batches = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {f["feature_index"]: f for batch in batches for f in batch["features"]}


class Agreement:
    """Compared latent by latent.

    Args:
        ours, theirs: folders of batches.
        samples: of which ours are made.
        ids, documents: ``[C, T]``, of the contexts that both read.
        vocabulary: token id -> what SAEDashboard calls it.
    """

    def __init__(
        self,
        ours: pathlib.Path,
        theirs: pathlib.Path,
        samples: Samples,
        ids: torch.Tensor,
        documents: torch.Tensor,
        vocabulary: dict[int, str],
    ) -> None:
        self.ours, self.theirs, self.samples = features_of(ours), features_of(theirs), samples
        self.ids, self.documents = ids, documents
        strings = [
            tuple(vocabulary[t] for t in row[1:].tolist()) for row in ids
        ]  # it leaves the first one out
        self.contexts = {row: number for number, row in enumerate(strings)}
        self.names = vocabulary
        self.seen = dict.fromkeys(("top", "window", "logit", "firing"), 0)
        self.apart: list[float] = []

    def check(self, rel: float = 2e-4) -> None:
        """Fail unless they agree on every latent, but for ``rel`` of an activation and a rounding."""
        assert list(self.ours) == list(self.theirs)
        for number in self.ours:
            ours, theirs = self.ours[number], self.theirs[number]
            self._counts(number, ours, theirs)
            self._atoms(ours, theirs)
            self._logits(number, ours, theirs)
            if self.samples.latent(number).firings:
                self._top(number, ours, theirs, rel)
                self._histogram(number, ours, theirs)

    def _counts(self, number: int, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        n = self.samples.latent(number).firings
        # of all positions, special ones too, in per cent with three decimals
        assert abs(theirs["frac_nonzero"] * self.ids.numel() - n) <= 0.5e-5 * self.ids.numel() + 1.01, number
        assert sum(ours["freq_hist_data_bar_heights"]) == n
        assert abs(sum(theirs["freq_hist_data_bar_heights"]) - n) <= 1
        self.seen["firing"] += n

    def _atoms(self, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        for name in ("values", "l1"):
            a, b = ours[f"neuron_alignment_{name}"], theirs[f"neuron_alignment_{name}"]
            np.testing.assert_allclose(a, b, atol=2 * SHOWN)
        if np.diff(ours["neuron_alignment_values"]).max() < -1e-5:  # no ties
            assert ours["neuron_alignment_indices"] == theirs["neuron_alignment_indices"]

    def _logits(self, number: int, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        latent = self.samples.latent(number)
        for side, tokens in (("pos", latent.raises or []), ("neg", latent.lowers or [])):
            a, b = ours[f"{side}_values"], theirs[f"{side}_values"]
            # the norm adds its epsilon to the mean square of an atom of norm 1
            np.testing.assert_allclose(a, b, rtol=0.01, atol=2 * SHOWN)
            names = [self.names[token.token_id] for token in tokens]
            clear = [
                i for i in range(len(a)) if all(abs(a[i] - a[j]) > 2e-3 for j in range(len(a)) if j != i)
            ]
            inner = [i for i in clear if i < len(a) - 1]  # the last one may be level with the one behind it
            assert [names[i] for i in inner] == [theirs[f"{side}_str"][i] for i in inner]
            self.seen["logit"] += len(inner)
        low, high = ours["logits_hist_data_bar_values"][::49]
        np.testing.assert_allclose(
            [low, high], theirs["logits_hist_data_bar_values"][::49], rtol=0.01, atol=2e-3
        )
        a, b = (np.array(f["logits_hist_data_bar_heights"]) for f in (ours, theirs))
        assert a.sum() == b.sum() == len(self.names)
        assert np.abs(a.cumsum() - b.cumsum()).max() <= 0.01 * a.sum()

    def _top(self, number: int, ours: dict[str, Any], theirs: dict[str, Any], rel: float) -> None:
        latent = self.samples.latent(number)
        top = [a for a in theirs["activations"] if a["bin_min"] == -1 and max(a["values"]) > 0]
        largest = top[0]["bin_max"]
        near = {"rtol": rel, "atol": SHOWN * 1.1 + rel * largest}
        np.testing.assert_allclose(ours["activations"][0]["bin_max"], largest, **near)
        whole: dict[int, list[float]] = {}
        found: dict[int, float] = {}
        at: dict[tuple[int, int], float] = {}
        for shown in top:  # the strongest first; of each document the first
            context, place = self.contexts[tuple(shown["tokens"])], shown["qualifying_token_index"]
            whole[context] = [0.0, *shown["values"]]
            document, value = int(self.documents[context, place + 1]), shown["values"][place]
            if value > 0:
                found.setdefault(document, value)
                at[context, place + 1] = value
        mine = list(zip(ours["activations"], latent.examples, strict=True))
        strongest = [(a["values"][e.peak], (e.context, e.position)) for a, e in mine if e.group == 0]
        last = min(at.values())
        for (value, place), other in zip(strongest, found.values(), strict=False):
            np.testing.assert_allclose(value, other, **near)
            if place in at:  # of level ones they may show another one
                np.testing.assert_allclose(value, at[place], **near)
                self.seen["top"] += 1
            else:
                np.testing.assert_allclose(value, last, err_msg=f"{number}: {place}", **near)
        for shown, example in mine:  # whole windows, where they show that context too
            if example.context in whole:
                start = example.position - example.peak
                b = whole[example.context][start : start + len(shown["values"])]
                np.testing.assert_allclose(shown["values"], b, **near)
                self.seen["window"] += 1

    def _histogram(self, number: int, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        """How far apart the shares of firings below a magnitude are, at the ends of their bars, where theirs
        are exact: at most by those of a bin of ours, in which firings are taken as even."""
        n = sum(ours["freq_hist_data_bar_heights"])
        if n < 200:
            return
        ends, shares = [], []
        for feature in (ours, theirs):
            values, heights = (np.array(feature[f"freq_hist_data_bar_{w}"]) for w in ("values", "heights"))
            half = (values[-1] - values[0]) / (len(values) - 1) / 2
            ends.append(np.append(values[0] - half, values + half))
            shares.append(np.append(0, heights.cumsum() / n))
        apart = np.abs(np.interp(ends[1], ends[0], shares[0]) - shares[1])[1:-1]
        self.apart.append(float(apart.max()))
        assert self.apart[-1] <= self.samples.latent(number).histogram.max() / n + 0.02, number
