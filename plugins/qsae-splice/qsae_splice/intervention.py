"""What edits of one coder's latents, and along directions, come to: h' = h + sum_j (f'_j - f_j) w_j.

Shapes: L sites that are written to, U latents that are edited, N vectors, D width, F latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCoder, SparseCodes
from qsae_core.errors import ConfigError
from qsae_splice.directions import check_direction
from qsae_splice.edits import DirectionEdit, Edit
from qsae_splice.positions import Positions, read_positions
from qsae_splice.scales import Scales
from qsae_splice.spec import MODES


class Along(NamedTuple):
    """A direction's edit at one site."""

    name: str
    op: str
    unit: Tensor
    """float32 ``[D]``: the direction, of norm 1."""
    amount: float
    """How far ``add`` moves a vector along it."""
    number: int
    """Among all edits: of its positions."""


class Intervention:
    """Edits of one coder's latents, and along directions, at the sites that the coder writes to.

    The change of each vector is made of the coder's decoder rows in the data's own space (``atoms``: scales,
    norms and rotations undone, quantized as decoding uses them), times what the activations change by. So
    the coder's error stays, no edit leaves every bit as it is, and setting a latent to what it is changes
    nothing. Mode ``replace`` puts the edited reconstruction there instead: the error is dropped. Edits along
    directions come behind those of latents, in their order.

    A latent of a coder that reads and writes several layers is known from the first layer on that it writes
    to: what it is there hangs on the layers alone that this one's reconstruction hangs on. It changes by the
    same at every later one.

    Args:
        coder: an SAE, or a transcoder, which reads other vectors than it changes; of one layer or of several.
        edits: applied in this order, those of one latent after each other.
        scales: by which their units are known.
        text_of: the text of a token, for positions that are named by it.
        sites: what the sites are called that it writes to, for the log.
        directions: name -> ``[D]``.
        untouched: whether codes are those of a pass before, which this intervention left as it was.

    Raises:
        ConfigError: if there is no such latent, direction, site or mode, or a unit is not known.
        DataError: if a direction is of another width, not finite, or zero.
    """

    def __init__(
        self,
        coder: SparseCoder,
        edits: Sequence[Edit | DirectionEdit],
        mode: str,
        scales: Scales,
        text_of: Callable[[int], str],
        sites: Sequence[str],
        *,
        directions: Mapping[str, Tensor] | None = None,
        untouched: bool = False,
    ) -> None:
        self.coder, self.mode, self.sites, self.untouched = coder, mode, tuple(sites), untouched
        self.text_of, self.log = text_of, list[Applied]()
        self.positions: list[Positions] = [read_positions(edit.positions) for edit in edits]
        of_latents = [(n, edit) for n, edit in enumerate(edits) if isinstance(edit, Edit)]
        _check(coder, [edit for _, edit in of_latents], mode)
        self.latents = tuple(dict.fromkeys(edit.latent for _, edit in of_latents))
        index_U = torch.tensor(self.latents, dtype=torch.int64, device=coder.device)
        with torch.no_grad():
            atoms = coder.atoms_of(index_U).clone()
        self.atoms_ULD = atoms if atoms.dim() == 3 else atoms[:, None]
        self._column_F = torch.full((coder.n_latents,), -1, device=coder.device)
        self._column_F[index_U] = torch.arange(len(index_U), device=coder.device)
        norms_UL = self.atoms_ULD.norm(dim=2)
        self._begins = [_first_written(norms_L, len(self.sites)) for norms_L in norms_UL]
        norms = dict(zip(self.latents, norms_UL.tolist(), strict=True))
        self.steps = [
            (n, self.latents.index(edit.latent), edit, scales.activation(edit, norms[edit.latent]))
            for n, edit in of_latents
        ]
        self.along: list[list[Along]] = [[] for _ in self.sites]
        for n, edit in enumerate(edits):
            if isinstance(edit, DirectionEdit):
                layer = self._site_of(edit)
                self.along[layer].append(self._along(n, edit, layer, directions or {}, scales))

    @property
    def idle(self) -> bool:
        """Whether it changes nothing, whatever it is shown."""
        return self.mode == "delta" and not self.positions

    def acts_at(self) -> list[int]:
        """Numbers of the sites that it may change."""
        written = self.atoms_ULD.any(dim=2).any(dim=0).tolist() if self.latents else [False] * len(self.sites)
        single = len(self.sites) == 1 and not self.idle
        return [
            n
            for n in range(len(self.sites))
            if single or self.mode == "replace" or written[n] or self.along[n]
        ]

    def known_at(self, site: int) -> list[int]:
        """Columns of the latents whose activations are computed at a site."""
        return [u for u, begin in enumerate(self._begins) if begin == site]

    def reads(self, site: int) -> tuple[int, ...]:
        """Numbers of the sources that have to be seen there, in the same pass."""
        if self.untouched or not (self.mode == "replace" or self.known_at(site)):
            return ()
        return self.coder.layers_read(site)

    def activations(self, codes: SparseCodes) -> Tensor:
        """float32 ``[N, U]``: of the edited latents, 0 where they have no entry."""
        column_E = self._column_F[codes.indices.long()]
        mine_E = column_E >= 0
        found_NU = codes.values.new_zeros(codes.batch_size, len(self.latents))
        return found_NU.index_put((codes.rows[mine_E], column_E[mine_E]), codes.values[mine_E])

    def edited(self, before_NU: Tensor, holds: Sequence[Tensor]) -> Tensor:
        """float32 ``[N, U]``: what the activations become.

        Args:
            holds: bool ``[N]`` of each edit: where it holds.
        """
        columns = list(before_NU.unbind(1))
        for number, u, edit, value in self.steps:
            f_N, where_N = columns[u], holds[number].to(before_NU.device)
            if edit.active:
                where_N = where_N & (f_N != 0)
            columns[u] = torch.where(where_N, operate(edit.op, f_N, value), f_N)
        return torch.stack(columns, dim=1) if columns else before_NU

    def _site_of(self, edit: DirectionEdit) -> int:
        names = [{site, site.partition(".")[0]} for site in self.sites]
        found = [n for n, of_site in enumerate(names) if edit.layer is None or edit.layer in of_site]
        if len(self.sites) == 1:
            return 0
        if len(found) != 1:
            raise ConfigError(
                "the coder writes at several sites, and at which one is not said",
                where=str(edit),
                allowed=f"LAYER/{edit.direction} or SITE/{edit.direction}, of {', '.join(self.sites)}",
            )
        return found[0]

    def _along(
        self, n: int, edit: DirectionEdit, site: int, directions: Mapping[str, Tensor], scales: Scales
    ) -> Along:
        if edit.direction not in directions:
            raise ConfigError(
                f"there is no direction {edit.direction}",
                where=str(edit),
                allowed=", ".join(directions) or "one that --direction (in Python directions=) names",
            )
        vector = directions[edit.direction].detach()
        check_direction(vector, edit.direction, self.coder.shape.d_out)
        vector = vector.to(self.coder.device, torch.float32)
        norm = float(vector.norm())
        return Along(edit.direction, edit.op, vector / norm, scales.distance(edit, norm, site), n)


