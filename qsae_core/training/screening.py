"""Which screen a coder is trained with: chosen before the first step, and watched while it trains.

The choice hangs on the coder, the device and the batches alone, never on a clock: a run that is repeated
chooses alike, and one that is resumed goes on with what its checkpoint says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.codes import SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import Kind, everyone, partners
from qsae_core.kernels.dispatch import installed

ENOUGH = 0.999
"""Share of the exact code that a screen has to find to be chosen, and to stay."""
FEWEST_LATENTS = 1024
FASTER_FROM: dict[Kind, int] = {"int8": 32, "bf16": 128}
"""Latents for each one that is active, from which a screened product is faster than an exact one.

Time of the exact product over that of the screened one, for 2048 vectors of 64 to 2304 dimensions on two
cores with VNNI: int8 1.5 to 5.3 at 1024 latents of which 32 are active, and 0.6 to 1.2 of which 64 are; bf16
1.0 to 3.5 at 4096 latents from 256 dimensions on, and 0.5 below them.
"""
FEWEST_DIMENSIONS: dict[Kind, int] = {"int8": 1, "bf16": 256}
"""Widths from which that holds."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHOICE_TOKENS, WATCH_TOKENS = 1024, 256
"""Tokens of a batch on which recall is measured before the first step, and at each look while it trains.

An exact product of whole batches, which a screen is there to avoid, at twenty steps of a run of 100 took as
long as all of its steps. Where the few find too little, the whole batch decides.
"""


class Decision(NamedTuple):
    """From a step on, this is how the largest latents are found."""

    step: int
    screen: Kind
    recall: float | None
    """Of the screen that was measured last: the one that is chosen, or the one that is not any more."""
    reason: str

    def record(self) -> dict[str, Any]:
        """JSON values for the run's record."""
        return self._asdict()

    def __str__(self) -> str:
        how = "the exact product" if self.screen == "none" else f"the {self.screen} screen"
        return f"encodes through {how} from step {self.step} on: {self.reason}"


