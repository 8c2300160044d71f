"""What SAEs and transcoders share: coders to derive from, and mechanics to call by name."""

from qsae_core.coders.binary_latents import BinaryLatentCoder, usual_l0
from qsae_core.coders.calibrated_coder import CalibratedCoder
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.dead_latents import EVERY_STEPS as AUXK_EVERY_STEPS
from qsae_core.coders.dead_latents import DeadLatents, auxk_loss
from qsae_core.coders.dense import by_rows, defined_anew, in_shared_words, no_dense_form, threshold_of
from qsae_core.coders.drawn_rows import unit_rows
from qsae_core.coders.first_pairs import TRANSCODER_BIAS_RATE, begin_at_tokens, first_pairs
from qsae_core.coders.inputs import check_codes, kept_inputs
from qsae_core.coders.level_rules import LevelRules
from qsae_core.coders.linear import OFF, LinearCoder, Pass, check_gates
from qsae_core.coders.loss_units import LossUnits
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.coders.nested import NestedCoder, fvu_by_level
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix, normalize_rows_
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.coders.restarts import Restarts, restart
from qsae_core.coders.routed import RoutedCoder
from qsae_core.coders.steps import step, step_candidates

__all__ = [
    "AUXK_EVERY_STEPS",
    "OFF",
    "TRANSCODER_BIAS_RATE",
    "BinaryLatentCoder",
    "CalibratedCoder",
    "CoderSet",
    "DeadLatents",
    "LevelRules",
    "LinearCoder",
    "LossUnits",
    "MatrixCoder",
    "NestedCoder",
    "Normalization",
    "Pass",
    "QuantizedMatrix",
    "QuantizedValues",
    "Restarts",
    "RoutedCoder",
    "auxk_loss",
    "begin_at_tokens",
    "by_rows",
    "check_codes",
    "check_gates",
    "defined_anew",
    "first_pairs",
    "fvu_by_level",
    "in_shared_words",
    "kept_inputs",
    "no_dense_form",
    "normalize_rows_",
    "restart",
    "step",
    "step_candidates",
    "threshold_of",
    "unit_rows",
    "usual_l0",
]
