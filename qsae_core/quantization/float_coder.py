"""The float coder that is quantized: a stored one, or that of the float masters beside a quantized one."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from qsae_core.artifact import artifact, places
from qsae_core.artifact import description as coder_json
from qsae_core.artifact.tensor_files import load_tensors
from qsae_core.coders.drawn_rows import blank_rows
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.compose.compose import compose_coder
from qsae_core.contracts.coder import CoderShape
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.evaluation.beside import twin_folder
from qsae_core.kinds import QUANTIZER_SLOTS
from qsae_core.quantization.spaces import OF_QUANTIZERS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def float_coder(folder: pathlib.Path, device: str, registry: Registry) -> tuple[MatrixCoder, bool]:
    """The stored coder, or where it is quantized the one of its float masters; and whether it is that one.

    One that is stored as 16-bit floats computes the same in float32; large matrices stay in their file.
    """
    stored = artifact.load(folder, registry=registry, map_large=True)
    masters = _of_masters(folder, registry) if stored.is_quantized else None
    source = masters or stored
    if source.is_quantized and not _is_of_floats(source):
        raise ConfigError(
            "this coder is quantized already",
            where=str(folder),
            allowed="a coder whose quantizers are all none, such as the float twin beside it, or one whose "
            "float masters were kept",
            next=_instead(folder),
        )
    return source.to(device).eval(), masters is not None


def _instead(folder: pathlib.Path) -> str:
    source = twin_folder(folder)
    if source is not None and source != folder:
        return f"quantize what it was made from: {source}"
    return "train with --save-float, or with --quantizer none --encoder-quantizer none --code-quantizer none"


def _is_of_floats(coder: MatrixCoder) -> bool:
    """Whether nothing of it is quantized but that matrices are floats of 16 bits."""
    values = [m.quantizer for m in coder.modules() if isinstance(m, QuantizedValues)]
    matrices = coder.matrices().values()
    return all(q.is_identity for q in values) and all(m.floats() is not None for m in matrices)


def _unquantized(folder: pathlib.Path, registry: Registry) -> MatrixCoder:
    """The coder that a description composes, without quantizers, with any weights."""
    description = coder_json.usable_description(folder, registry)
    blocks = coder_json.components(description)
    unquantized = {slot: {"use": "none"} for slot in QUANTIZER_SLOTS if slot in blocks}
    with blank_rows():
        return compose_coder({**blocks, **unquantized}, registry, CoderShape(**description["shape"]))


def _of_masters(folder: pathlib.Path, registry: Registry) -> MatrixCoder | None:
    """A coder without quantizers, of the masters beside the one at ``folder``; None without these."""
    file = folder / places.MASTERS
    if not file.exists():
        return None
    coder = _unquantized(folder, registry)
    text = (folder / coder_json.DESCRIPTION).read_text(encoding="utf-8")
    state = load_tensors(file, text)
    kept = {name: t for name, t in state.items() if not any(part in name for part in OF_QUANTIZERS)}
    result = coder.load_state_dict(kept, strict=False)
    if result.missing_keys or result.unexpected_keys:
        raise ArtifactError(
            f"the float masters do not fit: {[*result.missing_keys, *result.unexpected_keys]}",
            where=str(file),
        )
    return coder
