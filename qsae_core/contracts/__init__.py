"""What a plugin author subclasses: one file a kind."""

from qsae_core.contracts.activation import Activation
from qsae_core.contracts.chosen_sites import ChosenSites, chosen_sites
from qsae_core.contracts.code_quantizer import CodeQuantizer
from qsae_core.contracts.coder import AtomErrors, Budget, CoderShape, LossOutput, Parts, SparseCoder
from qsae_core.contracts.codes import SparseCodes, concatenate, join_latents, split_latents
from qsae_core.contracts.cross_layer import CrossLayerForm, Form, LayerForm
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.dense import DenseForm, Function, Kept, Pointwise
from qsae_core.contracts.evaluation import Accumulator, Evaluation, EvaluationContext, Result, Table
from qsae_core.contracts.format import Checkpoint, CheckpointFormat
from qsae_core.contracts.held_out_part import HeldOutPart, Overlap
from qsae_core.contracts.kernel_set import KernelSet
from qsae_core.contracts.language_model import Edit, Edits, LanguageModel, Site, TokenBatch, not_before
from qsae_core.contracts.metric import Metric, Observation, Origin, computed, measure, observe
from qsae_core.contracts.named_tensors import ActivationWord, NamedTensors
from qsae_core.contracts.norm_limit import NormLimit
from qsae_core.contracts.one_layer import OneLayer
from qsae_core.contracts.packed_format import PackedFormat
from qsae_core.contracts.provenance import Provenance
from qsae_core.contracts.quantizer import (
    Calibration,
    Lookup,
    Packed,
    PackedTensor,
    Quantizer,
    check_layout,
    straight_through,
)
from qsae_core.contracts.shards import RankSlices, shard
from qsae_core.contracts.shuffled_blocks import Columns, ShuffledBlocks, batches_of, permutation
from qsae_core.contracts.source_view import SourceView
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.contracts.tracker import Tracker

__all__ = [
    "Accumulator",
    "Activation",
    "ActivationWord",
    "AtomErrors",
    "Batch",
    "Budget",
    "Calibration",
    "Checkpoint",
    "CheckpointFormat",
    "ChosenSites",
    "CodeQuantizer",
    "CoderShape",
    "Columns",
    "CrossLayerForm",
    "DataSource",
    "DenseForm",
    "Edit",
    "Edits",
    "Evaluation",
    "EvaluationContext",
    "Form",
    "Function",
    "HeldOutPart",
    "Kept",
    "KernelSet",
    "LanguageModel",
    "LayerForm",
    "Lookup",
    "LossOutput",
    "Metric",
    "NamedTensors",
    "NormLimit",
    "Observation",
    "OneLayer",
    "Origin",
    "Overlap",
    "Packed",
    "PackedFormat",
    "PackedTensor",
    "Parts",
    "Pointwise",
    "Provenance",
    "Quantizer",
    "RankSlices",
    "Result",
    "ShuffledBlocks",
    "Site",
    "SourceView",
    "SparseCoder",
    "SparseCodes",
    "SparsityRule",
    "Table",
    "TokenBatch",
    "Tracker",
    "batches_of",
    "check_layout",
    "chosen_sites",
    "computed",
    "concatenate",
    "join_latents",
    "measure",
    "not_before",
    "observe",
    "permutation",
    "shard",
    "split_latents",
    "straight_through",
]
