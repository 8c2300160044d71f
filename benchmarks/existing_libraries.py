"""What takes part in ``existing-saes``: each library's TopK SAE, and the widths to which it is rounded."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.contenders import SAE_LENS_RATE, SCRIPTS, topk_rate
from benchmarks.settings import Sizes


class Width(NamedTuple):
    """What both matrices are rounded to, under a name."""

    bits: int
    quantizer: str
    decoder_bits: float
    encoder_bits: int

    @property
    def arguments(self) -> list[str]:
        """Of ``qsae quantize``."""
        decoder = ["--quantizer", self.quantizer, "--quantizer.n-bits", f"{self.decoder_bits:g}"]
        return [*decoder, "--encoder-quantizer", "rtn", "--encoder-quantizer.n-bits", str(self.encoder_bits)]


WIDTHS = (
    Width(8, "gptq", 8, 8),
    Width(4, "mixed", 3.75, 4),  # with scales, biases and coder.json below an eighth of float32
    Width(3, "mixed", 3, 3),
    Width(2, "mixed", 2, 2),
)


class Library(NamedTuple):
    """How a library trains its SAE, and what of its files is imported.

    Attributes:
        name: a key of ``contenders.SCRIPTS``.
        form: the format that reads and writes its files.
        inner: folder of these files within the one that it saves to.
        attempt: with the learning rate that was best for it in ``quality-news``, and an auxiliary loss for
            latents that have not fired for an eighth of the run.
    """

    name: str
    form: str
    inner: str
    attempt: dict[str, Any]

    @property
    def slug(self) -> str:
        """Names folders."""
        return SCRIPTS[self.name][1]


def libraries(sizes: Sizes) -> list[Library]:
    """All that have TopK SAEs."""
    rate, window = topk_rate(sizes.n_latents), sizes.steps * sizes.batch_size // 8
    own = {"kind": "topk", "lr": 10 * SAE_LENS_RATE, "dead_window": window // sizes.batch_size}
    adam = {"optimizer": "adam", "lr": 20 * rate, "auxk_alpha": 1 / 32, "dead_after_tokens": window}
    return [
        Library("SAELens", "saelens", ".", own),
        Library(
            "dictionary_learning",
            "dictionary-learning",
            "trainer_0",
            {"kind": "topk", "lr": 10 * rate, "dead_after_tokens": window},
        ),
        Library("sparsify", "sparsify", ".", adam),
    ]
