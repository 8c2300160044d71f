"""Wrong quantizers, each made from the kit's right one."""

from __future__ import annotations

import random
from typing import Any, Literal

import torch
from torch import Tensor

from qsae_core import ComponentSpec, option
from qsae_core.conformance.reference_parts import PlainConfig, SignQuantizer
from qsae_core.contracts.quantizer import Packed, PackedTensor, check_layout


class NotIdempotent(SignQuantizer):
    """Halves the scale: quantizing twice halves it twice."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        return super().fake_quantize(weight_FD) * 0.5


class ChangesDtype(SignQuantizer):
    """Always float32."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        return super().fake_quantize(weight_FD).float()


class NaNOnZeros(SignQuantizer):
    """Divides by the scale."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        quantized = super().fake_quantize(weight_FD)
        largest = weight_FD.detach().abs().amax(1, keepdim=True)
        return quantized + (largest / largest - 1)


class ChangesInput(SignQuantizer):
    """Rounds the master itself."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        quantized = super().fake_quantize(weight_FD)
        weight_FD.data.copy_(quantized.detach())
        return quantized


class RandomInTraining(SignQuantizer):
    """Draws from a generator that no seed reaches."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        noise = random.SystemRandom().random() if self.training else 1.0
        return super().fake_quantize(weight_FD) * noise


class ForgetsScale(SignQuantizer):
    """Keeps its learned scale in an attribute that is not in the state."""

    scale = 1.0

    def initialize(self, weight_FD: Tensor) -> None:
        self.scale = float(weight_FD.abs().max())

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        signs = torch.where(weight_FD.detach() >= 0, self.scale, -self.scale).to(weight_FD.dtype)
        return signs + (weight_FD - weight_FD.detach())


class CountsInEvaluation(SignQuantizer):
    """Counts its calls in a buffer, in evaluation mode too."""

    def __init__(self, config: Any, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.register_buffer("calls", torch.zeros(()))

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        self.calls += 1
        return super().fake_quantize(weight_FD)


class NaNGradient(SignQuantizer):
    """A straight-through gradient that divides zero by zero."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        quantized = super().fake_quantize(weight_FD)
        if quantized.requires_grad:
            quantized.register_hook(lambda gradient: gradient * float("nan"))
        return quantized


