"""The operations that coders are made of: encode, decode, and the sparse products behind their gradients.

A variant calls ``encode`` and ``decode``; both are differentiable, never hold a ``[B, F]`` tensor for more
than a chunk of rows, and compute gradients only where codes have entries.
"""

from qsae_core.kernels.decode import decode
from qsae_core.kernels.encode import encode
from qsae_core.kernels.products import gather_dot, transposed_product

__all__ = ["decode", "encode", "gather_dot", "transposed_product"]
