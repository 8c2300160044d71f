"""What users of a trained coder ask for beside codes: float atoms, packed numbers. Shapes: F latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.tensor_files import read_tensor

if TYPE_CHECKING:
    from qsae_core.coder import SparseCoder
    from qsae_core.parts import Lookup


def float_dictionary(coder: SparseCoder) -> Tensor:
    """float32 ``[F, d_out]``: the atoms in the data's space, as they were before quantization.

    Raises:
        ArtifactError: if they were not kept.
    """
    decoder = coder.decoder_matrix()
    if decoder.weight is not None:
        weight = decoder.before_quantization(decoder.weight.detach())
    elif decoder.quantizer.is_identity:
        weight = decoder()
    elif coder.masters_file is not None and coder.masters_file.exists():
        file = coder.masters_file
        rows = decoder.read_before_quantization(lambda part: read_tensor(file, f"W_dec.{part}"))
        weight = rows[: decoder.shape[0]].to(coder.device)
    else:
        raise ArtifactError(
            "the atoms before quantization are not in this artifact, only the packed ones",
            allowed="dictionary(quantized=True)",
            next="train with --save-float, which keeps them in masters.safetensors",
        )
    return coder.norm_out.inverse_direction(weight)


def stored_codes(coder: SparseCoder) -> Lookup:
    """The decoder's integer codes, points and scales; see ``SparseCoder.codes_and_scales``."""
    decoder = coder.decoder_matrix()
    found = decoder.quantizer.lookup(decoder.pack())
    if found is None:
        raise ConfigError(
            "the decoder is not stored as codes and scales "
            f"(its quantizer is {type(decoder.quantizer).__name__})",
            allowed="a coder with a quantizer of scaled points, such as ste",
            next="dictionary() gives its atoms as floats",
        )
    return found