class ZeroGradient(SignQuantizer):
    """Rounds without a straight-through estimator."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        return super().fake_quantize(weight_FD.detach()) + 0 * weight_FD


class ScalesByTheSign(SignQuantizer):
    """A gradient that is larger one way than the other, and does not say so."""

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        quantized = super().fake_quantize(weight_FD)
        if quantized.requires_grad:
            quantized.register_hook(lambda gradient: gradient + 0.5 * gradient.abs())
        return quantized


class OffItsGrid(SignQuantizer):
    """Declares a grid that its values are not on."""

    def grid(self) -> Tensor:
        return torch.tensor([-1.0, 0.0, 2.0])


class InexactPack(SignQuantizer):
    """Rounds the scales to float16 when it packs, and only then."""

    def pack(self, weight_FD: Tensor) -> Packed:
        packed = super().pack(weight_FD)
        return Packed(packed.tensors | {"scales": packed.tensors["scales"].bfloat16()}, packed.shape)

    def packed_tensors(self) -> dict[str, PackedTensor]:
        scales = PackedTensor(torch.bfloat16, (self.shape[0], 1))
        return {**super().packed_tensors(), "scales": scales}


class UnpacksFromMemory(SignQuantizer):
    """Unpacks what it remembers, not what is stored."""

    memory: Tensor

    def pack(self, weight_FD: Tensor) -> Packed:
        self.memory = self.fake_quantize(weight_FD).float()
        return super().pack(weight_FD)

    def unpack(self, packed: Packed) -> Tensor:
        return self.memory


class StoresTooMuch(SignQuantizer):
    """Keeps the floats beside the codes."""

    def pack(self, weight_FD: Tensor) -> Packed:
        packed = super().pack(weight_FD)
        return Packed(packed.tensors | {"master": weight_FD.detach().double()}, packed.shape)

    def packed_tensors(self) -> dict[str, PackedTensor]:
        return {**super().packed_tensors(), "master": PackedTensor(torch.float64, self.shape)}


class HidesBytes(SignQuantizer):
    """Keeps codes in the layout, where no one counts them."""

    def pack(self, weight_FD: Tensor) -> Packed:
        packed = super().pack(weight_FD)
        return Packed(packed.tensors, packed.shape, {"rows": list(range(weight_FD.shape[0]))})

    def check(self, packed: Packed) -> None:
        check_layout(packed, ("rows",))
        if packed.layout["rows"] != list(range(self.shape[0])):
            raise ValueError("the rows are others")


class DeclaresOtherScales(SignQuantizer):
    """Says that its scales are of another shape than they are."""

    def packed_tensors(self) -> dict[str, PackedTensor]:
        scales = PackedTensor(torch.float32, (self.shape[0],))
        return {**super().packed_tensors(), "scales": scales}


class TakesAnyLayout(SignQuantizer):
    """Checks nothing."""

    def check(self, packed: Packed) -> None:
        pass


class UnpacksOtherRows(SignQuantizer):
    """Gives the rows in another order than they are asked for."""

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        return self.unpack(packed).index_select(0, rows_R.sort().values)


class StoresRowsBackwards(SignQuantizer):
    """Lays rows out from the last to the first."""

    def pack(self, weight_FD: Tensor) -> Packed:
        packed = super().pack(weight_FD)
        return Packed({name: tensor.flip(0) for name, tensor in packed.tensors.items()}, packed.shape)

    def unpack(self, packed: Packed) -> Tensor:
        return super().unpack(packed).flip(0)


class PacksByTheWhole(SignQuantizer):
    """Says that it packs row by row, and has one scale for all rows."""

    packs_by_row = True

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        master = weight_FD.detach()
        signs = torch.where(master >= 0, 1, -1).to(master.dtype)
        quantized = signs * master.abs().max() if master.numel() else master
        return quantized + (weight_FD - master)


class BetterAtOnce(SignQuantizer):
    """Says that its scales are refined by a second level, which makes them worse."""

    levels = 2

    def pack(self, weight_FD: Tensor) -> Packed:
        packed = super().pack(weight_FD)
        return Packed(packed.tensors | {"factors": torch.tensor([0.25, 4.0])}, packed.shape)

    def unpack(self, packed: Packed) -> Tensor:
        return super().unpack(packed) * packed.tensors["factors"].prod()

    def packed_tensors(self) -> dict[str, PackedTensor]:
        return {**super().packed_tensors(), "factors": PackedTensor(torch.float32, (2,))}

    def row_dims(self, packed: Packed) -> dict[str, int]:
        return {"codes": 0, "scales": 0}

    def level_dims(self, packed: Packed) -> dict[str, int]:
        return {"factors": 0}

    def at_level(self, packed: Packed, level: int) -> Packed:
        return packed


class RefusesOneColumn(SignQuantizer):
    """Cannot be built for a matrix with one column."""

    def __init__(self, config: Any, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        if shape[1] == 1:
            raise ValueError("one column")


class ScaleConfig(PlainConfig):
    """Two scales."""

    scale: Literal["largest", "halved"] = option("largest", "the row's largest entry, or half of it")


class HalvesWhereAsked(SignQuantizer):
    """Not idempotent with one of its options."""

    config: ScaleConfig

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        return super().fake_quantize(weight_FD) * (0.5 if self.config.scale == "halved" else 1.0)


def quantizer(cls: type[SignQuantizer]) -> ComponentSpec:
    return ComponentSpec("quantizer", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


HALF_WRONG = ComponentSpec("quantizer", "halves", ScaleConfig, f"{__name__}:HalvesWhereAsked")
RIGHT: list[ComponentSpec] = []
WRONG = [
    (quantizer(NotIdempotent), "idempotent"),
    (quantizer(ChangesDtype), "shape-and-dtype"),
    (quantizer(NaNOnZeros), "finite"),
    (quantizer(ChangesInput), "leaves-input"),
    (quantizer(RandomInTraining), "deterministic"),
    (quantizer(ForgetsScale), "state"),
    (quantizer(CountsInEvaluation), "eval-keeps-state"),
    (quantizer(NaNGradient), "gradient"),
    (quantizer(ZeroGradient), "gradient"),
    (quantizer(ScalesByTheSign), "linear-gradient"),
    (quantizer(OffItsGrid), "grid"),
    (quantizer(InexactPack), "pack"),
    (quantizer(UnpacksFromMemory), "pack"),
    (quantizer(DeclaresOtherScales), "declares"),
    (quantizer(TakesAnyLayout), "declares"),
    (quantizer(UnpacksOtherRows), "rows"),
    (quantizer(StoresRowsBackwards), "first-rows"),
    (quantizer(PacksByTheWhole), "some-rows"),
    (quantizer(BetterAtOnce), "precision"),
    (quantizer(StoresTooMuch), "packed-size"),
    (quantizer(HidesBytes), "packed-size"),
    (quantizer(RefusesOneColumn), "constructs"),
]
