"""The operations that coders are made of: encode, decode, nested losses, the products behind their gradients.

A variant calls ``encode``, ``decode``, ``decode_groups``, ``prefix_errors`` and ``squared_error``. These are
differentiable, hold a chunk of rows of ``[B, F]`` at most, and compute gradients only where codes have
entries. Below them are plain functions over tensors (``OPERATIONS``), each with an implementation in torch
and, where a kernel set is active, a compiled one.
"""

from qsae_core.kernels.adam import adam, project_rows
from qsae_core.kernels.batch_selection import BatchSelection
from qsae_core.kernels.decode import decode
from qsae_core.kernels.dense_rows import collect_rows, expand_rows
from qsae_core.kernels.dispatch import OPERATIONS, install, installed, recycle, torch_only, uninstall
from qsae_core.kernels.encode import encode, refusal_to_screen
from qsae_core.kernels.fused import (
    LookupRows,
    Space,
    Weights,
    fused_decode,
    fused_decoder,
    fused_encode,
    fused_encoder,
)
from qsae_core.kernels.gather_dot import gather_dot
from qsae_core.kernels.lookup import lookup_gather_dot, lookup_pack, lookup_product
from qsae_core.kernels.losses import squared_error
from qsae_core.kernels.nested import decode_groups, prefix_errors
from qsae_core.kernels.packed_rows import Arithmetic
from qsae_core.kernels.packing import (
    pack_planes,
    pack_trits,
    planes_shape,
    trits_shape,
    unpack_planes,
    unpack_trits,
)
from qsae_core.kernels.precision import full_precision
from qsae_core.kernels.processes import everyone, partners, processes
from qsae_core.kernels.products import transposed_product
from qsae_core.kernels.rotation import rotate, turned, unrotate
from qsae_core.kernels.rows import DenseRows, Matrix, Rows, as_rows
from qsae_core.kernels.screening import Kind, Screen, candidates_for, screen, screen_prepare
from qsae_core.kernels.sparse_product import sparse_product
from qsae_core.kernels.ternary_scales import ternary_scales, two_level_scale
from qsae_core.kernels.top_k import compress, nonzero_codes, top_k
from qsae_core.kernels.transpose_codes import transpose_codes

__all__ = [
    "OPERATIONS",
    "Arithmetic",
    "BatchSelection",
    "DenseRows",
    "Kind",
    "LookupRows",
    "Matrix",
    "Rows",
    "Screen",
    "Space",
    "Weights",
    "adam",
    "as_rows",
    "candidates_for",
    "collect_rows",
    "compress",
    "decode",
    "decode_groups",
    "encode",
    "everyone",
    "expand_rows",
    "full_precision",
    "fused_decode",
    "fused_decoder",
    "fused_encode",
    "fused_encoder",
    "gather_dot",
    "install",
    "installed",
    "lookup_gather_dot",
    "lookup_pack",
    "lookup_product",
    "nonzero_codes",
    "pack_planes",
    "pack_trits",
    "partners",
    "planes_shape",
    "prefix_errors",
    "processes",
    "project_rows",
    "recycle",
    "refusal_to_screen",
    "rotate",
    "screen",
    "screen_prepare",
    "sparse_product",
    "squared_error",
    "ternary_scales",
    "top_k",
    "torch_only",
    "transpose_codes",
    "transposed_product",
    "trits_shape",
    "turned",
    "two_level_scale",
    "uninstall",
    "unpack_planes",
    "unpack_trits",
    "unrotate",
]
