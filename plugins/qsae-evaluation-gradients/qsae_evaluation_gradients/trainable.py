"""A copy of a coder that trains; the coder itself is left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from qsae_core.coders import MatrixCoder, QuantizedMatrix
from qsae_core.contracts import Batch, SparseCoder

KEEP = "`qsae train --save-float` (`run: {save_float: true}`) keeps both in masters.safetensors"


def why_not(coder: SparseCoder) -> str | None:
    """Why there can be no ``Trainable`` of a coder, in one sentence; None where there can.

    Raises:
        ArtifactError: if the file of masters is truncated, altered or another coder's.
    """
    if coder.by_layer():
        return "each layer has a coder of its own, with a loss of its own: it is asked of each"
    if not isinstance(coder, MatrixCoder):
        return "it has no float masters for a gradient to reach"
    restored = {name: matrix for name, matrix in coder.matrices().items() if matrix.is_restored}
    if not restored:
        return None
    read = _reader(coder)
    if read is None:
        names = ", ".join(restored)
        return f"the float masters of {names}, and the state of the loss, were not kept; {KEEP}"
    cut = any(read(f"{name}.weight").shape[0] != matrix.shape[0] for name, matrix in restored.items())
    if cut or any(matrix.levels < matrix.quantizer.levels for matrix in restored.values()):
        return (
            "it is read at a lower level, and the masters are those of the whole coder: leave out the level"
        )
    return None


class Trainable:
    """A coder in training mode whose weights may be changed, and whose loss is the same at each call.

    Quantizers round as in evaluation (to the nearest point); chance in the loss, and counters that it
    changes, begin anew at each call.

    Args:
        coder: one of which ``why_not`` says nothing.
        seed: of chance in the loss.
    """

    def __init__(self, coder: MatrixCoder, seed: int) -> None:
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            self.coder = type(coder)(coder.config, coder.shape, coder.parts)
        self.coder.load_state_dict(_state(coder, self.coder.state_dict().keys()))
        self.coder.to(coder.device).train()
        for matrix in self.coder.matrices().values():
            matrix.quantizer.eval()
        self._buffers = {name: buffer.clone() for name, buffer in self.coder.named_buffers()}
        self.parameters = {n: p for n, p in self.coder.named_parameters() if p.requires_grad}

    def loss(self, batch: Batch) -> float:
        """The sum of the loss's terms."""
        with torch.no_grad():
            return float(self._total(batch))

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Parameter name -> gradient of the sum of the loss's terms; zero where the loss does not reach."""
        with torch.enable_grad():
            self._total(batch).backward()
        found = {}
        for name, parameter in self.parameters.items():
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = None
        return {name: gradient.detach() for name, gradient in found.items()}

    def _total(self, batch: Batch) -> Tensor:
        device = self.coder.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            with torch.no_grad():
                for name, buffer in self.coder.named_buffers():
                    buffer.copy_(self._buffers[name])
            terms = self.coder.loss(batch.to(device)).terms
        return torch.stack(list(terms.values())).sum()

    def quantized(self) -> dict[str, QuantizedMatrix]:
        """Module name -> the matrices whose quantizer changes something."""
        return {n: m for n, m in self.coder.matrices().items() if not m.quantizer.is_identity}


def _reader(coder: MatrixCoder) -> Callable[[str], Tensor] | None:
    return None if coder.masters is None else coder.masters.read


def _state(coder: MatrixCoder, names: Iterable[str]) -> dict[str, Tensor]:
    """The trained state of a coder: its own, or of a loaded one its file of masters."""
    read = _reader(coder)
    if read is None or not any(matrix.is_restored for matrix in coder.matrices().values()):
        return coder.state_dict()
    return {name: read(name) for name in names}