class Screening:
    """The screen of one coder in training.

    Args:
        coder: on its device; its attribute ``screen`` is what is decided.
        setting: ``train.screen``.
        steps: of the run.
        name: what messages call the coder.

    Raises:
        ConfigError: for a screen that was asked for where the coder has none.
    """

    def __init__(
        self, coder: MatrixCoder, setting: Kind | Literal["auto"], steps: int, name: str = "coder"
    ) -> None:
        self.coder, self.setting = coder, setting
        self.watch_every = min(100, max(1, steps // 20))
        self.recall: float | None = None
        self.decisions: list[Decision] = []
        self._told = 0
        reason = coder.refusal_to_screen()
        if setting not in ("none", "auto") and reason is not None:
            raise ConfigError(
                f"{name} cannot be trained with screen {setting!r}: {reason}",
                where="train.screen",
                allowed="none, or a coder with a sparsity rule such as topk",
                next="leave --train.screen out: encoding is exact then",
            )
        coder.screen = "none" if setting == "auto" else setting

    def before_step(self, x: Tensor, step: int, *, weights_change: bool = False) -> None:
        """Decide before the first step, and look again now and then: on the batch that is trained on next.

        Args:
            step: counts from 0.
            weights_change: whether weights go through quantizers from this step on.
        """
        if self.setting != "auto":
            return
        if step == 0:
            self._choose(x, step, candidates(self.coder))
        elif self.coder.screen != "none" and (weights_change or step % self.watch_every == 0):
            self._watch(x, step)

    def news(self) -> list[Decision]:
        """What was decided since this was asked last."""
        new, self._told = self.decisions[self._told :], len(self.decisions)
        return new

    def _choose(self, x: Tensor, step: int, kinds: list[Kind], before: str = "") -> None:
        """The first of these that finds enough, else none."""
        said = before
        for kind in kinds:
            self.coder.screen = kind
            self.recall = self._recall(x, CHOICE_TOKENS)
            found = "nothing to find" if self.recall is None else f"{self.recall:.5f} of the exact code"
            said = f"{said}; {kind} finds {found}" if said else f"{kind} finds {found}"
            if self.recall is not None and self.recall >= ENOUGH:
                self._decide(step, kind, f"{said} (at least {ENOUGH})")
                return
        self.coder.screen = "none"
        self._decide(step, "none", f"{said} (at least {ENOUGH} is asked for)" if said else "no faster screen")

    def _watch(self, x: Tensor, step: int) -> None:
        self.recall = self._recall(x, WATCH_TOKENS)
        if self.recall is None or self.recall >= ENOUGH:
            return
        kinds = candidates(self.coder)
        before = f"{self.coder.screen} finds {self.recall:.5f} of the exact code"
        self._choose(x, step, kinds[kinds.index(self.coder.screen) + 1 :], before)

    def _recall(self, x: Tensor, n_tokens: int) -> float | None:
        """On so many tokens from the whole length of a batch; on all of it where these find too little."""
        some = x[:: max(1, x.shape[0] // n_tokens)][:n_tokens]
        found = screen_recall(self.coder, some)
        if len(some) == len(x) or (found is not None and found >= ENOUGH):
            return found
        return screen_recall(self.coder, x)

    def _decide(self, step: int, kind: Kind, reason: str) -> None:
        self.decisions.append(Decision(step, kind, self.recall, reason))

    # --- for checkpoints

    def state(self) -> dict[str, Tensor]:
        """The screen in use, and what it found last."""
        recall = torch.tensor(float("nan") if self.recall is None else self.recall, dtype=torch.float64)
        return {"kind": torch.tensor(KINDS.index(self.coder.screen)), "recall": recall}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take what ``state`` gave; nothing where a run began without: then encoding is exact."""
        if not state or self.setting != "auto":
            return
        self.coder.screen = KINDS[int(state["kind"])]
        recall = float(state["recall"])
        self.recall = None if recall != recall else recall


def candidates(coder: MatrixCoder) -> list[Kind]:
    """Screens that are faster than the exact product for a coder on its device, the fastest first; of several
    processes, those that all of them have.

    On a GPU there is none: a bf16 screen was slower than the exact product there.
    """
    if coder.refusal_to_screen() is not None or coder.device.type != "cpu":
        return []
    rules = coder.screened_rules()
    together, parts = everyone(), partners().world
    here = torch.tensor([installed("screen", "cpu"), _computes_in_bf16()], dtype=torch.int64)
    usable = dict(zip(("int8", "bf16"), (together.sum(here) == together.world).tolist(), strict=True))
    return [
        kind
        for kind, latents_for_each in FASTER_FROM.items()
        if usable[kind]
        and all(rule.n_latents // parts >= FEWEST_LATENTS for rule in rules)
        and all(rule.n_latents // parts >= latents_for_each * (rule.fixed_k or 0) for rule in rules)
        and coder.shape.d_in >= FEWEST_DIMENSIONS[kind]
    ]


def _computes_in_bf16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


@torch.no_grad()
def screen_recall(coder: MatrixCoder, x: Tensor) -> float | None:
    """Share of the exact code's active entries that the screened code of ``x`` has; None without any. Of
    several processes, over the ``x`` of all of them.

    The coder and the global generators are left as they are, in training mode too, where code quantizers
    take note of values and some quantizers draw.
    """
    with _untouched(coder):
        screened, kind = coder.encode(x), coder.screen
    try:
        coder.screen = "none"
        with _untouched(coder):
            exact = coder.encode(x)
    finally:
        coder.screen = kind
    entries = _entries(exact)[exact.active]
    hits = torch.isin(entries, _entries(screened)).sum()
    found, of = everyone().sum(torch.stack([hits, hits.new_tensor(entries.numel())])).tolist()
    return found / of if of else None


def _entries(codes: SparseCodes) -> Tensor:
    """int64 ``[N]``: a number for each pair of token and latent."""
    return codes.rows * codes.n_latents + codes.indices


@contextmanager
def _untouched(coder: MatrixCoder) -> Iterator[None]:
    """Put buffers and generators back at the end; both codes begin from the same state."""
    kept = [(buffer, buffer.clone()) for buffer in coder.buffers()]
    devices = [coder.device] if coder.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for buffer, before in kept:
                buffer.copy_(before)
