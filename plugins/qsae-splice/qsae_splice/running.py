"""One pass of a language model under an intervention, from site to site.

Shapes: B sequences, T positions, N of them that are edited, L layers that a coder reads or writes, D width, U
latents that are edited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes
from qsae_splice.intervention import Along, Applied, Intervention
from qsae_splice.passes import Pass

_LOOKING: ContextVar[bool] = ContextVar("looking", default=False)


@contextmanager
def looking() -> Iterator[None]:
    """A block whose passes are for reading vectors: what edits do in them is not put on record."""
    before = _LOOKING.set(True)
    try:
        yield
    finally:
        _LOOKING.reset(before)


class Running:
    """What is known of one pass so far.

    Args:
        intervention: what is done.
        now: which pass it is.
        untouched: source -> ``[B, T, D]`` of the pass before, where the intervention asks for one.
    """

    def __init__(
        self, intervention: Intervention, now: Pass, untouched: Mapping[int, Tensor] | None = None
    ) -> None:
        self._of, self._now, self._untouched = intervention, now, untouched
        self._holds_BT: list[Tensor] | None = None
        self._codes: SparseCodes | None = None
        self._change_NU: Tensor | None = None

    def __call__(self, site: int, h_BTD: Tensor, x: Mapping[int, Tensor]) -> Tensor:
        """The vectors h', float32 ``[B, T, D]``; ``h_BTD`` itself where no edit holds.

        Args:
            site: number of the site that the pass has come to.
            h_BTD: the vectors there.
            x: source -> ``[B, T, D]``, of those of ``Intervention.reads``.
        """
        rows_BT, holds = self._where(h_BTD.device)
        if not bool(rows_BT.any()):
            return h_BTD
        h_ND = h_BTD[rows_BT]
        columns, before_NC, after_NC = self._activations(site, x, rows_BT, holds)
        new_ND = self._base(site, h_ND, x, rows_BT)
        written = self._of.atoms_ULD[:, site]
        if len(written) and self._change_NU is not None:
            new_ND = new_ND + (self._change_NU @ written).to(new_ND)
        for along in self._of.along[site]:
            new_ND = _moved(new_ND, along, holds[along.number])
        self._note(site, rows_BT, (columns, before_NC, after_NC), h_ND, new_ND)
        out_BTD = h_BTD.clone()
        out_BTD[rows_BT] = new_ND
        return out_BTD

    def _where(self, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """bool ``[B, T]``: where anything is done; and of each edit ``[N]``, where of these it holds."""
        now = self._now.to(device)
        if self._holds_BT is None:
            self._holds_BT = [now.at(positions, self._of.text_of) for positions in self._of.positions]
        holds_BT = [where.to(device) for where in self._holds_BT]
        rows_BT = now.open if self._of.mode == "replace" else torch.zeros_like(now.open)
        for where_BT in holds_BT:
            rows_BT = rows_BT | where_BT
        return rows_BT, [where_BT[rows_BT] for where_BT in holds_BT]

    def _activations(
        self, site: int, x: Mapping[int, Tensor], rows_BT: Tensor, holds: list[Tensor]
    ) -> tuple[list[int], Tensor, Tensor]:
        """The latents that become known here, and their activations before and after, ``[N, columns]``."""
        of = self._of
        new = list(range(len(of.latents))) if of.untouched else of.known_at(site)
        if of.untouched and self._change_NU is not None:
            new = []
        if not new:
            none = torch.zeros(int(rows_BT.sum()), 0)
            return [], none, none
        before_NU = of.activations(self._encoded(x, rows_BT))
        after_NU = of.edited(before_NU, holds)
        if self._change_NU is None:
            self._change_NU = torch.zeros_like(before_NU)
        self._change_NU[:, new] = (after_NU - before_NU)[:, new]
        return new, before_NU[:, new], after_NU[:, new]

    def _encoded(self, x: Mapping[int, Tensor], rows_BT: Tensor) -> SparseCodes:
        """The codes: of a coder of several layers, where it is not known yet what later ones give, those
        alone of latents that these layers say nothing to."""
        if self._codes is None or not (self._untouched or len(self._of.sites) == 1):
            self._codes = self._of.coder.encode(self._read(x, rows_BT, fill=True))
        return self._codes

    def _read(self, x: Mapping[int, Tensor], rows_BT: Tensor, *, fill: bool) -> Tensor:
        """``[N, D]``, or ``[N, L, D]`` of a coder that reads layers: with zeros for those that are not there
        yet, or these alone."""
        coder, found = self._of.coder, self._untouched or x
        rows = {n: vectors[rows_BT.to(vectors.device)].to(coder.device) for n, vectors in found.items()}
        if not coder.reads_layers:
            return rows[0]
        empty = torch.zeros_like(next(iter(rows.values())))
        layers = range(coder.shape.layers_in) if fill else sorted(rows)
        return torch.stack([rows.get(n, empty) for n in layers], dim=1)

    def _base(self, site: int, h_ND: Tensor, x: Mapping[int, Tensor], rows_BT: Tensor) -> Tensor:
        """What the change is added to: the vectors, or their reconstructions."""
        coder = self._of.coder
        if self._of.mode == "delta":
            return h_ND
        if len(self._of.sites) > 1 and not self._untouched:
            return coder.reconstruct_layer(self._read(x, rows_BT, fill=False), site).to(h_ND)
        y_hat = coder.decode(self._encoded(x, rows_BT))
        return (y_hat[:, site] if y_hat.dim() == 3 else y_hat).to(h_ND)

    def _note(
        self,
        site: int,
        rows_BT: Tensor,
        found: tuple[list[int], Tensor, Tensor],
        h_ND: Tensor,
        new_ND: Tensor,
    ) -> None:
        if _LOOKING.get():
            return
        new, before_NC, after_NC = found
        with torch.no_grad():
            units = {along.name: along.unit.to(h_ND) for along in self._of.along[site]}
            directions_DC = (
                torch.stack(list(units.values()), dim=1) if units else h_ND.new_zeros(h_ND.shape[1], 0)
            )
            before = torch.cat([before_NC.to(h_ND), h_ND @ directions_DC], dim=1)
            after = torch.cat([after_NC.to(h_ND), new_ND @ directions_DC], dim=1)
            shift_N = (new_ND - h_ND).norm(dim=1) / h_ND.norm(dim=1)
            tensors = (
                rows_BT.nonzero()[:, 0],
                self._now.places.to(h_ND.device)[rows_BT],
                before,
                after,
                shift_N,
            )
            columns: tuple[int | str, ...] = (*(self._of.latents[u] for u in new), *units)
            self._of.log.append(
                Applied(self._of.sites[site], columns, *(tensor.detach().cpu() for tensor in tensors))
            )


def _moved(h_ND: Tensor, along: Along, where_N: Tensor) -> Tensor:
    """``edits.DIRECTION_OPERATIONS``."""
    unit_D = along.unit.to(h_ND)
    adds = along.op == "add"
    new_ND = h_ND + along.amount * unit_D if adds else h_ND - (h_ND @ unit_D)[:, None] * unit_D
    return torch.where(where_N[:, None], new_ND, h_ND)
