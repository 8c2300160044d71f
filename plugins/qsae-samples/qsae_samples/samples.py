"""``Samples``: what a reader asks of a file of samples. Imports no torch, and needs no language model.

Shapes: F latents.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.runs import slug
from qsae_samples import files
from qsae_samples.files import FILE, FULL
from qsae_samples.records import Example, Latent, Logit, RandomWindow


@dataclass(frozen=True)
class Samples:
    """Samples of every latent of a coder.

    Attributes:
        arrays: those of the file.
        about: JSON values: ``n_tokens``, ``n_special`` and ``n_skipped`` tokens that are left out,
            ``options``, and what was read of what.
    """

    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | pathlib.Path, layer: str | None = None) -> Samples:
        """Read samples.

        Args:
            path: the file, the folder that it is in, or a run with samples: those that ``qsae samples``
                collected, else those of its own evaluation.
            layer: of a run with a coder for each layer, which.

        Raises:
            ArtifactError: if there are none, or the file is not as it was written.
        """
        place = pathlib.Path(path)
        beside, evaluated = place / "samples", place / "evaluations"
        if layer is None:
            tried = [place / FILE, beside / FILE, evaluated / "samples" / FILE]
        else:
            of_layer = pathlib.Path("layers", slug(layer))
            tried = [beside / of_layer / FILE, evaluated / of_layer / "samples" / FILE]
        found = place if place.is_file() else next((file for file in tried if file.is_file()), None)
        if found is None:
            of = "" if layer is None else f" of layer {layer}"
            raise ArtifactError(
                f"there is no {FILE}{of}",
                where=str(place),
                allowed="what qsae samples wrote",
                next=f"qsae samples {place}",
            )
        return cls(*files.read(found))

    def save(self, path: str | pathlib.Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            UnwritableError: for what the disk refuses.
        """
        files.write(pathlib.Path(path), self.arrays, self.about)

    @property
    def n_latents(self) -> int:
        """F."""
        return len(self.arrays["count"])

    @property
    def n_tokens(self) -> int:
        """Tokens that were counted."""
        return int(self.about["n_tokens"])

    @property
    def densities(self) -> NDArray[np.float64]:
        """float64 ``[F]``: of all tokens, the share on which each latent fires."""
        counts: NDArray[np.float64] = self.arrays["count"] / max(1, self.n_tokens)
        return counts

    def latent(self, number: int) -> Latent:
        """All that is known of one latent.

        Raises:
            ConfigError: if there is no such latent.
        """
        if not 0 <= number < self.n_latents:
            raise ConfigError(
                f"there is no latent {number} among {self.n_latents:,}", allowed=f"0 to {self.n_latents - 1}"
            )
        a = self.arrays
        count, largest, histogram = (
            int(a["count"][number]),
            float(a["largest"][number]),
            a["histogram"][number],
        )
        start, end = a["example_offsets"][number : number + 2].tolist()
        partners = zip(a["cofiring_latent"][number], a["cofiring_share"][number], strict=True)
        return Latent(
            number,
            count,
            count / max(1, self.n_tokens),
            float(a["mean"][number]) if count else None,
            largest,
            histogram[::-1],
            self._edges(int(a["histogram_top"][number]), len(histogram)),
            a["group_floor"][number],
            [self.example(i) for i in range(start, end)],
            [(int(other), float(share)) for other, share in partners if other >= 0],
            *self._logits(number),
            *self._all_logits(number),
        )

    def random_windows(self) -> list[RandomWindow]:
        """Windows of which the code of every token is kept: where any latent is known to be silent."""
        token, latent = self.arrays["code_token"].astype(np.int64), self.arrays["code_latent"]
        value = self.arrays["code_value"] * (self.arrays["largest"][latent] / np.float32(FULL))
        found = []
        for start, length in zip(self.arrays["random_start"], self.arrays["random_length"], strict=True):
            begin, end = int(start), int(start) + int(length)
            mine = slice(*np.searchsorted(token, [begin, end]))
            pieces, ids = self._text(begin, end)
            found.append(RandomWindow(pieces, ids, token[mine] - begin, latent[mine], value[mine]))
        return found

    def _edges(self, top: int, n_bins: int) -> NDArray[np.float64]:
        bins = self.about["bins"]
        steps = np.arange(top - n_bins + 1, top + 2)
        edges: NDArray[np.float64] = np.exp2(steps / bins["of_an_octave"] - bins["octaves_below_1"])
        return edges

    def _logits(self, number: int) -> tuple[list[Logit] | None, list[Logit] | None]:
        if "logit_token" not in self.arrays:
            return None, None
        known = self._logit_tokens
        raised, lowered = (
            [known[t]._replace(value=float(v)) for t, v in zip(tokens, values, strict=True)]
            for tokens, values in zip(
                self.arrays["logit_token"][number], self.arrays["logit_value"][number], strict=True
            )
        )
        return raised, lowered

    def _all_logits(self, number: int) -> tuple[float | None, NDArray[np.uint32] | None]:
        if "logit_mean" not in self.arrays:  # files of before have none
            return None, None
        return float(self.arrays["logit_mean"][number]), self.arrays["logit_histogram"][number]

    @functools.cached_property
    def _logit_tokens(self) -> list[Logit]:
        """Every token that some latent raises or lowers, without a value."""
        texts = files.unpacked(self.arrays["logit_text"])
        stored = self.arrays.get("logit_bytes")  # files of before have none
        raw = [""] * len(texts) if stored is None else files.unpacked(stored)
        return [
            Logit(int(token), text, 0.0, bytes.fromhex(part) if part else None)
            for token, text, part in zip(self.arrays["logit_ids"], texts, raw, strict=True)
        ]

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return files.unpacked(self.arrays["vocabulary_text"])

    @functools.cached_property
    def _active_offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.arrays["example_active"], dtype=np.int64)])

    def _text(self, begin: int, end: int) -> tuple[list[str], NDArray[np.uint32]]:
        rows = self.arrays["tokens"][begin:end]
        return [self._pieces[row] for row in rows], self.arrays["vocabulary_ids"][rows]

    def example(self, number: int) -> Example:
        """One example of all; those of latent j are numbers ``example_offsets[j]`` up to ``[j + 1]``."""
        a = self.arrays
        latent = int(np.searchsorted(a["example_offsets"], number, side="right")) - 1
        begin, length, peak = (int(a[f"example_{name}"][number]) for name in ("start", "length", "peak"))
        pieces, ids = self._text(begin, begin + length)
        entries = slice(*self._active_offsets[number : number + 2])
        activations = np.zeros(length, dtype=np.float32)
        activations[a["active_at"][entries]] = a["active_value"][entries] * (
            a["largest"][latent] / np.float32(FULL)
        )
        stretch = int(np.searchsorted(a["stretch_start"], begin, side="right")) - 1
        into = begin - int(a["stretch_start"][stretch])
        return Example(
            int(a["example_group"][number]),
            pieces,
            activations,
            ids,
            peak,
            int(a["stretch_context"][stretch]),
            int(a["stretch_position"][stretch]) + into + peak,
            int(a["stretch_document"][stretch]),
        )
