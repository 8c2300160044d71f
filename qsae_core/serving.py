"""What is asked of a trained coder beside codes: float atoms, packed numbers, what rounding does to atoms.

Shapes: F latents, D width, N entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from qsae_core.coder_json import description_text
from qsae_core.coder_records import AtomErrors
from qsae_core.codes import SparseCodes
from qsae_core.component import name_of
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.kernels import Kind
from qsae_core.packed_rows import Arithmetic
from qsae_core.quantized_values import QuantizedValues
from qsae_core.tensor_files import tensor_reader

if TYPE_CHECKING:
    from qsae_core.coder import SparseCoder
    from qsae_core.quantizer import Lookup

ROWS_AT_ONCE = 4096


def check_choices(screen: Kind, arithmetic: Arithmetic, *, where: str | None = None) -> None:
    """Refuse a screen or an arithmetic that there is not.

    Raises:
        ConfigError: which says what there is.
    """
    for name, value, kind in (("screen", screen, Kind), ("arithmetic", arithmetic, Arithmetic)):
        known = get_args(kind)
        if value not in known:
            what, usual = f"there is no {name} {value!r}", f'{name}="{known[0]}"'
            raise ConfigError(what, where=where, allowed=", ".join(known), next=f"{usual}, as by default")


def usable_device(device: str) -> torch.device:
    """A device on which tensors can be made here.

    Raises:
        ConfigError: if its name is none of torch's, or it is not there.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        return found  # torch has no one error for what follows
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used ({type(error).__name__}: {str(error).splitlines()[0]})",
            where="device",
            allowed="cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count())),
            next='device="cpu", as by default',
        ) from error


def float_dictionary(coder: SparseCoder) -> Tensor:
    """float32 ``[F, d_out]``: the atoms in the data's space, as they were before quantization.

    Raises:
        ArtifactError: if they were not kept, or their file is truncated, altered or another coder's.
    """
    rows = _float_rows(coder)
    if rows is None:
        raise ArtifactError(
            "the atoms before quantization are not in this artifact, only the packed ones",
            where=None if coder.masters_file is None else str(coder.masters_file.parent),
            allowed="dictionary(quantized=True)",
            next="train with --save-float, which keeps them in masters.safetensors",
        )
    return coder.norm_out.inverse_direction(coder.by_layer(rows))


def _float_rows(coder: SparseCoder) -> Tensor | None:
    """``[F, D]``: the decoder before quantization, in the normalised space; None where it was not kept.

    Raises:
        ArtifactError: if the file of masters is truncated, altered or another coder's.
    """
    decoder = coder.decoder_matrix()
    if decoder.weight is not None:
        return decoder.before_quantization(decoder.weight.detach())
    if decoder.quantizer.is_identity:
        return decoder()
    if coder.masters_file is not None and coder.masters_file.exists():
        read = tensor_reader(coder.masters_file, description_text(coder.masters_file.parent))
        rows = decoder.read_before_quantization(lambda part: read(f"W_dec.{part}"))
        return rows[: decoder.shape[0]].to(coder.device)
    return None


@torch.no_grad()
def atom_errors(coder: SparseCoder) -> AtomErrors | None:
    """See ``SparseCoder.atom_errors``. Cosines are those of the normalised space."""
    decoder = coder.matrices().get("W_dec")
    if decoder is None:
        return None
    if decoder.quantizer.is_identity:
        return AtomErrors(torch.zeros(decoder.shape[0], dtype=torch.float64), coder.atom_norms())
    weight = _float_rows(coder)
    return None if weight is None else errors_of_rows(coder, weight)


@torch.no_grad()
def errors_of_rows(coder: SparseCoder, before_FD: Tensor) -> AtomErrors:
    """What a coder's quantizer made of these decoder rows of the normalised space."""
    norms = coder.by_layer(before_FD).norm(dim=-1) * coder.norm_out.scale.flatten()
    return AtomErrors(squared_sines(before_FD, coder.decoder_matrix()()), norms)


def equal_layers(coder: SparseCoder) -> Tensor:
    """float32 ``[F, L d_out]``: its atoms over the scale of each layer's data, not rotated."""
    return (coder.atoms() / coder.norm_out.scale).flatten(1)


def squared_sines(a_FD: Tensor, b_FD: Tensor) -> Tensor:
    """float64 ``[F]``, on the CPU: 1 - cos^2 between rows; 1 where one of the two is zero, and 0 where both
    are."""
    found = []
    for a, b in zip(a_FD.split(ROWS_AT_ONCE), b_FD.split(ROWS_AT_ONCE), strict=True):
        a, b = a.double(), b.double()
        inner, squares = (a * b).sum(1).square(), a.square().sum(1) * b.square().sum(1)
        both_zero = (a == 0).all(1) & (b == 0).all(1)
        found.append(torch.where(squares > 0, 1 - inner / squares, 1.0 - both_zero.double()).clamp_min(0))
    return torch.cat(found).cpu()


def code_levels(coder: SparseCoder, codes: SparseCodes) -> Tensor | None:
    """uint8 ``[N]``; see ``SparseCoder.code_levels``."""
    found = [m.quantizer for m in coder.modules() if isinstance(m, QuantizedValues)]
    quantizers = [quantizer for quantizer in found if not quantizer.is_identity]
    if not quantizers:
        return None
    if len(found) > 1 or quantizers[0].n_latents != codes.n_latents:
        raise NotImplementedError(f"{type(coder).__name__} has several code quantizers; override code_levels")
    return quantizers[0].pack(codes.values, codes.indices)


def stored_codes(coder: SparseCoder) -> Lookup:
    """The decoder's integer codes, points and scales; see ``SparseCoder.codes_and_scales``."""
    decoder = coder.decoder_matrix()
    found = decoder.quantizer.lookup(decoder.pack())
    if found is None:
        raise ConfigError(
            f"the decoder is not stored as codes and scales (its quantizer is {name_of(decoder.quantizer)})",
            allowed="a coder with a quantizer of scaled points, such as ste",
            next="dictionary() gives its atoms as floats",
        )
    return found
