"""What SAEs and transcoders share: coders to derive from, and mechanics to call by name."""

from qsae_core.coders.binary_latents import BinaryLatentCoder, usual_l0
from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.dead_latents import DeadLatents, auxk_loss
from qsae_core.coders.first_pairs import begin_at_tokens
from qsae_core.coders.level_rules import LevelRules
from qsae_core.coders.linear import LinearCoder, Pass, check_gates
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.nested import NestedCoder, fvu_by_level
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix, normalize_rows_
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.coders.routed import RoutedCoder
from qsae_core.coders.steps import step, step_candidates

__all__ = [
    "BinaryLatentCoder",
    "CalibratedCoder",
    "CoderSet",
    "DeadLatents",
    "LevelRules",
    "LinearCoder",
    "MatrixCoder",
    "NestedCoder",
    "Normalization",
    "Pass",
    "QuantizedMatrix",
    "QuantizedValues",
    "RoutedCoder",
    "auxk_loss",
    "begin_at_tokens",
    "check_gates",
    "fvu_by_level",
    "normalize_rows_",
    "step",
    "step_candidates",
    "usual_l0",
]
