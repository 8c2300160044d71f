"""What a plugin author subclasses: one file a kind."""

from qsae_core.contracts.activation import Activation
from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.coder import AtomErrors, Budget, CoderShape, LossOutput, Parts, SparseCoder
from qsae_core.contracts.codes import SparseCodes, concatenate, join_latents, split_latents
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.evaluation import Evaluation, EvaluationContext
from qsae_core.contracts.format import CheckpointFormat
from qsae_core.contracts.held_out_part import HeldOutPart, Overlap
from qsae_core.contracts.kernel_set import KernelSet
from qsae_core.contracts.language_model import Edit, LanguageModel, TokenBatch
from qsae_core.contracts.metric import Metric, Observation, measure, observe
from qsae_core.contracts.quantizer import Calibration, Lookup, Packed, Quantizer, straight_through
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.contracts.tracker import Tracker

__all__ = [
    "Activation",
    "AtomErrors",
    "Batch",
    "Budget",
    "Calibration",
    "CheckpointFormat",
    "CodeQuantizer",
    "CoderShape",
    "DataSource",
    "Edit",
    "Evaluation",
    "EvaluationContext",
    "HeldOutPart",
    "KernelSet",
    "LanguageModel",
    "Lookup",
    "LossOutput",
    "Metric",
    "Observation",
    "Overlap",
    "Packed",
    "Parts",
    "Quantizer",
    "SparseCoder",
    "SparseCodes",
    "SparsityRule",
    "TokenBatch",
    "Tracker",
    "concatenate",
    "join_latents",
    "measure",
    "observe",
    "split_latents",
    "straight_through",
]
