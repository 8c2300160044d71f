"""The mathematics of an edit: h' = h + sum_j (f'_j - f_j) w_j.

Shapes: B sequences, T positions, N of them that are edited, D width, F latents, U latents that are edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCoder, SparseCodes
from qsae_core.errors import ConfigError
from qsae_splice.edits import Edit
from qsae_splice.passes import Pass
from qsae_splice.positions import read_positions
from qsae_splice.scales import Scales
from qsae_splice.spec import MODES


class Applied(NamedTuple):
    """What one pass did at one site; all on the CPU. Positions that no edit holds at are left out."""

    site: str
    sequences: Tensor
    """int64 ``[N]``: row of the batch."""
    places: Tensor
    """int64 ``[N]``: absolute positions."""
    before: Tensor
    """float32 ``[N, U]``: activations of ``latents`` as the pass had them."""
    after: Tensor
    """float32 ``[N, U]``: what they were set to."""
    shift: Tensor
    """float32 ``[N]``: effective shift ``||h' - h|| / ||h||``; in mode ``replace`` the error counts too."""


class Intervention:
    """Edits of one coder's latents at one site.

    The change of each vector is made of the coder's decoder rows in the data's own space (``atoms``: scales,
    norms and rotations undone, quantized as decoding uses them), times what the activations change by. So
    the coder's error stays, no edit leaves every bit as it is, and setting a latent to what it is changes
    nothing. Mode ``replace`` puts the edited reconstruction there instead: the error is dropped.

    Args:
        coder: of one layer; an SAE, or a transcoder, which reads other vectors than it changes.
        edits: applied in this order, those of one latent after each other.
        scales: by which their units are known.
        text_of: the text of a token, for positions that are named by it.
        site: for the log.

    Raises:
        ConfigError: if there is no such latent or mode, a unit is not known, or the coder is of several
            layers.
    """

    def __init__(
        self,
        coder: SparseCoder,
        edits: Sequence[Edit],
        mode: str,
        scales: Scales,
        text_of: Callable[[int], str],
        site: str,
    ) -> None:
        _check(coder, edits, mode)
        self.coder, self.edits, self.mode, self.site = coder, tuple(edits), mode, site
        self._text_of, self.log = text_of, list[Applied]()
        self.latents = tuple(dict.fromkeys(edit.latent for edit in edits))
        index_U = torch.tensor(self.latents, dtype=torch.int64, device=coder.device)
        with torch.no_grad():
            self.atoms_UD = coder.atoms()[index_U].clone()
        self._column_F = torch.full((coder.n_latents,), -1, device=coder.device)
        self._column_F[index_U] = torch.arange(len(index_U), device=coder.device)
        norms = dict(zip(self.latents, self.atoms_UD.norm(dim=1).tolist(), strict=True))
        self.values = [self._value(edit, scales, norms[edit.latent]) for edit in edits]
        self._positions = [read_positions(edit.positions) for edit in edits]

    @property
    def idle(self) -> bool:
        """Whether it changes nothing, whatever it is shown."""
        return self.mode == "delta" and not self.edits

    def __call__(self, h_BTD: Tensor, x_BTD: Tensor, now: Pass) -> Tensor:
        """The vectors h', float32 ``[B, T, D]``; ``h_BTD`` itself where no edit holds.

        Args:
            h_BTD: at the coder's target.
            x_BTD: at its source; the same tensor for an SAE.
        """
        now = now.to(h_BTD.device)
        holds = [now.at(positions, self._text_of) for positions in self._positions]
        rows_BT = now.open if self.mode == "replace" else torch.zeros_like(now.open)
        for where_BT in holds:
            rows_BT = rows_BT | where_BT
        if not bool(rows_BT.any()):
            return h_BTD
        codes = self.coder.encode(x_BTD[rows_BT].to(self.coder.device))
        before_NU = self.activations(codes)
        after_NU = self._edited(before_NU, [where_BT[rows_BT] for where_BT in holds])
        change_ND = (after_NU - before_NU) @ self.atoms_UD
        h_ND = h_BTD[rows_BT]
        base_ND = self.coder.decode(codes).to(h_ND) if self.mode == "replace" else h_ND
        new_ND = base_ND + change_ND.to(h_ND)
        self._note(rows_BT, now, (before_NU, after_NU), h_ND, new_ND)
        out_BTD = h_BTD.clone()
        out_BTD[rows_BT] = new_ND
        return out_BTD

    def activations(self, codes: SparseCodes) -> Tensor:
        """float32 ``[N, U]``: of the edited latents, 0 where they have no entry."""
        column_E = self._column_F[codes.indices.long()]
        mine_E = column_E >= 0
        found_NU = codes.values.new_zeros(codes.batch_size, len(self.latents))
        return found_NU.index_put((codes.rows[mine_E], column_E[mine_E]), codes.values[mine_E])

    def _edited(self, before_NU: Tensor, holds: Sequence[Tensor]) -> Tensor:
        columns = list(before_NU.unbind(1))
        for edit, value, where_N in zip(self.edits, self.values, holds, strict=True):
            u = self.latents.index(edit.latent)
            f_N, where_N = columns[u], where_N.to(before_NU.device)
            if edit.active:
                where_N = where_N & (f_N != 0)
            columns[u] = torch.where(where_N, operate(edit.op, f_N, value), f_N)
        return torch.stack(columns, dim=1) if columns else before_NU

    def _note(
        self, rows_BT: Tensor, now: Pass, f_NU: tuple[Tensor, Tensor], h_ND: Tensor, new_ND: Tensor
    ) -> None:
        with torch.no_grad():
            shift_N = (new_ND - h_ND).norm(dim=1) / h_ND.norm(dim=1)
            found = (rows_BT.nonzero()[:, 0], now.places[rows_BT], *f_NU, shift_N)
            self.log.append(Applied(self.site, *(tensor.detach().cpu() for tensor in found)))

    def _value(self, edit: Edit, scales: Scales, atom_norm: float) -> float:
        return 0.0 if edit.value is None else scales.activation(edit, atom_norm)


def operate(op: str, f: Tensor, value: float) -> Tensor:
    """What the activations become: ``edits.OPERATIONS``."""
    if op == "add":
        return f + value
    if op == "scale":
        return f * value
    if op == "cap":
        return f.clamp_max(value)
    if op == "floor":
        return f.clamp_min(value)
    return torch.full_like(f, value)  # set, and ablate


def _check(coder: SparseCoder, edits: Sequence[Edit], mode: str) -> None:
    if mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r}", where="mode", allowed=", ".join(MODES))
    if coder.reads_layers or coder.shape.layers_in > 1 or coder.shape.layers_out > 1:
        raise ConfigError(
            f"{type(coder).__name__} reads or writes several layers at once, and an edit is of one site",
            allowed="a coder of one layer; of a set of coders each one alone (coders.by_layer())",
        )
    for edit in edits:
        if edit.latent >= coder.n_latents:
            raise ConfigError(
                f"there is no latent {edit.latent}: the coder has {coder.n_latents:,}",
                where=str(edit),
                allowed=f"0 to {coder.n_latents - 1}",
            )
