"""The quantizer ``mixed``. Shapes: F rows, D columns, R some rows, W bytes of a bit plane of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Calibration, Lookup, Packed, PackedTensor, Quantizer, straight_through
from qsae_core.kernels import pack_planes, unpack_planes
from qsae_core.reading import beside, let_go
from qsae_quantizers_post_training import MixedConfig
from qsae_quantizers_post_training.gptq import calibrated
from qsae_quantizers_post_training.uniform import AT_ONCE, Uniform, finite

MOST_BITS = 8
LEAST_ENERGY = 1e-3
"""Share of the mean energy that is added to each latent's, those that never fire among them."""
ROWS = {"codes": 0, "widths": 0, "scales": 0}


class Mixed(Quantizer):
    """Each row on a uniform grid of its own width: of the widths with the given mean, those of least error.

    A latent's errors weigh its energy ``sum f_j^2``. Where errors are small against a row, a bit more divides
    them by four; so at the best widths all latents that have bits are left with about the same error, and
    those of little energy have none (reverse water-filling: Cover & Thomas, Elements of Information Theory,
    section 10.3).
    """

    config: MixedConfig
    widths: Tensor

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__(config, shape)
        self.register_buffer("widths", torch.zeros(shape[0], dtype=torch.uint8))

    @torch.no_grad()
    def initialize(self, weight_FD: Tensor) -> None:
        """Widths for latents of the same energy."""
        weight = weight_FD.detach().float()
        self.widths.copy_(widths(weight, torch.ones_like(weight[:, 0]), self.config.n_bits))

    @torch.no_grad()
    def calibrate(self, weight_FD: Tensor, calibration: Calibration) -> Tensor:
        """float32 ``[F, D]`` on the grid of the best widths for these codes, rounded as by ``gptq``."""
        weight, codes = weight_FD.detach().float(), calibration.codes.detach()
        energy_F = torch.zeros_like(weight[:, 0])
        energy_F.index_add_(0, codes.indices.long(), codes.values.float().square())
        energy_F += LEAST_ENERGY * energy_F.mean()
        self.widths.copy_(widths(weight, energy_F, self.config.n_bits))
        # wide rows come last: they can hold what makes up for the errors of narrow ones
        return calibrated(weight, self.fake_quantize, self._round, codes, self.config, turn_F=self.widths)

    def _round(self, weight_RD: Tensor, rows_R: Tensor) -> Tensor:
        """Rows of these numbers at the scales of least error."""
        rounded_RD = torch.zeros_like(weight_RD)
        for grid, chosen in _by_width(self.widths[rows_R]):
            scale_R = grid.best(weight_RD[chosen])
            rounded_RD[chosen] = grid.round(weight_RD[chosen], scale_R) * scale_R[:, None]
        return rounded_RD

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` on the grid; the gradient is the identity."""
        with torch.no_grad():
            quantized = beside(weight_FD.detach())
            for rows, widths_R, out in self._blocks(weight_FD.detach(), quantized):
                points_RD, scale_R = _points(rows.float(), widths_R)
                out.copy_(points_RD.mul_(scale_R[:, None]))
        return straight_through(weight_FD, quantized)

    def _blocks(self, *matrices_FD: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Some rows of each, the widths of these behind those of the first one: matrices may be large."""
        first, *others = (matrix.split(AT_ONCE) for matrix in matrices_FD)
        for some in zip(first, self.widths.split(AT_ONCE), *others, strict=True):
            yield some
            for rows in some:
                let_go(rows)

    def grid(self) -> Tensor:
        """float ``[256]``: the points of the widest grid; those of narrower ones are among them."""
        return _grid(MOST_BITS).points()

    @torch.no_grad()
    def pack(self, weight_FD: Tensor) -> Packed:
        """``widths`` (uint8 ``[F]``), ``scales`` (bfloat16 ``[F]``) and ``codes``: uint8, row after row, of
        each row its bit planes, the most significant first.

        Raises:
            ArtifactError: if a weight is NaN or infinite.
        """
        packed = [_packed_rows(rows, widths_R) for rows, widths_R in self._blocks(finite(weight_FD))]
        codes, scales = (torch.cat(parts) for parts in zip(*packed, strict=True))
        tensors = {"codes": codes, "widths": self.widths.clone(), "scales": scales}
        return Packed(tensors, (weight_FD.shape[0], weight_FD.shape[1]))

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        return self.lookup(packed).matrix()

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows; of the others no code is read."""
        return _lookup(packed, rows_R).matrix()

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the points of the widest grid."""
        scales = packed.tensors["scales"]
        return _lookup(packed, torch.arange(packed.shape[0], device=scales.device))

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The bytes of the rows one after another, and a width and a scale for each row."""
        widths, scales = (PackedTensor(kind, self.shape[:1]) for kind in (torch.uint8, torch.bfloat16))
        return {"codes": PackedTensor(torch.uint8, (None,)), "widths": widths, "scales": scales}

    def check(self, packed: Packed) -> None:
        """As many bytes as the widths say, none above 8 bits."""
        super().check(packed)
        widths_F, codes = packed.tensors["widths"], packed.tensors["codes"]
        if widths_F.numel() and int(widths_F.max()) > MOST_BITS:
            raise ValueError(f"a row has {int(widths_F.max())} bits, and at most {MOST_BITS} are stored")
        n_bytes = self.row_end(packed, "codes", packed.shape[0])
        if codes.numel() != n_bytes:
            raise ValueError(
                f"the widths of the rows take {n_bytes} bytes of codes, and there are {codes.numel()}"
            )

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """The first dimension of widths, scales and codes, which are the rows' bytes one after another."""
        return ROWS

    def row_end(self, packed: Packed, name: str, n_rows: int) -> int:
        """Of the codes, after the bytes of these rows."""
        planes = int(packed.tensors["widths"][:n_rows].sum())
        return planes * -(-packed.shape[1] // 8) if name == "codes" else n_rows


@torch.no_grad()
def widths(weight_FD: Tensor, energy_F: Tensor, mean_bits: float) -> Tensor:
    """uint8 ``[F]``: the bits of each row, ``round(F * mean_bits)`` in all.

    Bit after bit goes to the row whose error ``energy_j |w_j - q_j|^2`` it lowers the most.
    """
    errors = weight_FD.new_empty(weight_FD.shape[0], MOST_BITS + 1)
    for rows, out in zip(weight_FD.split(AT_ONCE), errors.split(AT_ONCE), strict=True):
        out.copy_(_errors(rows))
        let_go(rows)
    gains = -errors.diff(dim=1) * energy_F[:, None]
    # a row's next bit never before the one below it
    order = gains.cummin(1).values.flatten().sort(descending=True, stable=True).indices
    rows = order[: round(mean_bits * weight_FD.shape[0])] // MOST_BITS
    return torch.bincount(rows, minlength=weight_FD.shape[0]).to(torch.uint8)


def _errors(weight_RD: Tensor) -> Tensor:
    """``[R, 9]``: squared errors of rows at each number of bits from 0 on."""
    errors = [weight_RD.square().sum(1)]
    for n_bits in range(1, MOST_BITS + 1):
        scale_R = _grid(n_bits).best(weight_RD)
        left = weight_RD - _grid(n_bits).round(weight_RD, scale_R) * scale_R[:, None]
        errors.append(left.square().sum(1))
    return torch.stack(errors, 1)


def _points(weight_RD: Tensor, widths_R: Tensor) -> tuple[Tensor, Tensor]:
    """Points ``[R, D]`` and scales ``[R]``, both 0 where a row has no bits."""
    points_RD, scale_R = torch.zeros_like(weight_RD), torch.zeros_like(weight_RD[:, 0])
    for grid, rows in _by_width(widths_R):
        scale_R[rows] = grid.scales(weight_RD[rows])
        points_RD[rows] = grid.round(weight_RD[rows], scale_R[rows])
    return points_RD, scale_R


def _packed_rows(weight_RD: Tensor, widths_R: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes of the codes, row after row, and bfloat16 ``[R]``: the scales."""
    points_RD, scale_R = _points(weight_RD, widths_R)
    planes = -(-weight_RD.shape[1] // 8)
    codes = torch.empty(int(widths_R.sum()) * planes, dtype=torch.uint8, device=weight_RD.device)
    begins_R = _begins(widths_R, planes)
    for grid, rows in _by_width(widths_R):
        steps = (points_RD[rows] + grid.top).to(torch.uint8)
        of_row = pack_planes(steps, grid.n_bits).transpose(0, 1).flatten(1)
        codes[begins_R[rows, None] + torch.arange(of_row.shape[1], device=codes.device)] = of_row
    return codes, scale_R.bfloat16()


def _grid(n_bits: int) -> Uniform:
    return Uniform(n_bits, halves=True)


def _by_width(widths_R: Tensor) -> Iterator[tuple[Uniform, Tensor]]:
    """Each width that there is, without 0: its grid and its rows."""
    for n_bits in widths_R.unique().tolist():
        if n_bits:
            yield _grid(n_bits), (widths_R == n_bits).nonzero().squeeze(1)


def _begins(widths_F: Tensor, planes: int) -> Tensor:
    """int64 ``[F]``: where the codes of each row begin."""
    taken_F = widths_F.long() * planes
    return taken_F.cumsum(0) - taken_F


def _lookup(packed: Packed, rows_R: Tensor) -> Lookup:
    codes, widths_F = packed.tensors["codes"], packed.tensors["widths"]
    planes = -(-packed.shape[1] // 8)
    begins_R, widths_R = _begins(widths_F, planes)[rows_R], widths_F[rows_R]
    # rows without bits have the scale 0: any point will do
    middle = 2 ** (MOST_BITS - 1)
    found = codes.new_full((rows_R.numel(), packed.shape[1]), middle)
    blocks = ((grid, some) for grid, rows in _by_width(widths_R) for some in rows.split(AT_ONCE))
    for grid, some in blocks:  # a place takes eight times the byte that is there
        places = begins_R[some, None] + torch.arange(grid.n_bits * planes, device=codes.device)
        of_row = codes[places].view(some.numel(), grid.n_bits, planes).transpose(0, 1)
        steps = unpack_planes(of_row.contiguous(), packed.shape[1])
        found[some] = steps + (middle - 2 ** (grid.n_bits - 1))
    points = _grid(MOST_BITS).points().to(codes.device)
    return Lookup(found, points, packed.tensors["scales"][rows_R].float())