class Applied(NamedTuple):
    """What one pass did at one site; all on the CPU. Positions that no edit holds at are left out."""

    site: str
    columns: tuple[int | str, ...]
    """Latents whose activations were computed there, then directions, of which an entry is
    ``h . d / ||d||``."""
    sequences: Tensor
    """int64 ``[N]``: row of the batch."""
    places: Tensor
    """int64 ``[N]``: absolute positions."""
    before: Tensor
    """float32 ``[N, columns]``: as the pass had them."""
    after: Tensor
    """float32 ``[N, columns]``: what they became."""
    shift: Tensor
    """float32 ``[N]``: effective shift ``||h' - h|| / ||h||``; in mode ``replace`` the error counts too."""


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


def _first_written(norms_L: Tensor, n_sites: int) -> int:
    """The first site that a latent writes to; the last one of a latent that writes to none of several."""
    written = norms_L.nonzero()[:, 0]
    return 0 if n_sites == 1 else int(written[0]) if len(written) else n_sites - 1


def _check(coder: SparseCoder, edits: Sequence[Edit], mode: str) -> None:
    if mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r}", where="mode", allowed=", ".join(MODES))
    for edit in edits:
        check_latent(coder, edit)


def check_latent(coder: SparseCoder, edit: Edit) -> None:
    """That the coder has the latent.

    Raises:
        ConfigError: if it does not.
    """
    if edit.latent >= coder.n_latents:
        raise ConfigError(
            f"there is no latent {edit.latent}: the coder has {coder.n_latents:,}",
            where=str(edit),
            allowed=f"0 to {coder.n_latents - 1}",
        )
